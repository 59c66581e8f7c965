"""What was planned before and still holds: the memo of the compiler. It makes nothing different, only faster.

A part is what one drafting function made of its arguments and of what it read through its view, of which it can read
nothing else: `draft(view, *arguments)`, pure, with names and numbers for arguments. So it stands as long as what it
read does, and every node that asks for it shares it. What it read is looked at again once for a state, however many
ask. A part that is drafted anew and comes out as it was stays the part that it was, and whatever is made of it stands
too. A part lives as long as somebody holds it: a node its own, and each part those that it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from operator import is_
from typing import Any
from weakref import WeakValueDictionary

from projector.envoy.view import Dependency, Lens, Sources, View

Address = tuple[Callable[..., Any], str, str, *tuple[Hashable, ...]]
"""Which part: the drafting function, the mesh's account and name, the arguments."""


class Seen:
    """One thing that is looked at, by whatever parts: what was found there when it was last looked at.

    As long as the source's very same objects are found, `found` is the same too: equal ones would have to be compared
    whole.
    """

    __slots__ = ("__weakref__", "found", "key", "lens", "turn")

    def __init__(self, lens: Lens, key: Dependency, found: tuple[object, ...]) -> None:
        self.lens, self.key, self.found = lens, key, found
        self.turn = 0

    def look(self, sources: Sources, turn: int) -> None:
        """Look, if that was not done in this turn."""
        if self.turn != turn:
            now = self.lens(sources, self.key)
            if len(now) != len(self.found) or not all(map(is_, now, self.found)):
                self.found = now
            self.turn = turn


class Part:
    """`reads` and `parts` are what it itself looked at; `keys` and `alarms` are those of the parts in it too."""

    __slots__ = ("__weakref__", "alarms", "keys", "parts", "reads", "turn", "value")

    def __init__(self, value: Any, view: View, seen: Iterable[Seen], parts: dict[Address, Part]) -> None:
        self.value = value
        self.reads = tuple((each, each.found) for each in seen)
        self.parts = parts
        self.keys: frozenset[Dependency] = frozenset(each.key for each, _ in self.reads).union(
            *(part.keys for part in parts.values())
        )
        self.alarms: frozenset[str] = frozenset(view.alarms).union(*(part.alarms for part in parts.values()))
        self.turn = 0
        """When it was last found to stand."""

    def is_as(self, other: Part) -> bool:
        """Whether nobody can tell the two apart, who asks for what they are and whom a change concerns."""
        return self.keys == other.keys and self.alarms == other.alarms and bool(self.value == other.value)


def look(address: Address, sources: Sources, part: Callable[..., Any]) -> View:
    """A part's view of its mesh."""
    _, account, mesh, *_ = address
    return View(sources, account, mesh, part)


Look = Callable[[Address, Sources, Callable[..., Any]], View]
"""What makes the view that the part at an address is drafted through."""


class Parts:
    """The parts that somebody holds. Not for several threads."""

    def __init__(self, sources: Sources, look: Look = look) -> None:
        self.sources = sources
        self._look = look
        self._turn = 1
        self._known: WeakValueDictionary[Address, Part] = WeakValueDictionary()
        self._seen: WeakValueDictionary[tuple[Lens, Dependency], Seen] = WeakValueDictionary()

    def move(self, sources: Sources) -> None:
        """From now on parts are asked for as of these sources."""
        if not all(map(is_, sources, self.sources)):
            self.sources = sources
            self._turn += 1

    def get(self, address: Address) -> Part:
        """The part as of the sources: the same object as before exactly if it is the same as before."""
        known = self._known.get(address)
        asked: list[Part] = []
        """Holds what was drafted to see whether `known` stands: if it does not, that is asked for again."""
        if known is not None and (known.turn == self._turn or self._stands(known, asked)):
            known.turn = self._turn
            return known
        made = self._draft(address)
        if known is not None and known.is_as(made):
            known.reads, known.parts, made = made.reads, made.parts, known
        made.turn = self._turn
        self._known[address] = made
        return made

    def _stands(self, part: Part, asked: list[Part]) -> bool:
        # What it read itself first: as long as that stands, it would ask for the same parts in the same order.
        sources, turn = self.sources, self._turn
        for seen, found in part.reads:
            seen.look(sources, turn)
            if seen.found is not found:
                return False
        for address, before in part.parts.items():
            if before.turn != turn:
                asked.append(self.get(address))
                if asked[-1] is not before:
                    return False
        return True

    def _draft(self, address: Address) -> Part:
        draft, account, mesh, *arguments = address
        asked: dict[Address, Part] = {}

        def part(draft: Callable[..., Any], *arguments: Hashable) -> Any:
            wanted: Address = (draft, account, mesh, *arguments)
            made = asked[wanted] = self.get(wanted)
            return made.value

        view = self._look(address, self.sources, part)
        value = draft(view, *arguments)
        return Part(value, view, [self._see(*each, found) for each, found in view.reads.items()], asked)

    def _see(self, lens: Lens, key: Dependency, found: tuple[object, ...]) -> Seen:
        seen = self._seen.get((lens, key))
        if seen is None:
            seen = self._seen[lens, key] = Seen(lens, key, found)
        seen.look(self.sources, self._turn)
        return seen
