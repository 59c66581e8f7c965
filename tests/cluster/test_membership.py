"""Which step a replacement is at, from what etcd lists."""

from __future__ import annotations

import pytest

from cluster.etcd.membership import EtcdMemberInfo, Step, member_at, next_step

LOST = "https://10.0.0.1:2380"
OTHERS = [EtcdMemberInfo(n, f"etcd-z{n}", (f"https://10.0.0.{n}:2380",), learner=False) for n in (2, 3)]


def listed(*, name: str = "etcd-z1", learner: bool) -> EtcdMemberInfo:
    return EtcdMemberInfo(1, name, (LOST,), learner)


@pytest.mark.parametrize(
    ("found", "joining", "step"),
    [
        (listed(learner=False), False, Step.REMOVE),
        (listed(learner=False), True, Step.REMOVE),
        (None, False, Step.ADD),
        (None, True, Step.ADD),
        (listed(name="", learner=True), True, Step.PROMOTE),
        (listed(learner=True), True, Step.PROMOTE),
        # Its process never came up, or its disk went a second time: what it has is not to be trusted.
        (listed(learner=True), False, Step.REMOVE),
    ],
)
def test_a_replacement_goes_on_where_it_ended(found: EtcdMemberInfo | None, joining: bool, step: Step) -> None:
    members = [*OTHERS, *([found] if found else [])]
    assert next_step(members, LOST, joining=joining) is step
    assert member_at(members, LOST) == found
