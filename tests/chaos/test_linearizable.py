"""The checker of I2: green on whatever a correct mesh can answer, red on every lie, and never green for nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.linearizable import (
    CREATE,
    DELETE,
    DESCRIBE,
    NOT_FOUND,
    UPDATE,
    Call,
    Seen,
    linearizable,
    positions_follow_time,
    stuck_at,
    unanswered,
)
from tests.chaos.histories import by_trying_all, drawn, lies

ONE, TWO = Seen("u", 1, 1), Seen("u", 2, 2)


def create(began: int, ended: int | None, name: str = "n0") -> Call:
    return Call("a", CREATE, name, began, ended, wrote=(1, None), seen=ONE if ended else None)


def update(began: int, ended: int | None) -> Call:
    return Call("b", UPDATE, "n0", began, ended, wrote=(2, None), seen=TWO if ended else None)


def describe(began: int, ended: int, seen: Seen | None) -> Call:
    return Call("c", DESCRIBE, "n0", began, ended, code="" if seen else NOT_FOUND, seen=seen)


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from((0, 5, 25, 80)), st.sampled_from((0.0, 0.1)))
@settings(max_examples=100)
def test_what_a_correct_mesh_answers_is_linearizable(seed: int, length: int, spread: int, silence: float) -> None:
    assert stuck_at(drawn(seed, length, spread=spread, silence=silence)) is None


@given(st.integers(0, 10**6), st.sampled_from((0, 10, 30)), st.sampled_from((0.0, 0.4)))
@settings(max_examples=60)
def test_the_search_finds_an_order_exactly_where_trying_all_finds_one(seed: int, spread: int, silence: float) -> None:
    calls = drawn(seed, 7, spread=spread, silence=silence)
    for what, told in lies(calls):
        assert (stuck_at(told) is None) == by_trying_all(told), what


def test_every_lie_in_a_history_without_overlaps_is_found() -> None:
    found = set[str]()
    for seed in range(12):
        for what, told in lies(drawn(seed, 40, spread=0)):
            assert stuck_at(told) is not None, what
            found.add(what.partition(" at ")[0])
    assert len(found) == 11


def test_one_lie_at_the_end_of_a_busy_history_is_found() -> None:
    """Two hundred calls, eight at a time; then a caller is told of an update that left a version where it was."""
    for seed in range(3):
        busy = drawn(seed, 200, spread=40)
        last = [call for call in busy if call.verb == UPDATE and call.seen][-1]
        after = max(call.ended or 0 for call in busy) + 1
        lie = Call("z", UPDATE, last.name, after, after + 1, wrote=(7, None), seen=last.seen)
        assert stuck_at(busy) is None
        assert stuck_at([*busy, lie]) == lie


# --- the classics


def test_a_read_may_see_a_write_that_is_under_way_and_none_after_it_may_go_back() -> None:
    write = update(10, 50)
    assert stuck_at([create(0, 1), write, describe(20, 22, TWO), describe(30, 32, TWO)]) is None
    assert stuck_at([create(0, 1), write, describe(20, 22, ONE), describe(30, 32, TWO)]) is None
    stale = describe(30, 32, ONE)
    assert stuck_at([create(0, 1), write, describe(20, 22, TWO), stale]) == stale


def test_an_unanswered_write_may_land_late_or_never_but_not_twice_and_not_before_it_began() -> None:
    silent = unanswered(update(10, 11))
    assert stuck_at([create(0, 1), silent, describe(90, 91, ONE)]) is None
    assert stuck_at([create(0, 1), silent, describe(90, 91, ONE), describe(92, 93, TWO)]) is None
    assert stuck_at([create(0, 1), silent, describe(90, 91, TWO), describe(92, 93, ONE)]) is not None
    assert stuck_at([create(0, 1), silent, describe(90, 91, Seen("u", 3, 2))]) is not None
    assert stuck_at([create(0, 1), describe(5, 6, TWO), silent]) is not None


def test_an_unanswered_creation_has_one_uid_whoever_sees_it_first() -> None:
    silent = unanswered(create(0, 1))
    assert stuck_at([silent, describe(5, 6, ONE), describe(7, 8, ONE)]) is None
    assert stuck_at([silent, describe(5, 6, ONE), describe(7, 8, ONE._replace(uid="v"))]) is not None


def test_two_things_are_one_history() -> None:
    """Each thing's answers alone could be put in order; together they cannot."""
    route = Call("r", CREATE, "r0", 10, 12, wrote=(5, "n0"), seen=Seen("w", 1, 5, "n0"))
    gone = Call("d", DELETE, "n0", 20, 22, seen=ONE)
    assert stuck_at([create(0, 1), route]) is None
    assert stuck_at([create(0, 1), gone]) is None
    assert stuck_at([create(0, 1), route, gone]) == gone


# --- as checks


def test_a_history_that_proves_nothing_is_red() -> None:
    calls = drawn(1, 40, spread=20)
    assert linearizable(calls, at_least=40).ok
    assert not linearizable(calls, at_least=41).ok
    assert not linearizable(drawn(1, 40, spread=0), at_least=40).ok  # one caller at a time
    assert not linearizable([], at_least=0).ok
    assert not linearizable(calls, at_least=1, steps_max=10).ok  # given up is not proven
    assert not positions_follow_time(calls).ok  # none of them has a position


def test_a_red_verdict_names_the_call() -> None:
    calls = drawn(3, 40, spread=15)
    late = max(call.ended or 0 for call in calls) + 1
    lie = Call("liar", DESCRIBE, "n1", late, late + 1, seen=Seen("nobody's", 9, 9), position=(1, 77))
    check = linearizable([*calls, lie], at_least=10)
    assert not check.ok
    assert "liar: describe n1" in check.detail
    assert "1.77" in check.detail


def numbered(seed: int) -> list[Call]:
    """A drawn history whose answers have the positions that a log would have given them."""
    position, calls = 0, []
    for call in drawn(seed, 60, spread=20):
        position += call.verb in (CREATE, UPDATE, DELETE) and not call.code
        calls.append(replace(call, position=(1, position)))
    return calls


@pytest.mark.parametrize("seed", range(5))
def test_positions_that_follow_time_are_green_and_one_that_goes_back_is_red(seed: int) -> None:
    calls = numbered(seed)
    assert positions_follow_time(calls).ok
    draw = random.Random(seed)  # noqa: S311 - reproducible
    index = draw.randrange(40, 60)
    began = calls[index].began
    before = max(call.position or (0, 0) for call in calls if (call.ended or 0) < began)
    calls[index] = replace(calls[index], position=(1, before[1] - 1))
    assert not positions_follow_time(calls).ok


def test_two_writes_one_after_the_other_do_not_share_a_position() -> None:
    one, two = replace(create(0, 1), position=(1, 5)), replace(update(2, 3), position=(1, 5))
    assert not positions_follow_time([one, two]).ok
    assert positions_follow_time([one, replace(two, position=(2, 1))]).ok  # a later epoch is later
