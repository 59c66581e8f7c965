"""The fingerprint: whenever it is counted, it is the sum over what is there."""

from __future__ import annotations

import random

import hypothesis.strategies as st
from hypothesis import given

from mesh.fingerprint import Tally
from mesh.limits import UNCOUNTED_MAX

Change = tuple[int, int | None, bool]

changes = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9) | st.none(), st.booleans()), max_size=40)


def weight(key: int, value: int) -> int:
    return int(1_000_003**key) * value


def both(script: list[Change]) -> tuple[list[Tally], list[int]]:
    """The tallies of a script, some of them counted on the way, and what they must be."""
    things: dict[int, int] = {}
    tallies, sums = [Tally()], [0]
    for key, value, counted in script:
        tallies.append(tallies[-1].changed(weight, key, things.get(key), value))
        if value is None:
            things.pop(key, None)
        else:
            things[key] = value
        sums.append(sum(weight(*thing) for thing in things.items()))
        if counted:
            assert tallies[-1].total == sums[-1]
    return tallies, sums


@given(changes, st.randoms(use_true_random=False))
def test_a_tally_is_the_sum_of_what_is_there_in_whatever_order_tallies_are_asked(
    script: list[Change], order: random.Random
) -> None:
    tallies, sums = both(script)
    for at in order.sample(range(len(tallies)), len(tallies)):
        assert tallies[at].total == sums[at]


@given(changes)
def test_equal_sums_are_equal_tallies(script: list[Change]) -> None:
    tallies, sums = both(script)
    assert tallies[-1] == Tally(sums[-1])
    assert hash(tallies[-1]) == hash(Tally(sums[-1]))
    assert tallies[-1] != Tally(sums[-1] + 1)


def test_what_is_not_counted_is_bounded() -> None:
    hashed: list[int] = []

    def item(key: int, value: int) -> int:
        hashed.append(key)
        return value

    tally = Tally()
    for number in range(UNCOUNTED_MAX):
        tally = tally.changed(item, 1, number or None, number + 1)
    assert not hashed
    tally = tally.changed(item, 1, UNCOUNTED_MAX, 7)
    assert hashed == [1]
    assert tally.total == 7
