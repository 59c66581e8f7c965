"""What the log adds up to: an immutable, persistent value. `evolve` makes the next one; nothing else does.

A new state shares every unchanged part with the one before it, so keeping many (a rollback's target, the answer to
a repeated token) costs only what differs. Everything grows only through the `with_…` methods, because they keep the
indexes and the fingerprint (`mesh.fingerprint`) true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.certificates import Authority, AuthorityKey, Certificate
from mesh.fingerprint import (
    FINGERPRINT_BYTES,
    FINGERPRINT_MASK,
    Tally,
    canonical_json,
    change_item,
    entry_item,
    resource_item,
    stone_item,
    token_item,
)
from mesh.frozen import Frozen, freeze
from mesh.kinds import MESH, ResourceKey, containers, mesh_key
from mesh.limits import TOKEN_WINDOW_US, TOKENS_KEPT, TOMBSTONES_KEPT
from mesh.position import ORIGIN, Position
from mesh.principals import AccessKey, ManagedPolicy, Principal
from mesh.quotas import QuotaValue
from mesh.references import hard_targets
from mesh.referrers import moved_referrers
from mesh.tenants import Sharing, Tenant

_T = TypeVar("_T")
_ENCODE_IN_ORDER = json.JSONEncoder(
    check_circular=False, separators=(",", ":"), ensure_ascii=False, default=dict
).encode


@dataclass(frozen=True, slots=True)
class Resource:
    """One App Mesh resource as of some position. Times are log times. `owner` is the account that created it.

    `changed_at` is the position of the event that last changed it (provenance). `digest` serves as a cache key: equal
    digests mean equal resources.
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
    _digest: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it, made once, when it is first asked for."""
        digest = self._digest
        if digest is None:
            digest = hashlib.sha256(canonical_json(shape_of(self))).digest()
            object.__setattr__(self, "_digest", digest)
        return digest

    @property
    def mark(self) -> tuple[str, int, Position]:
        """Which state of which resource it is: uid, version, and the position of the change that made it so."""
        return self.uid, self.version, self.changed_at

    def __hash__(self) -> int:
        return hash(self.digest)


class PlainResource(NamedTuple):
    """A `Resource`, field by field, as a bulk fold holds it: not frozen, not hashed."""

    key: ResourceKey
    spec: Any
    tags: Mapping[str, str]
    uid: str
    version: int
    owner: str
    created_us: int
    updated_us: int
    changed_at: Position


shape_of = attrgetter(*PlainResource._fields)
"""A resource's fields as a tuple: what its digest and its packed text are made of."""


def pack(resource: Resource) -> bytes:
    """The resource as one JSON text that keeps the order of its specification's members."""
    return _ENCODE_IN_ORDER(shape_of(resource)).encode()


def packed(plain: PlainResource) -> PackedResource:
    """The resource, to be kept."""
    return PackedResource(_ENCODE_IN_ORDER(plain).encode(), (plain.uid, plain.version, plain.changed_at))


def unpack(text: bytes) -> Resource:
    """What `pack` was given; ValueError or TypeError if it is no such text."""
    key, spec, tags, uid, version, owner, created_us, updated_us, position = json.loads(text)
    place = Position(*position)
    return Resource(ResourceKey(*key), freeze(spec), freeze(tags), uid, version, owner, created_us, updated_us, place)


class PackedResource:
    """A resource that is hardly ever looked at, as its text: as objects, tens of thousands of answers take 300 MB."""

    __slots__ = ("_mark", "text")

    def __init__(self, text: bytes, mark: tuple[str, int, Position] | None = None) -> None:
        self.text = text
        self._mark = mark

    @property
    def mark(self) -> tuple[str, int, Position]:
        """That of the resource."""
        if self._mark is None:
            _key, _spec, _tags, uid, version, *_, changed_at = json.loads(self.text)
            self._mark = uid, version, Position(*changed_at)
        return self._mark

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedResource):
            return self.text == other.text or unpack(self.text) == unpack(other.text)
        return isinstance(other, Resource) and unpack(self.text) == other

    def __hash__(self) -> int:
        return hash(self.mark)


class Tombstone(NamedTuple):
    """What is remembered of a deleted resource, so that `version` never repeats for a uid that is revived."""

    key: ResourceKey
    version: int
    deleted_at: Position


class TokenEntry(NamedTuple):
    """The answer kept for a repeated token: the resource as the first call left it (None where there is none).

    For a delete, it is the resource as it was when it went.
    """

    body: bytes
    position: Position
    time_us: int
    kept: Resource | PackedResource | None

    @property
    def outcome(self) -> Resource | None:
        """The answer, unpacked."""
        return unpack(self.kept.text) if isinstance(self.kept, PackedResource) else self.kept


@dataclass(frozen=True, slots=True)
class State:
    """The whole cluster at `position`.

    `resources` is the truth; `of_mesh` (keys by mesh) and `referrers` (hard references but those to the mesh, turned
    round) are indexes of it. `changed_in` has, for each living mesh, virtual router and virtual gateway, the position
    of the last change in it, deletions included. `deleted` is by uid. `access_keys` and `authority_keys` (by root) are
    empty in a role that cannot open secrets, and are no part of the state hash. `lineage` has the last position of each
    earlier epoch that this timeline goes on from, oldest first. `principals`, `policies`, `authorities` and
    `certificates` (by ARN), `accounts` (those that were added, by account), `shares` (by owner and mesh) and `quotas`
    (by account and code, where it is no default) are small tables, as `TABLES` lists them.
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
    tally: Tally = field(default_factory=Tally)
    lineage: tuple[Position, ...] = ()
    principals: HashTrieMap[str, Principal] = field(default_factory=HashTrieMap)
    policies: HashTrieMap[str, ManagedPolicy] = field(default_factory=HashTrieMap)
    accounts: HashTrieMap[str, Tenant] = field(default_factory=HashTrieMap)
    shares: HashTrieMap[tuple[str, str], Sharing] = field(default_factory=HashTrieMap)
    quotas: HashTrieMap[tuple[str, str], QuotaValue] = field(default_factory=HashTrieMap)
    authorities: HashTrieMap[str, Authority] = field(default_factory=HashTrieMap)
    certificates: HashTrieMap[str, Certificate] = field(default_factory=HashTrieMap)
    authority_keys: HashTrieMap[str, AuthorityKey] = field(default_factory=HashTrieMap)

    def at(self, number: int) -> Position:
        """The position of that number on this timeline: each epoch goes on counting where the one before was left."""
        epoch = next((base.epoch for base in self.lineage if number <= base.position), self.position.epoch)
        return Position(epoch, number)

    @property
    def fingerprint(self) -> int:
        """The sum over all items of `mesh.fingerprint`."""
        return self.tally.total

    def but(self, **changes: Any) -> State:
        """The state with these fields changed: `dataclasses.replace`, in a tenth of its time."""
        made = object.__new__(State)
        for put, value in zip(_PUT.values(), _VALUES(self), strict=True):
            put(made, value)
        for name, value in changes.items():
            _PUT[name](made, value)
        return made

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
        targets = targets_of(before) if before else set()
        home = (key.account, key.mesh)
        of_mesh = self.of_mesh
        if before is None:
            of_mesh = of_mesh.insert(home, (of_mesh.get(home) or HashTrieSet()).insert(key))
        changed_in, tally = self._change_in(key, resource.changed_at, alive=True)
        return self.but(
            resources=self.resources.insert(key, resource),
            of_mesh=of_mesh,
            referrers=moved_referrers(self.referrers, key, targets, targets_of(resource)),
            changed_in=changed_in,
            tally=tally.changed(resource_item, key, before, resource),
        )

    def without_resource(self, key: ResourceKey, position: Position) -> State:
        """The state without the resource of that key, which must be there; `position` is that of its deletion.

        With a mesh goes its share: one that is made again under the name is nobody else's.
        """
        gone = self.resources[key]
        home = (key.account, key.mesh)
        left = self.of_mesh[home].remove(key)
        changed_in, tally = self._change_in(key, position, alive=False)
        after = self.but(
            resources=self.resources.remove(key),
            of_mesh=self.of_mesh.insert(home, left) if left else self.of_mesh.remove(home),
            referrers=moved_referrers(self.referrers, key, targets_of(gone), set()),
            changed_in=changed_in,
            tally=tally.changed(resource_item, key, gone, None),
        )._with_tombstone(gone, position)
        return after.with_entry("shares", home, None) if key.kind == MESH.name and home in self.shares else after

    def with_token(self, digest: bytes, entry: TokenEntry) -> State:
        """The state that remembers an answer, and forgets those out of the window (by count and by log time)."""
        tokens, order = self.tokens, self.token_order.enqueue((digest, entry.position))
        tally = self.tally.changed(token_item, digest, tokens.get(digest), entry)
        tokens = tokens.insert(digest, entry)
        while (first := _first(order)) is not None:
            eldest, position = first
            kept = tokens.get(eldest)
            current = kept is not None and kept.position == position
            expired = kept is not None and kept.time_us + TOKEN_WINDOW_US < entry.time_us
            if current and not expired and len(tokens) <= TOKENS_KEPT:
                break
            order = rest(order)
            if kept is not None and current:
                tokens, tally = tokens.remove(eldest), tally.changed(token_item, eldest, kept, None)
        return self.but(tokens=tokens, token_order=order, tally=tally)

    def with_entry(self, table: str, key: Any, entry: tuple[Any, ...] | None) -> State:
        """The state with one entry of a small table (see `TABLES`) put, replaced or, by None, taken out."""
        entries: HashTrieMap[Any, Any] = getattr(self, table)
        before = entries.get(key)
        if entry is not None:
            entries = entries.insert(key, entry)
        elif before is not None:
            entries = entries.remove(key)
        return self.but(**{table: entries, "tally": self.tally.changed(entry_item, (table, key), before, entry)})

    def without_tombstone(self, uid: str) -> State:
        """The state that forgets a deletion, since the uid lives again."""
        stone = self.deleted.get(uid)
        if stone is None:
            return self
        return self.but(deleted=self.deleted.remove(uid), tally=self.tally.changed(stone_item, uid, stone, None))

    def _with_tombstone(self, gone: Resource, position: Position) -> State:
        stone, deleted = Tombstone(gone.key, gone.version, position), self.deleted
        tally = self.tally.changed(stone_item, gone.uid, deleted.get(gone.uid), stone)
        deleted, order = deleted.insert(gone.uid, stone), self.deleted_order.enqueue((gone.uid, position))
        while (first := _first(order)) is not None:
            uid, deleted_at = first
            kept = deleted.get(uid)
            current = kept is not None and kept.deleted_at == deleted_at
            if current and len(deleted) <= TOMBSTONES_KEPT:
                break
            order = rest(order)
            if kept is not None and current:
                deleted, tally = deleted.remove(uid), tally.changed(stone_item, uid, kept, None)
        return self.but(deleted=deleted, deleted_order=order, tally=tally)

    def _change_in(
        self, key: ResourceKey, position: Position, alive: bool
    ) -> tuple[HashTrieMap[ResourceKey, Position], Tally]:
        """`changed_in` and the tally after a change of `key`."""
        changed, tally = self.changed_in, self.tally
        for container in containers(key):
            before, after = changed.get(container), position if alive or container != key else None
            if after is not None:
                changed = changed.insert(container, after)
            elif before is not None:
                changed = changed.remove(container)
            tally = tally.changed(change_item, container, before, after)
        return changed, tally


TABLES: Mapping[str, type[tuple[Any, ...]]] = {
    "principals": Principal,
    "policies": ManagedPolicy,
    "accounts": Tenant,
    "shares": Sharing,
    "quotas": QuotaValue,
    "authorities": Authority,
    "certificates": Certificate,
}
"""The state's small tables, each a map of a key (text, or a tuple of texts) to a tuple of plain values; changed by
`with_entry` alone. Fingerprint and checkpoint cover whatever is listed here."""

_FIELDS = tuple(each.name for each in fields(State))
_VALUES = attrgetter(*_FIELDS)
_PUT: Mapping[str, Callable[[State, Any], None]] = {name: getattr(State, name).__set__ for name in _FIELDS}
"""What fills each field of a state in the making."""


def state_hash(state: State) -> str:
    """A hash of all but the secrets; equal in every role at equal positions and level (I4). Costs O(1)."""
    head = "/".join(map(str, (state.position, state.time_us, state.level, *state.lineage, ""))).encode()
    return hashlib.sha256(head + state.fingerprint.to_bytes(FINGERPRINT_BYTES, "big")).hexdigest()


def computed_fingerprint(state: State) -> int:
    """The fingerprint made anew from every item: what `State.fingerprint` must be. For checks; costs O(state)."""
    total = sum(resource_item(key, resource) for key, resource in state.resources.items())
    total += sum(change_item(key, position) for key, position in state.changed_in.items())
    total += sum(stone_item(uid, stone) for uid, stone in state.deleted.items())
    total += sum(token_item(digest, entry) for digest, entry in state.tokens.items())
    total += sum(entry_item((table, key), entry) for table in TABLES for key, entry in getattr(state, table).items())
    return total & FINGERPRINT_MASK


def _first(queue: Queue[_T]) -> _T | None:
    # Not by an iterator: that of rpds turns the whole queue round for it. (Its stubs say that `peek` is a value.)
    return cast("Any", queue).peek() if queue else None


def rest(queue: Queue[_T]) -> Queue[_T]:
    """The queue without its first. (The stubs of rpds say that dequeue takes a value; it takes none.)"""
    return cast("Queue[_T]", cast("Any", queue).dequeue())


def targets_of(resource: Resource) -> set[ResourceKey]:
    """What the resource refers to hard, its mesh aside."""
    return hard_targets(resource.key, resource.spec)
