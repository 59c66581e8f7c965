"""What listeners hear, whatever projectors do: whole, never back, nothing because of a reconnect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.feed.following import View
from projector.feed.port import NodeUpdate
from projector.feed.watches import Watches
from projector.snapshot import NodeSnapshot, Reach
from tests.projector.feed.worlds import CART, EDGE, STOCK, at, bodies, snapshot


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.updates: list[NodeUpdate] = []

    def __call__(self, update: NodeUpdate) -> None:
        self.updates.append(update)

    @property
    def heard(self) -> list[tuple[int, dict[str, str] | None]]:
        return [(each.position.position, bodies(each.snapshot) if each.snapshot else None) for each in self.updates]


def view(position: int, *names: str, text: str = "") -> View:
    return View(at(position), snapshot(CART, position, *names, text=text))


@pytest.fixture
def watches() -> Watches:
    return Watches()


@pytest.fixture
def ear() -> Ear:
    return Ear()


def test_only_news_is_told(watches: Watches, ear: Ear) -> None:
    watches.open(CART, ear)
    assert watches.offer(CART, view(3, "x"), Reach(at(3)))
    assert watches.offer(CART, view(4, "x"), Reach(at(4)))
    assert watches.offer(CART, view(5, "x", text="new"), Reach(at(5)))
    assert ear.heard == [(3, {"x": "x="}), (5, {"x": "x=new"})]


def test_what_is_older_is_held_back_until_it_is_known_to_hold_later(watches: Watches, ear: Ear) -> None:
    watches.open(CART, ear)
    watches.offer(CART, view(8, "x", text="8"), Reach(at(8)))
    assert not watches.offer(CART, view(5, "x", text="5"), Reach(at(5)))
    assert not watches.offer(CART, View(at(5), None), Reach(at(7)))
    assert ear.heard == [(8, {"x": "x=8"})]
    assert watches.offer(CART, View(at(5), None), Reach(at(9))), "the view of 5 still held at 9"
    assert ear.heard[-1] == (9, None)


def test_a_second_listener_is_told_at_once_and_alone(watches: Watches, ear: Ear) -> None:
    _, first = watches.open(CART, ear)
    watches.offer(CART, view(3, "x"), Reach(at(3)))
    second = Ear()
    _, again = watches.open(CART, second)
    assert (first, again) == (True, False)
    assert second.heard == ear.heard == [(3, {"x": "x="})]


def test_the_last_listener_to_go_ends_the_watch_and_the_mark_stays(watches: Watches, ear: Ear) -> None:
    key, _ = watches.open(CART, ear)
    other, _ = watches.open(CART, Ear())
    watches.offer(CART, view(8, "x"), Reach(at(8)))
    assert not watches.close(CART, other)
    assert not watches.close(CART, other)
    assert watches.close(CART, key)
    assert not watches.close(CART, key)
    assert watches.nodes == frozenset()
    watches.open(CART, ear)
    assert not watches.offer(CART, view(7, "x"), Reach(at(7)))
    assert watches.offer(CART, view(8, "x"), Reach(at(8)))


def test_marks_are_bounded() -> None:
    watches = Watches(remembered_max=2)
    for node in (CART, EDGE, STOCK):
        key, _ = watches.open(node, Ear())
        watches.offer(node, view(8, "x"), Reach(at(8)))
        watches.close(node, key)
    assert [watches.accepts(node, Reach(at(1))) for node in (CART, EDGE, STOCK)] == [True, False, False]


def test_a_listener_that_fails_does_not_cost_the_others_their_news(watches: Watches, ear: Ear) -> None:
    def broken(_: NodeUpdate) -> None:
        raise RuntimeError("a broken stream")

    watches.open(CART, broken)
    watches.open(CART, ear)
    watches.offer(CART, view(3, "x"), Reach(at(3)))
    assert ear.heard == [(3, {"x": "x="})]


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["", "a", "b", "gone"])), max_size=30))
def test_positions_never_go_back_and_content_follows(offers: list[tuple[int, str]]) -> None:
    watches, ear = Watches(), Ear()
    watches.open(CART, ear)
    taken: NodeSnapshot | None = None
    for position, text in offers:
        offered = None if text == "gone" else snapshot(CART, position, "x", text=text)
        if watches.offer(CART, View(at(position), offered), Reach(at(position))):
            taken = offered
    positions = [position for position, _ in ear.heard]
    assert positions == sorted(positions)
    if ear.updates:
        last = ear.updates[-1].snapshot
        assert (bodies(last) if last else None) == (bodies(taken) if taken else None)
