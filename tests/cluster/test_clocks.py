"""Clocks of the members: who is off the median is told so; a good clock never is, however late it hears of others."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cluster.clocks import ClockJudge
from cluster.members import Member

OWN = ("api", "api-z1")
START_S = 1_790_000_000.0


def member(number: int, wall_s: float, role: str = "api") -> Member:
    name = f"{role}-z{number}"
    return Member(
        role=role, id=name, zone="z1", address="a:1", level=1, build="0", wall_us=int((START_S + wall_s) * 1e6)
    )


class Cluster:
    """Members that renew every 3 s, each at its own moment; a judge that looks every half. Times are true ones."""

    def __init__(self, own_ahead_s: float, others_ahead_s: list[float]) -> None:
        self.judge = ClockJudge(OWN)
        self.own_ahead_s, self.others_ahead_s = own_ahead_s, others_ahead_s

    def members_at(self, now_s: float) -> list[Member]:
        renewed = [3 * ((now_s - number * 0.7) // 3) + number * 0.7 for number in range(len(self.others_ahead_s))]
        others = zip(renewed, self.others_ahead_s, strict=True)
        return [member(2 + n, at + ahead) for n, (at, ahead) in enumerate(others)] + [member(1, 0)]

    def ahead_s(self, at_s: float, looks_late_s: float = 0.0) -> float:
        for look in range(int(2 * at_s) + 1):
            begun_s = look / 2
            self.judge.on_look(self.members_at(begun_s - looks_late_s), begun_s, begun_s + 0.01)
        return self.judge.ahead_us(int((START_S + at_s + self.own_ahead_s) * 1e6), at_s) / 1e6

    def objection(self, at_s: float) -> str | None:
        return self.judge.objection(int((START_S + at_s + self.own_ahead_s) * 1e6), at_s)


@pytest.mark.parametrize("ahead_s", [-3600.0, -5.0, -3.5, 3.5, 5.0, 3600.0])
def test_a_clock_off_the_others_is_objected_to_with_what_to_do(ahead_s: float) -> None:
    cluster = Cluster(ahead_s, [0.0, 0.1, -0.1, 0.0, 0.0])
    assert abs(cluster.ahead_s(10.0) - ahead_s) <= 1.1
    said = cluster.objection(10.0)
    assert said is not None
    assert ("ahead of" if ahead_s > 0 else "behind") in said
    assert "NTP" in said


def test_a_good_clock_among_one_bad_one_writes_on() -> None:
    cluster = Cluster(0.0, [3600.0, 0.0, 0.2])
    assert abs(cluster.ahead_s(10.0)) < 0.5
    assert cluster.objection(10.0) is None


@given(
    own_s=st.floats(-0.4, 0.4),
    others_s=st.lists(st.floats(-0.4, 0.4), max_size=8),
    at_s=st.floats(0, 30),
    late_s=st.floats(0, 0.45),
)
def test_clocks_that_are_together_are_never_objected_to(
    own_s: float, others_s: list[float], at_s: float, late_s: float
) -> None:
    cluster = Cluster(own_s, others_s)
    cluster.ahead_s(at_s, late_s)
    assert cluster.objection(at_s) is None


def test_a_far_clock_is_noticed_at_the_first_look() -> None:
    assert Cluster(60.0, [0.0, 0.0]).ahead_s(0.0) > 40
    assert Cluster(-60.0, [0.0, 0.0]).ahead_s(0.0) < -40


def test_a_step_of_the_own_clock_shows_before_the_next_look_and_ends_when_it_is_set_back() -> None:
    cluster = Cluster(0.0, [0.0, 0.0])
    cluster.ahead_s(10.0)
    for own_ahead_s, objects in ((0.0, False), (30.0, True), (-30.0, True), (0.0, False)):
        cluster.own_ahead_s = own_ahead_s
        assert (cluster.objection(10.5) is not None) is objects, own_ahead_s


def test_when_the_others_are_set_the_new_time_counts() -> None:
    cluster = Cluster(0.0, [30.0, 30.0])
    assert cluster.ahead_s(10.0) < -28
    cluster.others_ahead_s = [0.0, 0.0]
    assert abs(cluster.ahead_s(20.0)) < 1.1


def test_alone_a_server_believes_itself() -> None:
    judge = ClockJudge(OWN)
    judge.on_look([member(1, 0)], 1.0, 1.0)
    assert judge.ahead_us(0, 1.0) == 0
    assert judge.objection(0, 1.0) is None


def test_a_frontend_has_no_clock_of_its_own_and_those_that_left_are_forgotten() -> None:
    judge = ClockJudge(OWN)
    wall_us = int(START_S * 1e6)
    judge.on_look([member(2, -60.0, role="frontend"), member(3, -60.0, role="frontend")], 0.0, 0.0)
    assert judge.ahead_us(wall_us, 0.0) == 0
    judge.on_look([member(2, -60.0), member(3, -60.0)], 1.0, 1.0)
    assert judge.ahead_us(wall_us, 1.0) > 40_000_000
    judge.on_look([dataclasses.replace(member(2, 0.0), wall_us=0)], 2.0, 2.0)
    assert judge.ahead_us(wall_us, 2.0) == 0
