"""Token buckets: a burst, a rate, a bound on names."""

from __future__ import annotations

from runtime.rates import Rates


def test_a_name_has_its_burst_and_then_its_rate() -> None:
    rates = Rates(2.0, 3, 10)
    assert [rates.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert rates.wait_s("a", 0.0) == 0.5
    assert [rates.take("a", 1.0) for _ in range(3)] == [True, True, False]
    assert rates.take("b", 1.0)
    assert rates.wait_s("b", 1.0) == rates.wait_s("c", 1.0) == 0
    assert [rates.take("a", 100.0) for _ in range(4)] == [True, True, True, False], "it never saves more than a burst"


def test_only_the_names_heard_of_last_are_remembered() -> None:
    rates = Rates(1.0, 1, 100)
    assert rates.take("first", 0.0)
    for number in range(99):
        rates.take(str(number), 0.0)
    assert not rates.take("first", 0.0)
    for number in range(300):
        rates.take(str(number), 0.0)
    assert len(rates) == 100
    assert rates.take("first", 0.0), "forgotten, and so new"
