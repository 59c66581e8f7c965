"""Sharing confirms: nobody is answered by a question older than his own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.feed.confirms import Confirms
from runtime.limits import FEED_CONFIRM_HEDGE_S, FEED_CONFIRM_RETRY_S, FEED_CONFIRMS_MAX


@pytest.fixture
def confirms() -> Confirms:
    return Confirms()


def sent(confirms: Confirms, now_s: float) -> int:
    due = confirms.due(now_s)
    assert due is not None
    return due[0]


def test_callers_who_wait_together_share_one_question(confirms: Confirms) -> None:
    callers = [confirms.call(5.0), confirms.call(3.0)]
    due = confirms.due(1.0)
    assert due is not None
    number, timeout_s = due
    assert timeout_s == 4.0, "as long as the most patient of them"
    assert confirms.due(1.0) is None
    assert confirms.answered(number, True, 1.1) == callers


def test_who_asks_later_is_not_answered_by_an_earlier_question(confirms: Confirms) -> None:
    first = confirms.call(5.0)
    number = sent(confirms, 0.0)
    second = confirms.call(5.0)
    assert confirms.due(0.1) is None
    assert confirms.answered(number, True, 0.2) == [first]
    assert confirms.answered(sent(confirms, 0.2), True, 0.3) == [second]


def test_a_slow_question_does_not_hold_up_the_next_and_is_answered_by_it(confirms: Confirms) -> None:
    first = confirms.call(9.0)
    slow = sent(confirms, 0.0)
    second = confirms.call(9.0)
    number = sent(confirms, FEED_CONFIRM_HEDGE_S)
    assert confirms.answered(number, True, 1.0) == [first, second]
    assert confirms.answered(slow, True, 2.0) == []


def test_a_refusal_is_asked_again_after_a_moment(confirms: Confirms) -> None:
    caller = confirms.call(9.0)
    assert confirms.answered(sent(confirms, 0.0), False, 1.0) == []
    assert confirms.due(1.0) is None
    number = sent(confirms, 1.0 + FEED_CONFIRM_RETRY_S)
    assert confirms.answered(number, True, 2.0) == [caller]


def test_a_new_stream_is_asked_at_once_and_the_old_one_is_not_heard(confirms: Confirms) -> None:
    caller = confirms.call(9.0)
    old = sent(confirms, 0.0)
    confirms.stream_changed()
    assert confirms.answered(old, True, 0.1) == []
    assert confirms.answered(sent(confirms, 0.1), True, 0.2) == [caller]


def test_who_has_gone_is_not_asked_for(confirms: Confirms) -> None:
    caller = confirms.call(9.0)
    confirms.gone(caller)
    assert confirms.due(0.0) is None
    caller = confirms.call(9.0)
    number = sent(confirms, 0.0)
    confirms.gone(caller)
    later = confirms.call(9.0)
    assert confirms.due(0.0) is not None, "nobody waits for the one under way"
    assert confirms.answered(number, False, 0.1) == []
    assert later


def test_questions_under_way_are_bounded(confirms: Confirms) -> None:
    now_s, asked = 0.0, 0
    for _ in range(100):
        confirms.call(1000.0)
        asked += confirms.due(now_s) is not None
        now_s += FEED_CONFIRM_HEDGE_S
    assert asked <= FEED_CONFIRMS_MAX


@given(st.lists(st.sampled_from(["call", "tick", "answer", "refuse", "change"]), max_size=60))
def test_every_caller_is_answered_by_a_question_sent_after_he_called(steps: list[str]) -> None:
    confirms, now_s = Confirms(), 0.0
    waiting: dict[int, float] = {}
    asked: dict[int, float] = {}

    def answer(ok: bool) -> None:
        if not asked:
            return
        number = min(asked)
        sent_at_s = asked.pop(number)
        for caller in confirms.answered(number, ok, now_s):
            assert waiting.pop(caller) <= sent_at_s
            confirms.gone(caller)

    for step in steps:
        now_s += 0.3
        match step:
            case "call":
                waiting[confirms.call(1e6)] = now_s
            case "answer" | "refuse":
                answer(step == "answer")
            case "change":
                confirms.stream_changed()
                asked.clear()
        due = confirms.due(now_s)
        if due is not None:
            asked[due[0]] = now_s
    for _ in range(100):
        now_s += 1.0
        due = confirms.due(now_s)
        if due is not None:
            asked[due[0]] = now_s
        answer(ok=True)
    assert not waiting
