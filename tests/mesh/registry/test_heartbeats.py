"""Who is marked silent, who is not, and why: every way in which a missing heartbeat could be our own fault."""

from __future__ import annotations

import pytest

from mesh.limits import HEARTBEAT_BRAKE_WINDOW_US
from mesh.registry.commands import CopyInstances, MarkHeartbeats, RegisterInstance
from mesh.registry.heartbeats import Judged, judge
from mesh.registry.state import Health
from tests.mesh.registry.worlds import SHOP, World, stocked

OWED_S = 10
LONG_S = 1_000.0


def owing(count: int) -> World:
    return stocked(count, {"MESHLOG_HEARTBEAT_S": str(OWED_S)})


def look(world: World, alive: str, *, watched_s: float = LONG_S, later_s: float = 600) -> Judged:
    kept = {(SHOP, each) for each in alive.split()}
    return judge(world.state, kept, now_us=world.time_us + int(later_s * 1e6), watched_s=watched_s)


def test_one_of_three_that_is_not_heard_is_missed() -> None:
    assert look(owing(3), "i0 i2") == Judged({SHOP: ("i1",)}, {}, ())


def test_who_was_just_registered_or_owes_nothing_is_not_missed() -> None:
    assert look(owing(3), "", later_s=5).missed == {}
    assert look(stocked(3), "").missed == {}


@pytest.mark.parametrize("watched_s", [0.0, 5.0, float(OWED_S)])
def test_nobody_is_missed_who_was_not_watched_long_enough(watched_s: float) -> None:
    assert look(owing(3), "i0 i2", watched_s=watched_s) == Judged({}, {}, ())


@pytest.mark.parametrize(("count", "alive"), [(1, ""), (3, "i0"), (3, ""), (2, "")])
def test_a_service_is_never_emptied_nor_more_than_halved_at_once(count: int, alive: str) -> None:
    judged = look(owing(count), alive)
    assert judged.missed == {}
    assert len(judged.held) == 1
    assert "they stay endpoints" in judged.held[0]


def test_half_of_it_may_go_and_the_next_half_only_later() -> None:
    world = owing(4)
    assert look(world, "i0 i1").missed == {SHOP: ("i2", "i3")}
    world.do(MarkHeartbeats(SHOP, ("i2", "i3"), silent=True))
    assert look(world, "i0", later_s=30).held
    window_s = HEARTBEAT_BRAKE_WINDOW_US / 1e6
    assert look(world, "i0", later_s=window_s + 1).missed == {SHOP: ("i1",)}


def test_who_is_heard_again_counts_at_once_whatever_is_held() -> None:
    world = owing(2)
    world.do(MarkHeartbeats(SHOP, ("i0",), silent=True))
    judged = look(world, "i0", watched_s=0)
    assert judged.heard == {SHOP: ("i0",)}
    assert look(world, "").heard == {}


def test_instances_without_heartbeats_keep_a_service_from_being_empty() -> None:
    world = owing(1)
    world.do(RegisterInstance(world.service_id(), "plain", {"AWS_INSTANCE_IPV4": "10.0.0.9"}))
    judged = look(world, "")
    assert judged.held, "one of one that owes heartbeats is all of them"


def test_a_registration_anew_ends_silence() -> None:
    world = owing(3)
    world.do(MarkHeartbeats(SHOP, ("i0",), silent=True))
    world.do(RegisterInstance(world.service_id(), "i0", {"MESHLOG_HEARTBEAT_S": "10"}))
    assert [each.health.value for each in world.state.discovered(SHOP)] == ["HEALTHY"] * 3


def test_what_is_copied_from_elsewhere_owes_nothing_here() -> None:
    world = World()
    put = tuple((name, {"MESHLOG_HEARTBEAT_S": said}, Health.HEALTHY) for name, said in (("a", "10"), ("b", "often")))
    world.do(CopyInstances(SHOP, "aws:eu-north-1", put))
    assert look(world, "") == Judged({}, {}, ())
