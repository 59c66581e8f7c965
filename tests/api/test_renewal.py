"""What is due of certificates follows from the state and the time; and the duty does it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from api.renewal import Drop, Promote, Renew, RenewalDuty, Step, due, warnings
from mesh.commands import Command
from mesh.commands_pki import DropRoot, PromoteRoot
from mesh.state import State
from tests.api.conftest import Cloud
from tests.api.test_pki import certificate, made
from tests.mesh.pki_worlds import CA, CERT, DAY_US, imported, issued, root, rooted, rotated
from tests.mesh.worlds import START_US, STEP_US, World

SPREAD_S = 300
US = 1_000_000


def world(*commands: Command) -> World:
    found = World()
    for command in commands:
        found.do(command)
    return found


def steps(state: State, now_us: int) -> list[Step]:
    return list(due(state, now_us, SPREAD_S))


def now_of(found: World, after_s: float = 0) -> int:
    return START_US + len(found.events) * STEP_US + int(after_s * US)


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left() -> None:
    found = world(rooted(), issued())
    end = START_US + 90 * DAY_US
    assert steps(found.state, end - 31 * DAY_US) == []
    (step,) = steps(found.state, end - 29 * DAY_US)
    assert isinstance(step, Renew)
    assert step.certificate.arn == CERT


def test_however_short_its_life_it_is_not_renewed_without_a_pause() -> None:
    found = world(rooted(), issued(not_before_us=START_US - 300 * US, not_after_us=START_US + 25 * US))
    assert steps(found.state, now_of(found, 1)) == []
    assert len(steps(found.state, now_of(found, 30))) == 1


def test_an_imported_certificate_is_its_owners_to_renew() -> None:
    found = world(rooted(), imported(CERT))
    assert steps(found.state, START_US + 29 * DAY_US) == []
    assert any("import again" in said for said in warnings(found.state, START_US + 29 * DAY_US))


def test_a_rotation_goes_step_by_step_with_time_to_hear_of_each() -> None:
    found = world(rooted(), issued(), rotated())
    assert steps(found.state, now_of(found, SPREAD_S - 10)) == []
    (step,) = steps(found.state, now_of(found, SPREAD_S))
    assert isinstance(step, Promote)
    assert step.root.id == root(2).id
    found.do(PromoteRoot(CA, root(2).id))
    (step,) = steps(found.state, now_of(found))
    assert isinstance(step, Renew), "at once: the new root is believed everywhere"
    found.do(issued(under=2, create=False))
    assert steps(found.state, now_of(found, SPREAD_S - 10)) == [], "a peer may still show the old one"
    (step,) = steps(found.state, now_of(found, SPREAD_S))
    assert isinstance(step, Drop)
    assert step.root.id == root(1).id
    found.do(DropRoot(CA, root(1).id))
    assert steps(found.state, now_of(found, 10 * SPREAD_S)) == []


def test_a_server_without_the_key_promotes_nothing() -> None:
    """A role that cannot open secrets could not issue anything either."""
    found = world(rooted(), rotated())
    closed = found.state.but(authority_keys=World().state.authority_keys)
    assert steps(closed, now_of(found, SPREAD_S)) == []


def test_an_authority_that_is_only_believed_drops_nothing_before_it_issues() -> None:
    found = world(rooted(secret=None))
    assert steps(found.state, now_of(found, 10 * SPREAD_S)) == []


@pytest.mark.parametrize(
    ("after_days", "said"),
    [
        (1, []),
        (80, [f"1 certificates should have been renewed and will expire: [{CERT}"]),
        (91, [f"1 certificates have expired, and no caller that validates takes them: [{CERT}]"]),
    ],
)
def test_what_is_overdue_or_expired_is_told_by_every_server(after_days: int, said: list[str]) -> None:
    found = world(rooted(), issued())
    told = warnings(found.state, START_US + after_days * DAY_US)
    assert len(told) == len(said)
    assert all(one.startswith(other) for one, other in zip(told, said, strict=True))


def test_a_root_that_nears_its_end_is_told() -> None:
    found = world(rooted())
    (said,) = warnings(found.state, START_US + 3400 * DAY_US)
    assert "pki ca rotate" in said
    (said,) = warnings(found.state, START_US + 3700 * DAY_US)
    assert "has expired" in said


async def test_the_duty_renews_and_carries_a_rotation_through(cloud: Cloud) -> None:
    first = await certificate(cloud)
    server = cloud.server
    duty = RenewalDuty(server.ports, server.app.state.commands, 1, 0)
    assert not await duty.round()
    await made(cloud, "authorities/rotate", authority=first["authority"])
    for _ in range(3):  # promoted, issued anew, dropped
        assert await duty.round()
    assert not await duty.round()
    state = server.replica.state
    (authority,), (leaf,) = state.authorities.values(), state.certificates.values()
    assert [each.id for each in authority.trusted()] == [authority.issuing] == [leaf.root]
    assert leaf.version == 2
    assert list(state.authority_keys) == [authority.issuing]
    assert duty.failures == []


class Later:
    """A clock that is ahead of another."""

    def __init__(self, clock: Any, ahead_us: int) -> None:
        self._clock, self._ahead_us = clock, ahead_us

    def now_us(self) -> int:
        return int(self._clock.now_us()) + self._ahead_us

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def test_what_cannot_be_renewed_is_told_and_tried_again(cloud: Cloud) -> None:
    authority = await made(cloud, "authorities", name="short", validity_s=3600)
    body = {"domain": "a.local", "authority": authority["arn"], "validity_s": 3600}
    leaf = await made(cloud, "certificates", **body)
    server = cloud.server
    late = dataclasses.replace(server.ports, clock=Later(server.ports.clock, 7200 * US))
    duty = RenewalDuty(late, server.app.state.commands, 1, 0)
    await duty.round()
    (failure,) = duty.failures
    assert failure.startswith(leaf["arn"])
    assert "expired" in failure
    assert len(warnings(server.replica.state, late.clock.now_us())) == 2
