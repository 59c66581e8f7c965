"""What the registry's log adds up to: namespaces, services and the instances in them. An immutable, persistent value.

The registry speaks the AWS Cloud Map API and has a log of its own, beside that of the meshes: it is never rolled back,
and an instance that comes and goes moves no mesh. `mesh.registry.evolve` makes the next state; nothing else does.
Everything changes through the `with_…` methods, which keep the indexes and the fingerprint (`mesh.fingerprint`) true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.fingerprint import FINGERPRINT_BYTES, FINGERPRINT_MASK, Tally, entry_item
from mesh.frozen import Frozen, freeze
from mesh.limits import REGISTRY_OPERATIONS_KEPT, REGISTRY_TOKENS_KEPT, TOKEN_WINDOW_US
from mesh.position import ORIGIN, Position
from mesh.state import rest

_K = TypeVar("_K")

NO_FACTS: Frozen = freeze({})
HERE = ""
"""The source of what is registered with us; anything else names whom it was copied from."""


class Health(StrEnum):
    """What is known of an instance; without a check, HEALTHY."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


class NamespaceKey(NamedTuple):
    """Names a namespace: names are unique in an account, as at Cloud Map."""

    account: str
    namespace: str


class ServiceKey(NamedTuple):
    """Names a service by what specifications of virtual nodes say: the names, not the ids."""

    account: str
    namespace: str
    service: str

    @property
    def home(self) -> NamespaceKey:
        """Its namespace."""
        return NamespaceKey(self.account, self.namespace)


class Namespace(NamedTuple):
    """One namespace. `type` is HTTP, DNS_PRIVATE or DNS_PUBLIC; `properties` are kept as given. Times are log times."""

    key: NamespaceKey
    id: str
    type: str
    description: str | None
    properties: Frozen
    tags: Frozen
    creator_request_id: str
    created_us: int


class Service(NamedTuple):
    """One service. `spec` has Type, DnsConfig, HealthCheckConfig and HealthCheckCustomConfig as given.

    `revision` rises by one with each change of its instances, and is above any that a service of that name had before.
    `source` is `HERE`, or names what its instances are copied from: then nobody registers any here.
    """

    key: ServiceKey
    id: str
    namespace_id: str
    description: str | None
    spec: Frozen
    attributes: Frozen
    tags: Frozen
    creator_request_id: str
    created_us: int
    revision: int
    source: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service, with Cloud Map's attributes and the user's own.

    `health` is what counts: UNHEALTHY if that is what was `reported` of it, or if it owes heartbeats and is `silent`.
    `registered_us` and `registered_by` are of its (last) registration, `health_us` is the log time since when `health`
    is what it is, `changed_at` the position of the event that last changed anything.
    """

    id: str
    attributes: Frozen
    health: Health
    creator_request_id: str = ""
    registered_us: int = 0
    registered_by: str = ""
    health_us: int = 0
    changed_at: Position = ORIGIN
    reported: Health = Health.HEALTHY
    silent: bool = False

    def but(self, **changes: Any) -> Instance:
        """The instance with these fields changed, and its health made of them."""
        told: dict[str, Any] = {"reported": self.reported, "silent": self.silent, **changes}
        health = Health.UNHEALTHY if told["silent"] else told["reported"]
        return replace(self, **told, health=health)

    def facts(self) -> tuple[Any, ...]:
        """All of it, as plain values."""
        return (
            self.id,
            self.attributes,
            self.health.value,
            self.creator_request_id,
            self.registered_us,
            self.registered_by,
            self.health_us,
            tuple(self.changed_at),
            self.reported.value,
            self.silent,
        )

    def __hash__(self) -> int:
        return hash((self.id, self.changed_at))


class Operation(NamedTuple):
    """A change that Cloud Map would take its time for; here it is done when it is answered. `targets` by type."""

    id: str
    account: str
    type: str
    targets: Frozen
    created_us: int


class TokenEntry(NamedTuple):
    """The answer kept for a repeated call: `outcome` as the first one's event left it."""

    body: bytes
    position: Position
    time_us: int
    outcome: Frozen


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The whole registry at `position` of its own log.

    `namespaces`, `services` and `instances` (by service, then id; never an empty map) are the truth; `namespace_ids`,
    `service_ids`, `inside` (services by namespace) and `counts` (instances by namespace) are indexes of them.
    `operations` and `tokens` are bounded.
    """

    position: Position = ORIGIN
    time_us: int = 0
    level: int = 1
    lineage: tuple[Position, ...] = ()
    namespaces: HashTrieMap[NamespaceKey, Namespace] = field(default_factory=HashTrieMap)
    services: HashTrieMap[ServiceKey, Service] = field(default_factory=HashTrieMap)
    instances: HashTrieMap[ServiceKey, HashTrieMap[str, Instance]] = field(default_factory=HashTrieMap)
    namespace_ids: HashTrieMap[str, NamespaceKey] = field(default_factory=HashTrieMap)
    service_ids: HashTrieMap[str, ServiceKey] = field(default_factory=HashTrieMap)
    inside: HashTrieMap[NamespaceKey, HashTrieSet[ServiceKey]] = field(default_factory=HashTrieMap)
    counts: HashTrieMap[NamespaceKey, int] = field(default_factory=HashTrieMap)
    operations: HashTrieMap[str, Operation] = field(default_factory=HashTrieMap)
    operation_order: Queue[str] = field(default_factory=Queue)
    tokens: HashTrieMap[bytes, TokenEntry] = field(default_factory=HashTrieMap)
    token_order: Queue[tuple[bytes, Position]] = field(default_factory=Queue)
    tally: Tally = field(default_factory=Tally)

    def discovered(self, key: ServiceKey) -> Sequence[Instance]:
        """The service's instances, sorted by id; () where there is no such service."""
        found = self.instances.get(key)
        return tuple(found[each] for each in sorted(found)) if found else ()

    def instance(self, key: ServiceKey, instance_id: str) -> Instance | None:
        """One instance; None where there is no such, or no such service."""
        found = self.instances.get(key)
        return found.get(instance_id) if found else None

    def services_in(self, namespace: NamespaceKey) -> list[Service]:
        """The namespace's services, sorted by name."""
        return [self.services[key] for key in sorted(self.inside.get(namespace) or ())]

    def all_instances(self) -> Iterator[tuple[ServiceKey, Instance]]:
        """Every instance with its service, in no order."""
        for key, found in self.instances.items():
            for instance in found.values():
                yield key, instance

    def at(self, number: int) -> Position:
        """The position of that number on this timeline."""
        epoch = next((base.epoch for base in self.lineage if number <= base.position), self.position.epoch)
        return Position(epoch, number)

    @property
    def fingerprint(self) -> int:
        """The sum over all items of `mesh.fingerprint`."""
        return self.tally.total

    def but(self, **changes: Any) -> RegistryState:
        """The state with these fields changed."""
        return replace(self, **changes)

    def with_namespace(self, key: NamespaceKey, namespace: Namespace | None) -> RegistryState:
        """The state with that namespace put, replaced or, by None, taken out."""
        before = self.namespaces.get(key)
        return self.but(
            namespaces=_with(self.namespaces, key, namespace),
            namespace_ids=_renamed(self.namespace_ids, before, namespace),
            tally=self.tally.changed(entry_item, ("namespaces", key), before, namespace),
        )

    def with_service(self, key: ServiceKey, service: Service | None) -> RegistryState:
        """The state with that service put, replaced or, by None, taken out (it must have no instances then)."""
        before = self.services.get(key)
        there = self.inside.get(key.home) or HashTrieSet()
        there = there.insert(key) if service is not None else there.discard(key)
        return self.but(
            services=_with(self.services, key, service),
            service_ids=_renamed(self.service_ids, before, service),
            inside=_with(self.inside, key.home, there or None),
            tally=self.tally.changed(entry_item, ("services", key), before, service),
        )

    def with_instance(self, key: ServiceKey, instance_id: str, instance: Instance | None) -> RegistryState:
        """The state with that instance put, replaced or, by None, taken out. The service's revision is not moved."""
        found = self.instances.get(key) or HashTrieMap()
        before = found.get(instance_id)
        found = _with(found, instance_id, instance)
        count = (self.counts.get(key.home) or 0) + (instance is not None) - (before is not None)
        return self.but(
            instances=_with(self.instances, key, found or None),
            counts=_with(self.counts, key.home, count or None),
            tally=self.tally.changed(instance_item, (key, instance_id), before, instance),
        )

    def with_operation(self, operation: Operation) -> RegistryState:
        """The state that remembers an operation, and forgets the eldest beyond `REGISTRY_OPERATIONS_KEPT`."""
        tally = self.tally.changed(entry_item, ("operations", operation.id), None, operation)
        operations, order = self.operations.insert(operation.id, operation), self.operation_order.enqueue(operation.id)
        while len(operations) > REGISTRY_OPERATIONS_KEPT:
            eldest = _peek(order)
            order = rest(order)
            tally = tally.changed(entry_item, ("operations", eldest), operations[eldest], None)
            operations = operations.remove(eldest)
        return self.but(operations=operations, operation_order=order, tally=tally)

    def with_token(self, digest: bytes, entry: TokenEntry) -> RegistryState:
        """The state that remembers an answer, and forgets those out of the window (by count and by log time)."""
        tokens, order = self.tokens, self.token_order.enqueue((digest, entry.position))
        tally = self.tally.changed(token_item, digest, tokens.get(digest), entry)
        tokens = tokens.insert(digest, entry)
        while order:
            eldest, position = _peek(order)
            kept = tokens.get(eldest)
            current = kept is not None and kept.position == position
            expired = kept is not None and kept.time_us + TOKEN_WINDOW_US < entry.time_us
            if current and not expired and len(tokens) <= REGISTRY_TOKENS_KEPT:
                break
            order = rest(order)
            if current:
                tokens, tally = tokens.remove(eldest), tally.changed(token_item, eldest, kept, None)
        return self.but(tokens=tokens, token_order=order, tally=tally)


def instance_item(place: tuple[ServiceKey, str], instance: Instance) -> int:
    """What the fingerprint counts for an instance."""
    return entry_item(("instances", place), instance.facts())


def token_item(digest: bytes, entry: TokenEntry) -> int:
    """What the fingerprint counts for a token."""
    told = (entry.body.hex(), entry.position, entry.time_us, entry.outcome)
    return entry_item(("tokens", digest.hex()), told)


def state_hash(state: RegistryState) -> str:
    """A hash of all of it; equal in every role at equal positions and level (I4)."""
    head = "/".join(map(str, ("registry", state.position, state.time_us, state.level, *state.lineage, ""))).encode()
    return hashlib.sha256(head + state.fingerprint.to_bytes(FINGERPRINT_BYTES, "big")).hexdigest()


def computed_fingerprint(state: RegistryState) -> int:
    """The fingerprint made anew from every item: what `fingerprint` must be. For checks; costs O(state)."""
    tables = {"namespaces": state.namespaces, "services": state.services, "operations": state.operations}
    total = sum(entry_item((name, key), entry) for name, table in tables.items() for key, entry in table.items())
    total += sum(instance_item((key, each.id), each) for key, each in state.all_instances())
    total += sum(token_item(digest, entry) for digest, entry in state.tokens.items())
    return total & FINGERPRINT_MASK


def _with(table: HashTrieMap[_K, Any], key: _K, entry: Any) -> HashTrieMap[_K, Any]:
    return table.insert(key, entry) if entry is not None else table.discard(key)


def _renamed(index: HashTrieMap[str, Any], before: Any, after: Any) -> HashTrieMap[str, Any]:
    if before is not None:
        index = index.discard(before.id)
    return index.insert(after.id, after.key) if after is not None else index


def _peek(queue: Queue[Any]) -> Any:
    # The stubs of rpds say that `peek` is a value; it is a method.
    peek: Any = queue.peek
    return peek()
