"""What the log adds up to: an immutable, persistent value. `evolve` makes the next one; nothing else does.

A new state shares every unchanged part with the one before it, so keeping many (a rollback's target, the answer to
a repeated token) costs only what differs. Everything grows only through the `with_…` methods, because they keep the
indexes and the fingerprint true.

The fingerprint is a sum, modulo 2^4096, of one 4096-bit hash for each item of the state. A sum does not depend on
the order of insertion, and one change costs two hashes whatever the size of the mesh; at this width, finding two
sets with one sum is beyond reach (generalised birthday attacks need some 2^128 steps).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar, cast

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.frozen import Frozen
from mesh.kinds import KINDS, MESH, ResourceKey, mesh_key
from mesh.limits import TOKEN_WINDOW_US, TOKENS_KEPT, TOMBSTONES_KEPT
from mesh.position import ORIGIN, Position
from mesh.references import hard_references

_T = TypeVar("_T")
_FINGERPRINT_BYTES = 512
_FINGERPRINT_MASK = (1 << (8 * _FINGERPRINT_BYTES)) - 1


@dataclass(frozen=True, slots=True)
class Resource:
    """One App Mesh resource as of some position. Times are log times. `owner` is the account that created it.

    `changed_at` is the position of the event that last changed it (provenance). `digest` (SHA-256 of all the rest,
    made once) serves as a cache key: equal digests mean equal resources.
    """

    key: ResourceKey
    spec: Frozen
    tags: Frozen
    uid: str
    version: int
    owner: str
    created_us: int
    updated_us: int
    changed_at: Position
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = (
            self.key,
            self.spec,
            self.tags,
            self.uid,
            self.version,
            self.owner,
            self.created_us,
            self.updated_us,
            self.changed_at,
        )
        object.__setattr__(self, "digest", hashlib.sha256(canonical_json(shape)).digest())

    def __hash__(self) -> int:
        return hash(self.digest)


class Tombstone(NamedTuple):
    """What is remembered of a deleted resource, so that `version` never repeats for a uid that is revived."""

    key: ResourceKey
    version: int
    deleted_at: Position


class TokenEntry(NamedTuple):
    """The answer kept for a repeated token: the resource as the first call left it (None where there is none).

    For a delete, `outcome` is the resource as it was when it went.
    """

    body: bytes
    position: Position
    time_us: int
    outcome: Resource | None


class AccessKey(NamedTuple):
    """A SigV4 key pair that Meshlog issued. `principal` is an ARN; times are log times.

    `disabled_us`: since when it opens nothing any more; None while it does.
    """

    access_key_id: str
    secret: str
    account: str
    principal: str
    admin: bool
    created_us: int = 0
    disabled_us: int | None = None

    def __repr__(self) -> str:
        return f"AccessKey({self.access_key_id})"


@dataclass(frozen=True, slots=True)
class State:
    """The whole cluster at `position`.

    `resources` is the truth; `of_mesh` (keys by mesh) and `referrers` (hard references but those to the mesh, turned
    round) are indexes of it. `changed_in` has, for each living mesh, virtual router and virtual gateway, the position
    of the last change in it, deletions included. `deleted` is by uid. `access_keys` is empty in a role that cannot
    open secrets, and is no part of the state hash. `lineage` has the last position of each earlier epoch that this
    timeline goes on from, oldest first.
    """

    position: Position = ORIGIN
    time_us: int = 0
    level: int = 1
    resources: HashTrieMap[ResourceKey, Resource] = field(default_factory=HashTrieMap)
    of_mesh: HashTrieMap[tuple[str, str], HashTrieSet[ResourceKey]] = field(default_factory=HashTrieMap)
    referrers: HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]] = field(default_factory=HashTrieMap)
    changed_in: HashTrieMap[ResourceKey, Position] = field(default_factory=HashTrieMap)
    deleted: HashTrieMap[str, Tombstone] = field(default_factory=HashTrieMap)
    deleted_order: Queue[tuple[str, Position]] = field(default_factory=Queue)
    tokens: HashTrieMap[bytes, TokenEntry] = field(default_factory=HashTrieMap)
    token_order: Queue[tuple[bytes, Position]] = field(default_factory=Queue)
    access_keys: HashTrieMap[str, AccessKey] = field(default_factory=HashTrieMap)
    fingerprint: int = 0
    lineage: tuple[Position, ...] = ()

    def at(self, number: int) -> Position:
        """The position of that number on this timeline: each epoch goes on counting where the one before was left."""
        epoch = next((base.epoch for base in self.lineage if number <= base.position), self.position.epoch)
        return Position(epoch, number)

    def get(self, key: ResourceKey) -> Resource | None:
        return self.resources.get(key)

    def in_mesh(self, account: str, mesh: str, kind: str | None = None) -> Iterator[Resource]:
        """The mesh's resources (the mesh itself among them), of one kind or all, sorted by key."""
        keys = self.of_mesh.get((account, mesh)) or HashTrieSet()
        for key in sorted(key for key in keys if kind is None or key.kind == kind):
            yield self.resources[key]

    def meshes(self, account: str) -> Iterator[Resource]:
        """The account's own meshes, sorted by name."""
        for name in sorted(name for owner, name in self.of_mesh if owner == account):
            mesh = self.resources.get(mesh_key(account, name))
            if mesh:
                yield mesh

    def referring_to(self, key: ResourceKey, kind: str | None = None) -> list[ResourceKey]:
        """Who holds a hard reference to `key` (its children among them), of one kind or all, sorted."""
        found = self.referrers.get(key) or HashTrieSet()
        return sorted(referrer for referrer in found if kind is None or referrer.kind == kind)

    def with_resource(self, resource: Resource) -> State:
        """The state with `resource` put in, in place of the one of its key if there is one."""
        key = resource.key
        before = self.resources.get(key)
        referrers = self.referrers
        if before:
            referrers = _unrefer(referrers, before)
        for target in _targets(resource):
            referrers = referrers.insert(target, (referrers.get(target) or HashTrieSet()).insert(key))
        home = (key.account, key.mesh)
        added = _item("resource", resource.digest.hex())
        removed = _item("resource", before.digest.hex()) if before else 0
        return replace(
            self,
            resources=self.resources.insert(key, resource),
            of_mesh=self.of_mesh.insert(home, (self.of_mesh.get(home) or HashTrieSet()).insert(key)),
            referrers=referrers,
            fingerprint=(self.fingerprint + added - removed) & _FINGERPRINT_MASK,
        )._with_change_in(key, resource.changed_at, alive=True)

    def without_resource(self, key: ResourceKey, position: Position) -> State:
        """The state without the resource of that key, which must be there; `position` is that of its deletion."""
        gone = self.resources[key]
        home = (key.account, key.mesh)
        left = self.of_mesh[home].remove(key)
        return (
            replace(
                self,
                resources=self.resources.remove(key),
                of_mesh=self.of_mesh.insert(home, left) if left else self.of_mesh.remove(home),
                referrers=_unrefer(self.referrers, gone),
                fingerprint=(self.fingerprint - _item("resource", gone.digest.hex())) & _FINGERPRINT_MASK,
            )
            ._with_change_in(key, position, alive=False)
            ._with_tombstone(gone, position)
        )

    def with_token(self, digest: bytes, entry: TokenEntry) -> State:
        """The state that remembers an answer, and forgets those out of the window (by count and by log time)."""
        tokens, order, total = self.tokens, self.token_order.enqueue((digest, entry.position)), self.fingerprint
        old = tokens.get(digest)
        total += _token_item(digest, entry) - (_token_item(digest, old) if old else 0)
        tokens = tokens.insert(digest, entry)
        while (first := _first(order)) is not None:
            eldest, position = first
            kept = tokens.get(eldest)
            current = kept is not None and kept.position == position
            expired = kept is not None and kept.time_us + TOKEN_WINDOW_US < entry.time_us
            if current and not expired and len(tokens) <= TOKENS_KEPT:
                break
            order = _rest(order)
            if kept is not None and current:
                tokens, total = tokens.remove(eldest), total - _token_item(eldest, kept)
        return replace(self, tokens=tokens, token_order=order, fingerprint=total & _FINGERPRINT_MASK)

    def without_tombstone(self, uid: str) -> State:
        """The state that forgets a deletion, since the uid lives again."""
        stone = self.deleted.get(uid)
        if stone is None:
            return self
        total = self.fingerprint - _stone_item(uid, stone)
        return replace(self, deleted=self.deleted.remove(uid), fingerprint=total & _FINGERPRINT_MASK)

    def _with_tombstone(self, gone: Resource, position: Position) -> State:
        stone = Tombstone(gone.key, gone.version, position)
        deleted, order = self.deleted.insert(gone.uid, stone), self.deleted_order.enqueue((gone.uid, position))
        total = self.fingerprint + _stone_item(gone.uid, stone)
        while (first := _first(order)) is not None:
            uid, deleted_at = first
            kept = deleted.get(uid)
            current = kept is not None and kept.deleted_at == deleted_at
            if current and len(deleted) <= TOMBSTONES_KEPT:
                break
            order = _rest(order)
            if kept is not None and current:
                deleted, total = deleted.remove(uid), total - _stone_item(uid, kept)
        return replace(self, deleted=deleted, deleted_order=order, fingerprint=total & _FINGERPRINT_MASK)

    def _with_change_in(self, key: ResourceKey, position: Position, alive: bool) -> State:
        changed, total = self.changed_in, self.fingerprint
        for container in _containers(key):
            before = changed.get(container)
            if before is not None:
                changed, total = changed.remove(container), total - _change_item(container, before)
            if alive or container != key:
                changed, total = changed.insert(container, position), total + _change_item(container, position)
        return replace(self, changed_in=changed, fingerprint=total & _FINGERPRINT_MASK)


def canonical_json(value: Any) -> bytes:
    """One byte string for each JSON value (frozen or plain): sorted members, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict).encode()


def state_hash(state: State) -> str:
    """A hash of all but the access keys; equal in every role at equal positions and level (I4). Costs O(1)."""
    head = "/".join(map(str, (state.position, state.time_us, state.level, *state.lineage, ""))).encode()
    return hashlib.sha256(head + state.fingerprint.to_bytes(_FINGERPRINT_BYTES, "big")).hexdigest()


def computed_fingerprint(state: State) -> int:
    """The fingerprint made anew from every item: what `State.fingerprint` must be. For checks; costs O(state)."""
    total = sum(_item("resource", resource.digest.hex()) for resource in state.resources.values())
    total += sum(_change_item(key, position) for key, position in state.changed_in.items())
    total += sum(_stone_item(uid, stone) for uid, stone in state.deleted.items())
    total += sum(_token_item(digest, entry) for digest, entry in state.tokens.items())
    return total & _FINGERPRINT_MASK


def _item(*words: object) -> int:
    return int.from_bytes(hashlib.shake_256(canonical_json(words)).digest(_FINGERPRINT_BYTES), "big")


def _stone_item(uid: str, stone: Tombstone) -> int:
    return _item("deleted", uid, stone)


def _change_item(container: ResourceKey, position: Position) -> int:
    return _item("changed_in", container, position)


def _token_item(digest: bytes, entry: TokenEntry) -> int:
    outcome = entry.outcome.digest.hex() if entry.outcome else None
    return _item("token", digest.hex(), entry.body.hex(), entry.position, entry.time_us, outcome)


def _first(queue: Queue[_T]) -> _T | None:
    return next(iter(queue), None)


def _rest(queue: Queue[_T]) -> Queue[_T]:
    # The stubs of rpds say that dequeue takes a value; it takes none.
    return cast("Queue[_T]", cast("Any", queue).dequeue())


def _containers(key: ResourceKey) -> Iterator[ResourceKey]:
    """What a change of `key` is a change in: the mesh, the parent if any, and itself where it can hold others."""
    yield mesh_key(key.account, key.mesh)
    kind = KINDS[key.kind]
    if kind.parent:
        yield ResourceKey(key.account, key.mesh, kind.parent, "", key.parent)
    elif any(other.parent == kind.name for other in KINDS.values()):
        yield key


def _targets(resource: Resource) -> set[ResourceKey]:
    found = {reference.target for reference in hard_references(resource.key, resource.spec)}
    return {target for target in found if target.kind != MESH.name}


def _unrefer(
    referrers: HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]], resource: Resource
) -> HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]]:
    for target in _targets(resource):
        left = referrers[target].remove(resource.key)
        referrers = referrers.insert(target, left) if left else referrers.remove(target)
    return referrers
