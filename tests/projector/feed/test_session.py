"""The projector's end of a stream, as transcripts: what the frontend says and what is pulled from the session."""

from __future__ import annotations

import pytest

from mesh.errors import BadRequest, LimitExceeded
from projector.feed.session import AskHead, Follow, Forget, ProjectorSession, Register, SessionAction
from projector.feed.wire import (
    Confirm,
    Confirmed,
    FrontendFrame,
    FrontendHello,
    Heartbeat,
    ProjectorFrame,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    Unsubscribe,
)
from runtime.limits import FEED_ALARMS_MAX, FEED_CONFIRMS_MAX
from tests.projector.feed.worlds import CART, EDGE, STOCK, ToldSource, World, at, snapshot

HELLO = FrontendHello(1, "frontend-a", "a", "127.0.0.1:7412")


class Playbook:
    """A session over a source, with the shell's part played by hand."""

    def __init__(self) -> None:
        self.world = World()
        self.source = ToldSource(self.world)
        self.session = ProjectorSession("projector-a", "a", (("a", "127.0.0.1:7413"),))

    def says(self, *frames: FrontendFrame) -> list[SessionAction]:
        actions: list[SessionAction] = []
        for frame in frames:
            for action in self.session.received(frame):
                if isinstance(action, Follow):
                    self.source.subscribe(action.node, self.session.changed)
                actions.append(action)
        return actions

    def hears(self) -> list[ProjectorFrame]:
        frames = []
        while (frame := self.session.next_frame(self.source)) is not None:
            frames.append(frame)
        return frames


@pytest.fixture
def play() -> Playbook:
    book = Playbook()
    book.world.change(CART, "x", "y", text="1")
    book.source.fold()
    return book


def test_a_hello_is_answered_with_who_is_there_and_how_fresh_it_is(play: Playbook) -> None:
    assert play.hears() == []
    assert play.says(HELLO) == [Register(HELLO)]
    play.source.confirmed_age_s = 0.25
    assert play.hears() == [
        ProjectorHello(1, "projector-a", "a", (("a", "127.0.0.1:7413"),)),
        Heartbeat(at(1), 250),
    ]


def test_a_probe_is_not_registered_until_it_comes_to_stay(play: Playbook) -> None:
    assert play.says(FrontendHello(1, HELLO.id, "a", "", probe=True)) == []
    assert len(play.hears()) == 2
    assert play.says(HELLO) == [Register(HELLO)]
    assert play.hears() == []


def test_a_stream_stays_one_frontends(play: Playbook) -> None:
    play.says(HELLO)
    with pytest.raises(BadRequest, match="one frontend"):
        play.says(FrontendHello(1, "frontend-b", "a", ""))


def test_nothing_goes_before_the_hello(play: Playbook) -> None:
    with pytest.raises(BadRequest, match="hello"):
        play.says(Subscribe(CART, 1))


def test_a_new_node_is_sent_whole_then_by_changes(play: Playbook) -> None:
    play.says(HELLO)
    play.hears()
    assert play.says(Subscribe(CART, 7)) == [Follow(CART)]
    whole = snapshot(CART, 1, "x", "y", text="1").resources.values()
    assert play.hears() == [SnapshotFrame(CART, 7, at(1), True, True, tuple(whole))]
    play.world.change(CART, "y", "z", text="1")
    play.source.fold()
    added = snapshot(CART, 2, "z", text="1").resources.values()
    gone = (next(iter(snapshot(CART, 1, "x").resources)),)
    assert play.hears() == [SnapshotFrame(CART, 7, at(2), True, False, tuple(added), gone)]


def test_a_node_that_is_not_there_is_said_to_be_unknown_once_and_whole_when_it_comes(play: Playbook) -> None:
    play.says(HELLO, Subscribe(EDGE, 1))
    assert play.hears()[1] == SnapshotFrame(EDGE, 1, at(1), known=False, full=True)
    play.session.changed(EDGE)
    assert play.hears() == []
    play.world.change(EDGE, "x")
    play.source.fold()
    (frame,) = play.hears()
    assert isinstance(frame, SnapshotFrame)
    assert (frame.known, frame.full) == (True, True)


def test_a_slow_frontend_gets_the_newest_once(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1))
    play.hears()
    for number in range(100):
        play.world.change(CART, "x", text=str(number))
        play.source.fold()
    (frame,) = play.hears()
    assert isinstance(frame, SnapshotFrame)
    assert [resource.body for resource in frame.upserts] == [b"x=99"]
    assert frame.position == at(101)


def test_equal_content_is_not_sent_again(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1))
    play.hears()
    play.world.change(CART, "x", "y", text="1")
    play.source.fold()
    assert play.hears() == []


def test_a_confirm_follows_all_that_was_dirty_when_the_head_was_confirmed(play: Playbook) -> None:
    play.says(HELLO)
    play.hears()
    assert play.says(Subscribe(CART, 1), Subscribe(EDGE, 2), Confirm(5, 1500)) == [
        Follow(CART),
        Follow(EDGE),
        AskHead(5, 1.5),
    ]
    play.session.head_answer(5, at(1), play.source.position)
    kinds = [type(frame) for frame in play.hears()]
    assert kinds == [SnapshotFrame, SnapshotFrame, Confirmed]


def test_a_confirm_does_not_wait_for_what_gets_dirty_later(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1), Subscribe(EDGE, 2), Confirm(5, 1500))
    play.hears()
    play.world.change(CART, "x", text="2")
    play.source.fold()
    play.session.head_answer(5, at(2), play.source.position)
    play.world.change(EDGE, "x", text="3")
    play.source.fold()
    first, second, third = play.hears()
    assert isinstance(first, SnapshotFrame)
    assert first.node == CART
    assert second == Confirmed(5, at(2), ok=True)
    assert isinstance(third, SnapshotFrame)
    assert third.node == EDGE


def test_a_node_that_changes_again_before_it_is_sent_still_holds_up_the_confirm(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1), Confirm(5, 1500))
    play.hears()
    play.world.change(CART, "x", text="2")
    play.source.fold()
    play.session.head_answer(5, at(2), play.source.position)
    play.world.change(CART, "x", text="3")
    play.source.fold()
    first, second = play.hears()
    assert isinstance(first, SnapshotFrame)
    assert first.position == at(3)
    assert second == Confirmed(5, at(2), ok=True)


def test_a_node_that_keeps_changing_starves_neither_confirms_nor_heartbeats(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1), Confirm(5, 1500))
    play.hears()
    play.session.head_answer(5, at(1), play.source.position)
    play.session.beat(play.source.position)
    heard: list[ProjectorFrame | None] = []
    for number in range(4):
        play.world.change(CART, "x", text=f"again {number}")
        play.source.fold()
        heard.append(play.session.next_frame(play.source))
    assert Confirmed(5, at(1), ok=True) in heard
    assert any(isinstance(frame, Heartbeat) for frame in heard)


def test_a_refused_confirm_waits_for_nothing(play: Playbook) -> None:
    play.says(HELLO)
    play.hears()
    play.says(Subscribe(CART, 1), Confirm(5, 1500))
    play.session.head_answer(5, None, play.source.position)
    assert play.hears()[0] == Confirmed(5, at(1), ok=False)


def test_confirms_are_bounded(play: Playbook) -> None:
    play.says(HELLO, *(Confirm(number, 10) for number in range(FEED_CONFIRMS_MAX)))
    with pytest.raises(LimitExceeded):
        play.says(Confirm(FEED_CONFIRMS_MAX, 10))
    play.session.head_answer(0, at(1), at(1))
    assert play.says(Confirm(FEED_CONFIRMS_MAX, 10_000_000)) == [AskHead(FEED_CONFIRMS_MAX, 30.0)]


def test_a_node_that_cannot_be_compiled_is_passed_over_and_the_others_are_confirmed(play: Playbook) -> None:
    play.source.broken.add(EDGE)
    play.says(HELLO, Subscribe(EDGE, 1), Subscribe(CART, 2), Confirm(3, 1000))
    play.session.head_answer(3, at(1), at(1))
    heard = play.hears()
    assert [frame.node for frame in heard if isinstance(frame, SnapshotFrame)] == [CART]
    assert Confirmed(3, at(1), ok=True) in heard
    play.source.broken.clear()
    play.session.changed(EDGE)
    assert [frame.node for frame in play.hears() if isinstance(frame, SnapshotFrame)] == [EDGE]


def test_an_unsubscribed_node_is_forgotten(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1), Subscribe(STOCK, 2))
    assert play.says(Unsubscribe(CART)) == [Forget(CART)]
    assert play.says(Unsubscribe(CART)) == []
    heard = [frame for frame in play.hears() if isinstance(frame, SnapshotFrame)]
    assert [frame.node for frame in heard] == [STOCK]
    assert play.session.nodes == {STOCK}


def test_a_renewed_subscription_is_answered_whole_under_its_new_number(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1))
    play.hears()
    play.says(Unsubscribe(CART), Subscribe(CART, 2))
    (frame,) = play.hears()
    assert isinstance(frame, SnapshotFrame)
    assert (frame.subscription, frame.full) == (2, True)


def test_heartbeats_do_not_pile_up(play: Playbook) -> None:
    play.says(HELLO)
    play.hears()
    for _ in range(50):
        play.session.beat(play.source.position)
    assert play.hears() == [Heartbeat(at(1), 0)]


def test_a_changed_list_of_projectors_is_said_again(play: Playbook) -> None:
    play.says(HELLO)
    play.hears()
    play.session.projectors_known((("a", "127.0.0.1:7413"),))
    assert play.hears() == []
    play.session.projectors_known((("b", "127.0.0.1:9"),))
    assert play.hears() == [ProjectorHello(1, "projector-a", "a", (("b", "127.0.0.1:9"),))]


def test_alarms_are_bounded_and_a_change_of_alarms_is_news(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1))
    play.hears()
    alarms = tuple(f"alarm {number}" for number in range(FEED_ALARMS_MAX + 10))
    play.world.history.append((CART, snapshot(CART, 2, "x", "y", text="1", alarms=alarms)))
    play.source.fold()
    (frame,) = play.hears()
    assert isinstance(frame, SnapshotFrame)
    assert len(frame.alarms) == FEED_ALARMS_MAX
    assert frame.alarms[-1] == "and 11 more alarms"
    assert not frame.upserts


def test_a_frame_that_could_not_be_written_is_not_what_the_next_one_builds_on(play: Playbook) -> None:
    play.says(HELLO, Subscribe(CART, 1))
    play.hears()
    play.world.change(CART, "x", "y", "z", text="2")
    play.source.fold()
    (lost,) = [frame for frame in play.hears() if isinstance(frame, SnapshotFrame)]
    play.session.not_sent(lost.node)
    play.world.change(CART, "x", "y", text="2")
    play.source.fold()
    (frame,) = [frame for frame in play.hears() if isinstance(frame, SnapshotFrame)]
    assert {resource.name for resource in frame.upserts} == {"x", "y"}
    assert frame.removals == (), "z was never there"
