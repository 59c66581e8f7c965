"""I2 as a verdict: is there one order of all calls, in keeping with real time, in which one mesh gives these answers?

Stage: pure; from a history of calls (who began when, was told what, or nothing) to a `Check`. The search is Wing and
Gong's, with Lowe's memory of what was tried: an order is built call by call, and each step must be what a plain model
of a mesh would answer. A call without an answer may take effect at any time after it began, or never. The answers'
positions are not believed here: `positions_follow_time` holds them to real time separately.

It must never be green for lack of evidence, nor because it gave up: a history that is too hard to decide is red.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from rpds import HashTrieMap

from chaos.checks import Check

CREATE, UPDATE, DELETE, DESCRIBE, LIST = "create", "update", "delete", "describe", "list"
READS = (DESCRIBE, LIST)
CONFLICT, NOT_FOUND, IN_USE = "ConflictException", "NotFoundException", "ResourceInUseException"
STEPS_MAX = 300_000
"""Steps of the search before it counts as undecided: histories of correct servers take about one a call."""


class Seen(NamedTuple):
    """What an answer tells of a thing. `uid` None: not known. `mark`: what its writer wrote. `refers`: to what."""

    uid: str | None
    version: int
    mark: int
    refers: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call, however often it was sent under its token. Times are monotonic, in ns.

    `ended` None: no answer that decides what became of it. `code`: of a refusal, '' for a success. `seen` is what a
    write or a describe answered (of an unanswered write None); `listed` what a list did, version by name, of the names
    that begin with `name`. `wrote`: mark and reference that a create or update carries. `position`: what the answer
    named; of a call without an answer, where the log seems to have it, which says only where to look first.
    """

    caller: str
    verb: str
    name: str
    began: int
    ended: int | None
    code: str = ""
    wrote: tuple[int, str | None] | None = None
    seen: Seen | None = None
    listed: Mapping[str, int] | None = field(default=None, hash=False)
    position: tuple[int, int] | None = None

    @property
    def definite(self) -> bool:
        return self.ended is not None


Mesh: TypeAlias = "HashTrieMap[str, Seen]"


def step(mesh: Mesh, call: Call) -> Mesh | None:
    """The mesh after `call` took effect in it with the answer that it had; None where it could not have had that."""
    living = mesh.get(call.name)
    if call.code:
        return mesh if call.code == _refusal(mesh, call, living) else None
    if call.verb == LIST:
        listed = {name: seen.version for name, seen in mesh.items() if name.startswith(call.name)}
        return mesh if listed == dict(call.listed or {}) else None
    if call.verb == DESCRIBE:
        return _agreed(mesh, call, living)
    if _refusal(mesh, call, living) is not None:
        return None
    if call.verb == DELETE:
        return mesh.remove(call.name) if call.seen is None or _agreed(mesh, call, living) is not None else None
    assert call.wrote is not None  # noqa: S101 - a create or update writes something
    version = 1 if living is None else living.version + 1
    after = Seen(living.uid if living else None, version, *call.wrote)
    return _agreed(mesh.insert(call.name, after), call, after) if call.seen else mesh.insert(call.name, after)


def _refusal(mesh: Mesh, call: Call, living: Seen | None) -> str | None:
    """The code that the model answers with; None where it does what is asked."""
    if call.verb == LIST:
        return None
    if call.verb == CREATE and living is not None:
        return CONFLICT
    if call.verb != CREATE and living is None:
        return NOT_FOUND
    if call.wrote is not None and call.wrote[1] is not None and call.wrote[1] not in mesh:
        return NOT_FOUND
    if call.verb == DELETE and any(other.refers == call.name for other in mesh.values()):
        return IN_USE
    return None


def _agreed(mesh: Mesh, call: Call, living: Seen | None) -> Mesh | None:
    """The mesh, knowing what the answer told, if the two agree."""
    told = call.seen
    if living is None or told is None or living._replace(uid=None) != told._replace(uid=None):
        return None
    if living.uid is None:
        return mesh.insert(call.name, told)
    return mesh if living.uid == told.uid else None


class Undecided(Exception):  # noqa: N818 - what came of a search, not an error
    """The search took too many steps."""


class _Link:
    """An end of a call in the list of events that the search walks: the call's begin, or its answer (`call` None)."""

    __slots__ = ("after", "before", "call", "match", "number")

    def __init__(self, number: int, call: Call | None) -> None:
        self.number, self.call = number, call
        self.match: _Link | None = None
        self.before: _Link | None = None
        self.after: _Link | None = None


class _Search:
    """An order in the making: what is taken, the mesh after it, and the way back."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.head, self.left = _events(calls)
        self.mesh: Mesh = HashTrieMap()
        self._taken = 0
        self._tried: set[tuple[int, Mesh]] = set()
        self._path: list[tuple[_Link, Mesh, Iterator[_Link] | None]] = []

    @property
    def depth(self) -> int:
        return len(self._path)

    @property
    def next_answer(self) -> int:
        """Whose answer is the first that is not in the order yet: nothing that began after it may come before it."""
        link = self.head.after
        while link is not None and link.call is not None:
            link = link.after
        assert link is not None  # noqa: S101 - asked only while there is one
        return link.number

    def take_reads(self) -> None:
        """Take at once whatever may come next and changes nothing: if it fits here, later would be no better."""
        link = self.head.after
        while link is not None and link.call is not None:
            if link.call.definite and step(self.mesh, link.call) is self.mesh:
                self._take(link, self.mesh, None)
                if link.after is link.match and link.match is not None:
                    link = link.match  # out of the list with it, and so no answer that stands in the way
            link = link.after

    def choices(self) -> Iterator[_Link]:
        """What may come next, in the order that positions suggest (a lie costs time only); last what has none."""
        found: list[_Link] = []
        link = self.head.after
        while link is not None and link.call is not None:
            found.append(link)
            link = link.after
        return iter(sorted(found, key=_likely))

    def choose(self, choices: Iterator[_Link]) -> bool:
        """Take the first of `choices` that fits, and was not tried before in another order; False if there is none."""
        for link in choices:
            assert link.call is not None  # noqa: S101 - answers are not taken
            after = step(self.mesh, link.call)
            taken = self._taken | (1 << link.number)
            if after is not None and after is not self.mesh and (taken, after) not in self._tried:
                self._tried.add((taken, after))
                self._take(link, after, choices)
                return True
        return False

    def go_back(self) -> Iterator[_Link] | None:
        """Undo the last choice, and what was taken since; gives the choices that are left there, None at the begin."""
        while self._path:
            link, self.mesh, choices = self._path.pop()
            assert link.call is not None  # noqa: S101 - answers are not taken
            self._taken &= ~(1 << link.number)
            self.left += link.call.definite
            _unlift(link)
            if choices is not None:
                return choices
        return None

    def _take(self, link: _Link, after: Mesh, choices: Iterator[_Link] | None) -> None:
        assert link.call is not None  # noqa: S101 - answers are not taken
        self._path.append((link, self.mesh, choices))
        self.mesh, self._taken = after, self._taken | (1 << link.number)
        self.left -= link.call.definite
        _lift(link)


def _likely(link: _Link) -> tuple[bool, tuple[int, int], int]:
    call = link.call
    assert call is not None  # noqa: S101 - answers are no choices
    return call.position is None, call.position or (0, 0), link.number


def stuck_at(calls: Sequence[Call], steps_max: int = STEPS_MAX) -> Call | None:
    """None if the history is linearizable from an empty mesh; else the call that no order could get past.

    Raises Undecided.
    """
    search, furthest, furthest_depth = _Search(calls), -1, -1
    search.take_reads()
    choices: Iterator[_Link] | None = search.choices()
    for _ in range(steps_max):
        if not search.left:
            return None
        if choices is None:
            return calls[furthest]
        if search.choose(choices):
            search.take_reads()
            choices = search.choices()
            continue
        # Somebody was answered next whose call has no place in this order: one of the choices before was wrong.
        if search.depth > furthest_depth:
            furthest, furthest_depth = search.next_answer, search.depth
        choices = search.go_back()
    raise Undecided


def _events(calls: Sequence[Call]) -> tuple[_Link, int]:
    """The begins and answers in order of time, as a list behind a head, and how many calls have an answer."""
    ends: list[tuple[int, int, _Link]] = []
    for number, call in enumerate(calls):
        begin = _Link(number, call)
        ends.append((call.began, 0, begin))  # at one instant, begins first: they may have overlapped
        if call.ended is not None:
            begin.match = _Link(number, None)
            ends.append((call.ended, 1, begin.match))
    ends.sort(key=lambda end: end[:2])
    head = last = _Link(-1, None)
    for _, _, link in ends:
        last.after, link.before = link, last
        last = link
    return head, sum(call.definite for call in calls)


def _lift(link: _Link) -> None:
    """Take a call out of the list, both ends of it."""
    for each in (link, link.match):
        if each is not None:
            assert each.before is not None  # noqa: S101 - the head is never lifted
            each.before.after = each.after
            if each.after is not None:
                each.after.before = each.before


def _unlift(link: _Link) -> None:
    for each in (link.match, link):
        if each is not None:
            assert each.before is not None  # noqa: S101 - the head is never lifted
            each.before.after = each
            if each.after is not None:
                each.after.before = each


def linearizable(calls: Sequence[Call], *, at_least: int, steps_max: int = STEPS_MAX) -> Check:
    """I2. One order explains all answers; fewer than `at_least` answered calls, or none that overlap, prove nothing."""
    name = "the history of calls is linearizable"
    definite = [call for call in calls if call.definite]
    overlapping = _overlapping(calls)
    if len(definite) < at_least or not overlapping:
        detail = f"{len(definite)} answered calls ({at_least} needed), {overlapping} that overlap: nothing is proven"
        return Check(name, "I2", False, detail)
    try:
        stuck = stuck_at(calls, steps_max)
    except Undecided:
        return Check(name, "I2", False, f"not decided within {steps_max} steps: take a shorter history")
    unknown = len(calls) - len(definite)
    evidence = f"{len(definite)} answered calls, {unknown} without an answer, {overlapping} that overlap"
    return Check(name, "I2", stuck is None, evidence if stuck is None else f"no order explains {_told(stuck)}")


def positions_follow_time(calls: Sequence[Call]) -> Check:
    """I2. A call that began after another's answer names no earlier position; a write that did, a later one."""
    name = "positions follow real time"
    answered = sorted((call for call in calls if call.ended is not None and call.position), key=lambda each: each.began)
    ended = sorted(answered, key=lambda each: each.ended or 0)
    problems: list[str] = []
    latest: Call | None = None
    index = 0
    for call in answered:
        while index < len(ended) and (ended[index].ended or 0) < call.began:
            if latest is None or (ended[index].position or ()) > (latest.position or ()):
                latest = ended[index]
            index += 1
        if latest is None or latest.position is None or call.position is None:
            continue
        wrote = call.verb not in READS and not call.code
        if call.position < latest.position or (wrote and call.position == latest.position):
            problems.append(f"{_told(call)} began after the answer of {_told(latest)}")
    if not answered:
        problems.append("no answer names a position: nothing is proven")
    return Check(name, "I2", not problems, "; ".join(problems[:3]) or f"{len(answered)} positions")


def _overlapping(calls: Iterable[Call]) -> int:
    """Calls that began while another was under way."""
    count, until = 0, -1
    for call in sorted(calls, key=lambda each: each.began):
        count += call.began < until
        until = max(until, call.ended if call.ended is not None else until)
    return count


def _told(call: Call) -> str:
    answer = call.code or (f"{call.seen}" if call.seen else f"{dict(call.listed or {})}")
    at = "" if call.position is None else f" at {call.position[0]}.{call.position[1]}"
    return f"{call.caller}: {call.verb} {call.name} -> {answer}{at}"


def unanswered(call: Call) -> Call:
    """The call as it would be if nobody had heard its answer."""
    return replace(call, ended=None, code="", seen=None, listed=None, position=None)
