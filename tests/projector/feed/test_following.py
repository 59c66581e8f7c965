"""The frontend's end of a stream: frames in, views out."""

from __future__ import annotations

import pytest

from identity.node_id import NodeId
from mesh.errors import BadRequest
from projector.feed.following import Answered, Covered, FrontendSession, Greeted, ResourcePool, View, Viewed
from projector.feed.wire import (
    Confirmed,
    Heartbeat,
    ProjectorFrame,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    Unsubscribe,
)
from projector.snapshot import TYPE_CLUSTER, Reach, XdsResource
from tests.projector.feed.worlds import CART, EDGE, at, bodies, snapshot

HELLO = ProjectorHello(1, "projector-a", "a", (("a", "127.0.0.1:1"),))


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool()


@pytest.fixture
def session(pool: ResourcePool) -> FrontendSession:
    made = FrontendSession(pool)
    made.received(HELLO)
    return made


def whole(node: NodeId, subscription: int, position: int, *names: str, text: str = "") -> SnapshotFrame:
    resources = tuple(snapshot(node, position, *names, text=text).resources.values())
    return SnapshotFrame(node, subscription, at(position), True, True, resources)


def changes(
    node: NodeId, subscription: int, position: int, *names: str, text: str = "", gone: tuple[str, ...] = ()
) -> SnapshotFrame:
    resources = tuple(snapshot(node, position, *names, text=text).resources.values())
    removals = tuple((TYPE_CLUSTER, name) for name in gone)
    return SnapshotFrame(node, subscription, at(position), True, False, resources, removals)


def test_a_view_is_patched_frame_by_frame(session: FrontendSession) -> None:
    assert session.subscribe(CART) == Subscribe(CART, 1)
    assert session.subscribe(CART) is None
    assert session.received(whole(CART, 1, 3, "x", "y")) == [Viewed(CART)]
    assert session.received(changes(CART, 1, 4, "y", "z", text="new", gone=("x",))) == [Viewed(CART)]
    view = session.views[CART]
    assert view.position == at(4)
    assert bodies(view.snapshot) == {"y": "y=new", "z": "z=new"}


def test_a_whole_frame_replaces_all(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.received(whole(CART, 1, 3, "x", "y"))
    session.received(whole(CART, 1, 4, "z"))
    assert bodies(session.views[CART].snapshot) == {"z": "z="}


def test_no_such_node_is_a_view_too(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.received(whole(CART, 1, 3, "x"))
    assert session.received(SnapshotFrame(CART, 1, at(5), False, True)) == [Viewed(CART)]
    assert session.views[CART] == View(at(5), None)


def test_frames_of_an_ended_subscription_are_passed_over(session: FrontendSession) -> None:
    session.subscribe(CART)
    assert session.unsubscribe(CART) == Unsubscribe(CART)
    assert session.unsubscribe(CART) is None
    assert session.subscribe(CART) == Subscribe(CART, 2)
    assert session.received(whole(CART, 1, 3, "old")) == []
    session.received(Heartbeat(at(9), 0))
    assert CART not in session.views
    session.received(whole(CART, 2, 9, "new"))
    assert bodies(session.views[CART].snapshot) == {"new": "new="}


def test_a_view_holds_as_of_the_last_position_that_covered_it(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.subscribe(EDGE)
    session.received(whole(CART, 1, 3, "x"))
    assert session.as_of(CART) == Reach(at(3))
    session.received(whole(EDGE, 2, 8, "x"))
    assert session.as_of(CART) == Reach(at(3)), "another node's frame says nothing about this one"
    assert session.received(Heartbeat(at(9), 125)) == [Covered(at(9), 0.125)]
    assert session.as_of(CART) == Reach(at(9))
    assert session.received(Confirmed(4, at(11), True)) == [Covered(at(11), None), Answered(4, at(11), True)]
    assert session.as_of(CART) == Reach(at(11))


def test_a_refusal_covers_nothing(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.received(whole(CART, 1, 3, "x"))
    assert session.received(Confirmed(4, at(11), False)) == [Answered(4, at(11), False)]
    assert session.as_of(CART) == Reach(at(3))


@pytest.mark.parametrize(
    "frame", [Heartbeat(at(1), 0), Confirmed(1, at(1), True), SnapshotFrame(CART, 1, at(1), True, True)]
)
def test_nothing_is_believed_before_the_hello(pool: ResourcePool, frame: ProjectorFrame) -> None:
    fresh = FrontendSession(pool)
    fresh.subscribe(CART)
    with pytest.raises(BadRequest, match="hello"):
        fresh.received(frame)
    assert fresh.received(HELLO) == [Greeted(HELLO)]


def test_changes_without_a_whole_frame_before_break_the_protocol(session: FrontendSession) -> None:
    session.subscribe(CART)
    with pytest.raises(BadRequest, match="nothing was sent"):
        session.received(changes(CART, 1, 3, "x"))
    session.received(SnapshotFrame(CART, 1, at(3), False, True))
    with pytest.raises(BadRequest, match="nothing was sent"):
        session.received(changes(CART, 1, 4, "x"))


def test_a_stream_that_goes_back_breaks_the_protocol(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.received(whole(CART, 1, 3, "x"))
    with pytest.raises(BadRequest, match="went back"):
        session.received(whole(CART, 1, 2, "x"))


def test_equal_resources_are_one_object_and_go_when_nobody_has_them(pool: ResourcePool) -> None:
    one, two = FrontendSession(pool), FrontendSession(pool)
    for session in (one, two):
        session.received(HELLO)
        session.subscribe(CART)
        session.subscribe(EDGE)
        session.received(whole(CART, 1, 3, "x", "y"))
        session.received(whole(EDGE, 2, 3, "x"))
    held = [session.views[node].snapshot for session in (one, two) for node in (CART, EDGE)]
    assert len({id(shot.of_type(TYPE_CLUSTER)["x"]) for shot in held if shot is not None}) == 1
    assert len(pool) == 2
    one.close()
    assert len(pool) == 2
    two.received(changes(CART, 1, 4, gone=("y",)))
    assert len(pool) == 1
    two.unsubscribe(CART)
    two.unsubscribe(EDGE)
    assert len(pool) == 0


def test_one_version_with_two_contents_is_refused(session: FrontendSession) -> None:
    session.subscribe(CART)
    session.subscribe(EDGE)
    for node, subscription, body in ((CART, 1, b"good"), (EDGE, 2, b"evil")):
        frame = SnapshotFrame(node, subscription, at(1), True, True, (XdsResource(TYPE_CLUSTER, "x", "same", body),))
        if node is CART:
            session.received(frame)
        else:
            with pytest.raises(BadRequest, match="two contents"):
                session.received(frame)
