"""Which member is asked, whose answer is believed, and what a failed call means."""

from __future__ import annotations

import grpc
import pytest

from cluster.etcd.choice import EtcdMember, MemberChoice
from cluster.etcd.failures import Verdict, judge
from cluster.etcd.values import prefix_end
from mesh.errors import TimelineMoved
from runtime.clock import SystemEntropy

MEMBERS = [EtcdMember(f"z{number}", f"127.0.0.1:{number}") for number in (1, 2, 3)]


def choice(zone: str = "z2") -> MemberChoice:
    return MemberChoice(MEMBERS, zone, SystemEntropy())


def test_the_own_zone_comes_first() -> None:
    for zone, index in (("z1", 0), ("z2", 1), ("z3", 2)):
        assert choice(zone).order(0.0)[0] == index


def test_every_member_is_always_there() -> None:
    made = choice("elsewhere")
    for index in range(3):
        made.failed(index, 0.0)
        assert sorted(made.order(0.1)) == [0, 1, 2]


def test_a_failed_member_comes_last_for_a_while_and_longer_each_time() -> None:
    made = choice()
    made.failed(1, 0.0)
    assert made.order(0.1)[-1] == 1
    assert made.order(0.6)[0] == 1
    made.failed(1, 0.6)
    assert made.order(1.2)[-1] == 1
    for _ in range(20):
        made.failed(1, 2.0)
    assert made.order(6.9)[-1] == 1
    assert made.order(7.1)[0] == 1


def test_an_answer_clears_a_member() -> None:
    made = choice()
    made.failed(1, 0.0)
    made.answered(1)
    assert made.order(0.1)[0] == 1


def test_of_failed_members_the_one_that_failed_first_comes_first() -> None:
    made = choice()
    for index, now_s in ((2, 0.0), (0, 0.1), (1, 0.2)):
        made.failed(index, now_s)
    assert made.order(0.3) == [2, 0, 1]


def test_another_cluster_stops_the_process() -> None:
    made = choice()
    assert made.believe(0xA, 1, 0)
    assert made.believe(0xA, 2, 1)
    with pytest.raises(TimelineMoved, match="cluster b"):
        made.believe(0xB, 9, 2)


def test_an_older_term_than_before_the_call_is_not_believed() -> None:
    made = choice()
    assert made.believe(1, 5, made.term)
    before = made.term
    assert made.believe(1, 6, before)
    assert made.believe(1, 5, before)  # raised by another call while this one was under way
    assert not made.believe(1, 5, made.term)


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Verdict.UNKNOWN),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", Verdict.UNKNOWN),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed", Verdict.UNKNOWN),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out", Verdict.UNKNOWN),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", Verdict.UNKNOWN),
        (grpc.StatusCode.CANCELLED, "cancelled", Verdict.UNKNOWN),
        (grpc.StatusCode.INTERNAL, "anything", Verdict.UNKNOWN),
        (grpc.StatusCode.UNKNOWN, "anything", Verdict.UNKNOWN),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Verdict.UNKNOWN),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max", Verdict.UNKNOWN),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max", Verdict.TOO_LARGE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Verdict.REFUSED),
        (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", Verdict.REFUSED),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Verdict.REFUSED),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", Verdict.TOO_LARGE),
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Verdict.DENIED),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", Verdict.DENIED),
        (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Verdict.COMPACTED),
    ],
)
def test_only_what_is_certain_is_called_certain(code: grpc.StatusCode, text: str, verdict: Verdict) -> None:
    assert judge(code, text) is verdict


@pytest.mark.parametrize(("prefix", "end"), [(b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")])
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
