"""Who lives: each process keeps a leased key `members/<role>/<id>`, and anybody may list them.

A record tells where a process is reached, in which zone, what it understands (its level) and what its clock says. The
cluster's level is the least of its members': nobody may emit above it. A process that died is gone when its lease is;
one that etcd cannot hear is not dead, so nothing here may act on an absence alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from cluster.etcd.values import RangeRead, RangeResult, prefix_end
from mesh.errors import Damaged, Unavailable
from runtime.clock import Clock
from runtime.limits import MEMBER_LEASE_S, MEMBER_RECORD_BYTES, MEMBER_RENEW_S, MEMBER_RETRY_S

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One live process. `address` is host:port; `wall_us` is its own clock when it last renewed.

    `peer`: where an API server takes batches of others, host:port; empty where it takes none. `reproduced`: the newest
    checkpoints whose states this process has come to by its own fold, `<epoch>.<position>:<state hash>`, separated by
    spaces.
    """

    role: str
    id: str
    zone: str
    address: str
    level: int
    build: str
    wall_us: int = 0
    keks: tuple[str, ...] = ()
    """The key-encryption keys that it has at hand, by name; never a key."""
    peer: str = ""
    reproduced: str = ""

    def document(self) -> dict[str, Any]:
        """As the API lists it."""
        return dataclasses.asdict(self)


class Store(Protocol):
    """What is used of `cluster.etcd.connection.EtcdConnection`."""

    async def range(self, read: RangeRead) -> RangeResult: ...

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int: ...

    async def lease_grant(self, ttl_s: int) -> int: ...

    async def lease_keepalive(self, lease: int) -> int: ...

    async def lease_revoke(self, lease: int) -> None: ...


def member_key(key_prefix: str, role: str, member_id: str) -> bytes:
    """Where a member's record is kept."""
    return f"{key_prefix}members/{role}/{member_id}".encode()


class Registration:
    """Keeps one member's record alive. `current` gives the record to publish, asked at each renewal."""

    def __init__(self, store: Store, key_prefix: str, current: Callable[[], Member], clock: Clock) -> None:
        self._store = store
        self._prefix = key_prefix
        self._current = current
        self._clock = clock
        self._lease = 0

    async def run(self) -> None:
        """Register and renew, for ever; etcd being away is waited out. Cancelled, it takes the record along."""
        try:
            while True:
                await self._clock.sleep(MEMBER_RENEW_S if await self.renew() else MEMBER_RETRY_S)
        finally:
            await self._withdraw()

    async def renew(self) -> bool:
        """One round: a lease if there is none (any more), then the record under it. False: to be tried again soon."""
        try:
            if self._lease and await self._store.lease_keepalive(self._lease) <= 0:
                self._lease = 0
            if not self._lease:
                self._lease = await self._store.lease_grant(MEMBER_LEASE_S)
            record = dataclasses.replace(self._current(), wall_us=self._clock.now_us())
            await self._store.put(member_key(self._prefix, record.role, record.id), _encode(record), self._lease)
        except Unavailable as error:
            log.warning("member not renewed", error=error.message)
            return False
        return True

    async def _withdraw(self) -> None:
        if not self._lease:
            return
        try:
            async with asyncio.timeout(MEMBER_RETRY_S):
                await self._store.lease_revoke(self._lease)
        except (Unavailable, TimeoutError):
            log.info("member left without saying so: its lease will end by itself")


async def list_members(store: Store, key_prefix: str, role: str | None = None) -> list[Member]:
    """All live members, or those of a role, ordered by role and id. NoQuorum; Damaged for a record not ours."""
    prefix = f"{key_prefix}members/{role}/" if role else f"{key_prefix}members/"
    found = await store.range(RangeRead(prefix.encode(), prefix_end(prefix.encode())))
    return [_decode(item.key, item.value) for item in found.items]


def cluster_level(members: Iterable[Member]) -> int | None:
    """The highest level that all of `members` understand; None if there are none to ask."""
    return min((member.level for member in members), default=None)


_TEXTS = ("role", "id", "zone", "address", "build", "peer", "reproduced")
_LATER: Mapping[str, Any] = {"peer": "", "reproduced": "", "keks": []}
"""What a record of an older build does not have."""


def _encode(member: Member) -> bytes:
    return json.dumps(dataclasses.asdict(member), separators=(",", ":")).encode()


def _decode(key: bytes, value: bytes) -> Member:
    """Fields that this build does not know are left aside: a newer one may have written it."""
    try:
        document: Any = json.loads(value) if len(value) <= MEMBER_RECORD_BYTES else None
        document = {**_LATER, **document}
        fields = {field.name: document[field.name] for field in dataclasses.fields(Member)}
    except (ValueError, TypeError, KeyError):
        fields = {}
    keks = fields.get("keks")
    listed = isinstance(keks, list) and all(isinstance(name, str) for name in keks)
    numbers = listed and all(type(fields.get(name)) is int for name in ("level", "wall_us"))
    if not numbers or not all(isinstance(fields.get(name), str) for name in _TEXTS):
        raise Damaged(
            f"The member record {key.decode(errors='replace')} is not one that Meshlog writes: "
            "find out who else writes under this prefix, and delete the key"
        )
    return Member(**fields | {"keks": tuple(fields["keks"])})
