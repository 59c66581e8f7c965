"""The bulk fold: many events folded onto one state in place, and then the state that `evolve` gives one by one.

A draft keeps what has changed since its base as plain values in dictionaries, so an event costs a few of their
operations. Hashing, freezing and indexing wait until `state()`, and are done for what is still there then: of a
million writes, that is what the token window and the resources hold.

Only the commonest events are folded here. Any other, and any event that is not plainly sound, is folded by `evolve` on
the state so far: so there is one judge of what is Poison. What is accepted here must be what `evolve` accepts; a
property test holds both to the same state after every event. Data must be JSON-like, as that of every record that
opens is: it is hashed later than `evolve` would, when it can no longer be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.events import (
    PROXY_IDENTITY_ISSUED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    SCHEMAS,
    SECRET_TYPES,
    TAGS_CHANGED,
    Happened,
)
from mesh.evolve import UNFIT, evolve, key_of
from mesh.fingerprint import Tally, change_item, resource_item, stone_item, token_item
from mesh.frozen import freeze
from mesh.kinds import ResourceKey, containers, mesh_key
from mesh.limits import TOKEN_WINDOW_US, TOKENS_KEPT, TOMBSTONES_KEPT
from mesh.position import Position
from mesh.references import hard_targets
from mesh.referrers import moved_referrers
from mesh.state import (
    PlainResource,
    Resource,
    State,
    TokenEntry,
    Tombstone,
    packed,
    rest,
    shape_of,
    targets_of,
)

_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")


class _Answer(NamedTuple):
    """A `TokenEntry` that may yet be forgotten."""

    body: bytes
    position: Position
    time_us: int
    kept: PlainResource | None


class Draft:
    """A state being folded in bulk. `fold` raises Poison and leaves the draft as it was before that event."""

    def __init__(self, base: State) -> None:
        self._begin(base)

    def _begin(self, base: State) -> None:
        self._base = base
        self.position = base.position
        self._time_us = base.time_us
        self._resources: dict[ResourceKey, PlainResource | None] = {}
        self._changed_in: dict[ResourceKey, Position | None] = {}
        self._containers: dict[ResourceKey, tuple[ResourceKey, ...]] = {}
        self._stones: _Window[str, Tombstone, Tombstone] = _Window(base.deleted, base.deleted_order)
        self._tokens: _Window[bytes, TokenEntry, _Answer] = _Window(base.tokens, base.token_order)
        self._eldest_token_us = -TOKEN_WINDOW_US - 1

    def fold(self, event: Happened) -> None:
        """Fold one event, which must come after `position`."""
        data, position = event.data, event.position
        fold = _FOLDS.get(event.type)
        try:
            if event.schema > SCHEMAS[event.type] or position <= self.position:
                raise ValueError("for evolve to refuse")
            time_us = max(self._time_us, event.time_us)
            if data is None and event.type in SECRET_TYPES:
                outcome = None
            elif fold is None or data is None:
                raise ValueError("for evolve to judge")
            else:
                outcome = fold(self, data, position, time_us)
        except UNFIT:
            # Nothing is changed yet. First on a base of its own, so that Poison leaves what was before it.
            self._begin(self.state())
            self._begin(evolve(self._base, event))
            return
        self.position, self._time_us = position, time_us
        if event.token is not None:
            self._remember(event.token.digest, _Answer(event.token.body, position, time_us, outcome))

    def state(self) -> State:
        """The state after the last event folded. The draft can be folded on."""
        base, counted = self._base, self._base.tally
        if self.position == base.position:
            return base
        resources, of_mesh, referrers, total = self._settled_resources()
        changed_in, changed = self._settled_changes()
        stones, stone_order, buried = self._stones.settled(lambda stone: stone, stone_item)
        tokens, token_order, remembered = self._tokens.settled(
            lambda answer: self._entry(answer, resources), token_item
        )
        return base.but(
            position=self.position,
            time_us=self._time_us,
            resources=resources,
            of_mesh=of_mesh,
            referrers=referrers,
            changed_in=changed_in,
            deleted=stones,
            deleted_order=stone_order,
            tokens=tokens,
            token_order=token_order,
            tally=Tally(lambda: counted.total + total + changed + buried() + remembered()),
        )

    # --- one event; each raises before it changes anything

    def _created(self, data: Mapping[str, Any], position: Position, time_us: int) -> PlainResource:
        key = key_of(data["key"])
        uid, owner, tags, spec = data["uid"], data["owner"], data["tags"], data["spec"]
        if self._found(key) is not None:
            raise ValueError("for evolve to refuse")
        if not (type(uid) is type(owner) is str and type(tags) is dict):
            raise TypeError("for evolve to judge")
        hard_targets(key, spec)
        created = PlainResource(key, spec, tags, uid, 1, owner, time_us, time_us, position)
        self._put(key, created, position)
        return created

    def _updated(self, data: Mapping[str, Any], position: Position, time_us: int) -> PlainResource:
        before, spec = self._present(data), data["spec"]
        key, _spec, tags, uid, version, owner, created_us, _updated_us, _changed_at = before
        hard_targets(key, spec)
        updated = PlainResource(key, spec, tags, uid, version + 1, owner, created_us, time_us, position)
        self._put(key, updated, position)
        return updated

    def _tags_changed(self, data: Mapping[str, Any], position: Position, time_us: int) -> PlainResource:  # noqa: ARG002
        before, unset = self._present(data), set(data["unset"])
        tags = {name: value for name, value in before.tags.items() if name not in unset}
        tags.update(data["set"])
        changed = before._replace(tags=tags, changed_at=position)
        self._put(before.key, changed, position)
        return changed

    def _deleted(self, data: Mapping[str, Any], position: Position, time_us: int) -> PlainResource:  # noqa: ARG002
        gone = self._present(data)
        key, stones = gone.key, self._stones
        if key[:2] in self._base.shares and key == mesh_key(*key[:2]):
            raise ValueError("for evolve to fold: a share goes with its mesh")
        stones.put(gone.uid, Tombstone(key, gone.version, position), position)
        while (eldest := stones.eldest()) is not None:
            stone = stones.get(eldest[0])
            current = stone is not None and stone.deleted_at == eldest[1]
            if current and stones.count <= TOMBSTONES_KEPT:
                break
            stones.pass_eldest(forget=current)
        self._put(key, None, position)
        if key in self._containers[key]:
            self._changed_in[key] = None
        return gone

    def _identity_issued(self, data: Mapping[str, Any], position: Position, time_us: int) -> None:  # noqa: ARG002
        key_of(data["node"])

    # --- inside

    def _found(self, key: ResourceKey) -> PlainResource | Resource | None:
        if key in self._resources:
            return self._resources[key]
        return self._base.resources.get(key)

    def _present(self, data: Mapping[str, Any]) -> PlainResource:
        found = self._found(ResourceKey(*data["key"]))
        if found is None:
            raise KeyError("for evolve to refuse")
        return found if isinstance(found, PlainResource) else _plain(found)

    def _put(self, key: ResourceKey, resource: PlainResource | None, position: Position) -> None:
        self._resources[key] = resource
        within = self._containers.get(key)
        if within is None:
            within = self._containers[key] = containers(key)
        for container in within:
            self._changed_in[container] = position

    def _remember(self, digest: bytes, answer: _Answer) -> None:
        tokens = self._tokens
        repeated = tokens.put(digest, answer, answer.position)
        if not repeated and tokens.count <= TOKENS_KEPT and self._eldest_token_us + TOKEN_WINDOW_US >= answer.time_us:
            return
        while (eldest := tokens.eldest()) is not None:
            kept = tokens.get(eldest[0])
            current = kept is not None and kept.position == eldest[1]
            if current and kept is not None:
                self._eldest_token_us = kept.time_us
                if tokens.count <= TOKENS_KEPT and kept.time_us + TOKEN_WINDOW_US >= answer.time_us:
                    break
            tokens.pass_eldest(forget=current)

    def _settled_resources(
        self,
    ) -> tuple[
        HashTrieMap[ResourceKey, Resource],
        HashTrieMap[tuple[str, str], HashTrieSet[ResourceKey]],
        HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]],
        int,
    ]:
        base, total = self._base, 0
        of_mesh, referrers = base.of_mesh, base.referrers
        put: dict[ResourceKey, Resource] = {}
        removed: list[ResourceKey] = []
        for key, plain in self._resources.items():
            before = base.resources.get(key)
            home = (key.account, key.mesh)
            living = of_mesh.get(home) or HashTrieSet()
            if before is not None:
                total -= resource_item(key, before)
            if plain is not None:
                after = put[key] = Resource(*plain._replace(spec=freeze(plain.spec), tags=freeze(plain.tags)))
                total += resource_item(key, after)
                of_mesh = of_mesh.insert(home, living.insert(key))
            elif before is not None:
                removed.append(key)
                left = living.remove(key)
                of_mesh = of_mesh.insert(home, left) if left else of_mesh.remove(home)
            referrers = moved_referrers(
                referrers,
                key,
                targets_of(before) if before is not None else set(),
                hard_targets(key, plain.spec) if plain is not None else set(),
            )
        resources = base.resources.update(put)
        for key in removed:
            resources = resources.remove(key)
        return resources, of_mesh, referrers, total

    def _settled_changes(self) -> tuple[HashTrieMap[ResourceKey, Position], int]:
        changed_in, total = self._base.changed_in, 0
        for container, position in self._changed_in.items():
            before = changed_in.get(container)
            if before is not None:
                changed_in, total = changed_in.remove(container), total - change_item(container, before)
            if position is not None:
                changed_in, total = changed_in.insert(container, position), total + change_item(container, position)
        return changed_in, total

    def _entry(self, answer: _Answer, resources: HashTrieMap[ResourceKey, Resource]) -> TokenEntry:
        body, position, time_us, kept = answer
        if kept is None:
            return TokenEntry(body, position, time_us, None)
        if self._resources.get(kept.key) is kept:
            return TokenEntry(body, position, time_us, resources[kept.key])
        return TokenEntry(body, position, time_us, packed(kept))


class _Window(Generic[_K, _V, _D]):
    """A map of what is remembered and the order in which it is forgotten, as `tokens` and `deleted` of a state are.

    `put` here are drafts of entries; `count` is that of all entries.
    """

    def __init__(self, base: HashTrieMap[_K, _V], order: Queue[tuple[_K, Position]]) -> None:
        self._base, self._order = base, order
        self._put: dict[_K, _D] = {}
        self._gone: dict[_K, _V] = {}
        self._old: Iterator[tuple[_K, Position]] | None = None
        self._passed = 0
        self._eldest_old: tuple[_K, Position] | None = None
        self._new: deque[tuple[_K, Position]] = deque()
        self.count = len(base)

    def get(self, key: _K) -> _V | _D | None:
        """The entry of the key, if it is remembered."""
        if key in self._put:
            return self._put[key]
        return None if key in self._gone else self._base.get(key)

    def put(self, key: _K, entry: _D, position: Position) -> bool:
        """Remember an entry, as the last to be forgotten; tells whether one of its key was there."""
        repeated = key in self._put
        if not repeated and key not in self._gone:
            old = self._base.get(key)
            if old is not None:
                self._gone[key], repeated = old, True
        self._put[key] = entry
        self._new.append((key, position))
        self.count += not repeated
        return repeated

    def eldest(self) -> tuple[_K, Position] | None:
        """The first in the order: what was put under that key at that position."""
        if self._passed < len(self._order):
            if self._old is None:
                self._old = iter(self._order)
                self._eldest_old = next(self._old)
            return self._eldest_old
        return self._new[0] if self._new else None

    def pass_eldest(self, *, forget: bool) -> None:
        """Take the first off the order, and its key's entry off the map if it is to be forgotten."""
        if self._old is not None and self._eldest_old is not None:
            key = self._eldest_old[0]
            self._passed += 1
            self._eldest_old = next(self._old, None)
        else:
            key = self._new.popleft()[0]
        if not forget:
            return
        self.count -= 1
        if self._put.pop(key, None) is None:
            self._gone[key] = self._base[key]

    def settled(
        self, entry_of: Callable[[_D], _V], item_of: Callable[[_K, _V], int]
    ) -> tuple[HashTrieMap[_K, _V], Queue[tuple[_K, Position]], Callable[[], int]]:
        """The map and the order as they are now, and what gives what that adds to the fingerprint."""
        gone = dict(self._gone)
        put = {key: entry_of(draft) for key, draft in self._put.items()}

        def total() -> int:
            before = sum(item_of(key, entry) for key, entry in gone.items())
            return sum(item_of(key, entry) for key, entry in put.items()) - before

        if len(self._gone) == len(self._base):
            entries = HashTrieMap(put)
        else:
            entries = self._base
            for key in self._gone.keys() - put.keys():
                entries = entries.remove(key)
            entries = entries.update(put)
        order = self._order
        if self._passed == len(order):
            return entries, Queue(self._new), total
        for _ in range(self._passed):
            order = rest(order)
        for each in self._new:
            order = order.enqueue(each)
        return entries, order, total


def _plain(resource: Resource) -> PlainResource:
    return PlainResource(*shape_of(resource))


_FOLDS: Mapping[str, Callable[[Draft, Mapping[str, Any], Position, int], PlainResource | None]] = {
    RESOURCE_CREATED: Draft._created,
    RESOURCE_UPDATED: Draft._updated,
    RESOURCE_DELETED: Draft._deleted,
    TAGS_CHANGED: Draft._tags_changed,
    PROXY_IDENTITY_ISSUED: Draft._identity_issued,
}
"""The commonest events."""
