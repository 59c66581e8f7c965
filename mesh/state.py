"""What the log adds up to: an immutable, persistent value. `evolve` makes the next one; nothing else does.

A new state shares every unchanged part with the one before it, so keeping many (a rollback's target, the answer to
a repeated token) costs only what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.frozen import Frozen, thaw
from mesh.kinds import ResourceKey
from mesh.position import ORIGIN, Position


@dataclass(frozen=True, slots=True)
class Resource:
    """One App Mesh resource as of some position. Times are log times. `owner` is the account that created it.

    `changed_at` is the position of the event that last changed it (provenance).
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


class Tombstone(NamedTuple):
    """What is remembered of a deleted resource: a revival regains `uid`, and `version` never repeats for a uid."""

    uid: str
    version: int
    deleted_at: Position


class TokenEntry(NamedTuple):
    """The answer kept for a repeated token: the resource as the first call left it (None where there is none)."""

    body: bytes
    position: Position
    time_us: int
    outcome: Resource | None


class AccessKey(NamedTuple):
    """A SigV4 key pair that Meshlog issued. `principal` is an ARN."""

    access_key_id: str
    secret: str
    account: str
    principal: str
    admin: bool


@dataclass(frozen=True, slots=True)
class State:
    """The whole cluster at `position`.

    `resources` is the truth; `of_mesh` (keys by mesh) and `referrers` (hard references, turned round) are indexes
    of it. `access_keys` is empty in a role that cannot open secrets, and is no part of the state hash.
    """

    position: Position = ORIGIN
    time_us: int = 0
    level: int = 1
    resources: HashTrieMap[ResourceKey, Resource] = field(default_factory=HashTrieMap)
    of_mesh: HashTrieMap[tuple[str, str], HashTrieSet[ResourceKey]] = field(default_factory=HashTrieMap)
    referrers: HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]] = field(default_factory=HashTrieMap)
    deleted: HashTrieMap[ResourceKey, Tombstone] = field(default_factory=HashTrieMap)
    tokens: HashTrieMap[bytes, TokenEntry] = field(default_factory=HashTrieMap)
    token_order: Queue[bytes] = field(default_factory=Queue)
    access_keys: HashTrieMap[str, AccessKey] = field(default_factory=HashTrieMap)

    def get(self, key: ResourceKey) -> Resource | None:
        return self.resources.get(key)

    def in_mesh(self, account: str, mesh: str, kind: str | None = None) -> Iterator[Resource]:
        """The mesh's resources (the mesh itself among them), of one kind or all, sorted by key."""
        keys = self.of_mesh.get((account, mesh)) or HashTrieSet()
        for key in sorted(keys):
            if kind is None or key.kind == kind:
                yield self.resources[key]


@lru_cache(maxsize=65_536)
def _digest(resource: Resource) -> bytes:
    shape = [
        list(resource.key), thaw(resource.spec), thaw(resource.tags), resource.uid, resource.version, resource.owner,
        resource.created_us, resource.updated_us, list(resource.changed_at),
    ]
    return hashlib.sha256(json.dumps(shape, sort_keys=True, separators=(",", ":")).encode()).digest()


def state_hash(state: State) -> str:
    """A hash of everything that configuration depends on; equal in every role at equal positions and level (I4)."""
    whole = hashlib.sha256(f"{state.position}/{state.time_us}/{state.level}".encode())
    for key in sorted(state.resources):
        whole.update(_digest(state.resources[key]))
    for key in sorted(state.deleted):
        stone = state.deleted[key]
        whole.update(f"{key}/{stone.uid}/{stone.version}/{stone.deleted_at}".encode())
    return whole.hexdigest()
