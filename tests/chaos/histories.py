"""Histories of calls for the checker of I2: what a correct mesh could have answered, and every lie about it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rpds import HashTrieMap

from chaos.linearizable import (
    CONFLICT,
    CREATE,
    DELETE,
    DESCRIBE,
    IN_USE,
    LIST,
    NOT_FOUND,
    UPDATE,
    Call,
    Mesh,
    Seen,
    step,
    unanswered,
)


class AtomicMesh:
    """A mesh that does one call after the other, written down apart from the checker's model."""

    def __init__(self) -> None:
        self.things: dict[str, Seen] = {}
        self._made = 0

    def do(self, call: Call) -> Call:
        """The call with its answer."""
        if call.verb == LIST:
            return replace(
                call, listed={name: seen.version for name, seen in self.things.items() if name[0] == call.name}
            )
        there = self.things.get(call.name)
        refused = ""
        if call.verb == CREATE:
            refused = CONFLICT if there else ""
        elif there is None:
            refused = NOT_FOUND
        if not refused and call.wrote and call.wrote[1] and call.wrote[1] not in self.things:
            refused = NOT_FOUND
        if not refused and call.verb == DELETE and call.name in {seen.refers for seen in self.things.values()}:
            refused = IN_USE
        if refused:
            return replace(call, code=refused)
        if call.verb == DELETE:
            return replace(call, seen=self.things.pop(call.name))
        if call.wrote:
            self._made += there is None
            uid, version = (there.uid, there.version + 1) if there else (f"uid-{self._made}", 1)
            self.things[call.name] = Seen(uid, version, *call.wrote)
        return replace(call, seen=self.things[call.name])


def drawn(seed: int, length: int, *, spread: int, silence: float = 0.0) -> list[Call]:
    """A history that an `AtomicMesh` gave.

    `spread`: how far begins and answers are from the moment of the effect, which is ten after that of the call before.
    `silence`: the share of calls without an answer.
    """
    draw = random.Random(seed)  # noqa: S311 - reproducible
    mesh, calls = AtomicMesh(), list[Call]()
    for number in range(length):
        moment = 10 * number
        verb = draw.choice((CREATE, CREATE, UPDATE, DELETE, DESCRIBE, LIST))
        kind = draw.choice("nr")
        name = kind if verb == LIST else f"{kind}{draw.randrange(2)}"
        wrote = (number, f"n{draw.randrange(2)}" if kind == "r" else None) if verb in (CREATE, UPDATE) else None
        began, ended = moment - draw.randint(0, spread), moment + 1 + draw.randint(0, spread)
        call = Call(f"c{number}", verb, name, began, ended, wrote=wrote)
        if verb not in (DESCRIBE, LIST) and draw.random() < silence:
            if draw.random() < 0.5:
                mesh.do(call)
            calls.append(unanswered(call))
        else:
            calls.append(mesh.do(call))
    return calls


def by_trying_all(calls: Sequence[Call]) -> bool:
    """Whether some order of the calls explains all answers: every one is tried. For a handful of calls."""
    return _some_order(HashTrieMap(), frozenset(range(len(calls))), calls)


def _some_order(mesh: Mesh, left: frozenset[int], calls: Sequence[Call]) -> bool:
    definite = [number for number in left if calls[number].definite]
    if not definite:
        return True
    until = min(calls[number].ended or 0 for number in definite)
    for number in left:
        if calls[number].began <= until:
            after = step(mesh, calls[number])
            if after is not None and _some_order(after, left - {number}, calls):
                return True
    return False


def lies(calls: Sequence[Call]) -> Iterator[tuple[str, list[Call]]]:
    """The history with one answer changed, each in one way: what a server that breaks I2 would have said."""
    for index, call in enumerate(calls):
        for what, told in _lies(call, calls[:index]):
            yield f"{what} at {index}: {call}", [*calls[:index], told, *calls[index + 1 :]]


def _lies(call: Call, earlier: Sequence[Call]) -> Iterator[tuple[str, Call]]:
    if call.seen is not None:
        yield "an older version", replace(call, seen=call.seen._replace(version=call.seen.version - 1))
        yield "a version too many", replace(call, seen=call.seen._replace(version=call.seen.version + 1))
        yield "what nobody wrote", replace(call, seen=call.seen._replace(mark=-1))
        if call.verb != CREATE:  # there, it is as good as any
            yield "another thing's uid", replace(call, seen=call.seen._replace(uid="another"))
        yield "not found, though it is there", replace(call, seen=None, code=NOT_FOUND)
    if call.seen is not None and call.verb == DESCRIBE:
        stale = [before.seen for before in earlier if before.seen and before.name == call.name]
        for seen in itertools.islice((seen for seen in stale if seen != call.seen), 1):
            yield "a stale read", replace(call, seen=seen)
    if call.verb == CREATE and call.seen is not None:
        yield "refused from a state that never was", replace(call, seen=None, code=CONFLICT)
    if call.code:
        assert call.verb != LIST
        made = Seen("invented", 1, *(call.wrote or (0, None)))
        yield "done, though it cannot be", replace(call, code="", seen=made)
    if call.verb == LIST:
        yield "one more than there is", replace(call, listed={**(call.listed or {}), f"{call.name}9": 1})
        if call.listed:
            first = next(iter(call.listed))
            yield "one less than there is", replace(call, listed={n: v for n, v in call.listed.items() if n != first})
            yield "an older list", replace(call, listed={**call.listed, first: call.listed[first] + 1})
