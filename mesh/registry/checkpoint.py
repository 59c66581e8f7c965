"""A registry state as plain documents and back: what a checkpoint of the registry's log holds. Pure.

    config   [format, position, time_us, level, lineage, fingerprint, namespaces, services, instances, operations,
              tokens]
        namespaces  [[field, …], …]                            by key, as `Namespace`, JSON as bytes each
        services    the same, as `Service`
        instances   [[service's index, facts, …], …]           by service and id, JSON as bytes each
        operations  [[field, …], …]                            in the order in which they will be forgotten
        tokens      [[digest, position, body, time_us, outcome] | [digest, position], …]   likewise
    secrets  [format]                                          nothing in a registry is a secret from projectors

As in `mesh.checkpoint`: folding on from what comes back gives the same states as folding on from what went in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.checkpoint import Documents
from mesh.errors import Damaged
from mesh.fingerprint import FINGERPRINT_BYTES, Tally
from mesh.frozen import freeze, thaw
from mesh.position import Position
from mesh.registry.state import (
    Health,
    Instance,
    Namespace,
    NamespaceKey,
    Operation,
    RegistryState,
    Service,
    ServiceKey,
    TokenEntry,
    computed_fingerprint,
)

FORMAT = 1
INSTANCE_FACTS = tuple(each.name for each in fields(Instance))
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


def to_documents(state: RegistryState) -> Documents:
    """Plain values only. Costs O(state); the state may be used meanwhile."""
    services = [state.services[key] for key in sorted(state.services)]
    config = [
        FORMAT,
        list(state.position),
        state.time_us,
        state.level,
        [list(base) for base in state.lineage],
        state.fingerprint.to_bytes(FINGERPRINT_BYTES, "big"),
        [_text(state.namespaces[key]) for key in sorted(state.namespaces)],
        [_text(service) for service in services],
        [
            [index, *(_text(each.facts()) for each in state.discovered(service.key))]
            for index, service in enumerate(services)
            if service.key in state.instances
        ],
        [_text(state.operations[each]) for each in state.operation_order],
        [_token(digest, position, state.tokens.get(digest)) for digest, position in state.token_order],
    ]
    return Documents(config, [FORMAT])


def from_documents(config: Any, secrets: Any | None = None, *, verify: bool = True) -> RegistryState:  # noqa: ARG001
    """The state of which these are the documents. `verify` makes the fingerprint anew and compares; else Damaged."""
    try:
        state = _state(config)
    except UNREADABLE as failure:
        raise Damaged(
            "A checkpoint of the registry opens, but this build cannot read the state in it: run a newer build, or an "
            "older checkpoint"
        ) from failure
    if verify and computed_fingerprint(state) != state.fingerprint:
        raise Damaged(f"The registry checkpoint's state at {state.position} does not add up: use an older checkpoint")
    return state


def _state(config: Any) -> RegistryState:
    form, position, time_us, level, lineage, fingerprint, namespaces, services, instances, operations, tokens = config
    if form != FORMAT:
        raise ValueError(f"documents of format {form!r}")
    all_namespaces = [_namespace(text) for text in namespaces]
    all_services = [_service(text) for text in services]
    all_operations = [Operation(*freeze(json.loads(text))) for text in operations]
    entries, token_order = _tokens(tokens)
    inside: dict[NamespaceKey, list[ServiceKey]] = {}
    for service in all_services:
        inside.setdefault(service.key.home, []).append(service.key)
    found = {all_services[index].key: _instances(texts) for index, *texts in instances}
    counts: Counter[NamespaceKey] = Counter()
    for key, each in found.items():
        counts[key.home] += len(each)
    return RegistryState(
        position=Position(*position),
        time_us=time_us,
        level=level,
        lineage=tuple(Position(*base) for base in lineage),
        namespaces=HashTrieMap({each.key: each for each in all_namespaces}),
        services=HashTrieMap({each.key: each for each in all_services}),
        instances=HashTrieMap(found),
        namespace_ids=HashTrieMap({each.id: each.key for each in all_namespaces}),
        service_ids=HashTrieMap({each.id: each.key for each in all_services}),
        counts=HashTrieMap(dict(counts)),
        inside=HashTrieMap({key: HashTrieSet(keys) for key, keys in inside.items()}),
        operations=HashTrieMap({each.id: each for each in all_operations}),
        operation_order=Queue([each.id for each in all_operations]),
        tokens=entries,
        token_order=token_order,
        tally=Tally(int.from_bytes(fingerprint, "big")),
    )


def _text(value: Any) -> bytes:
    return json.dumps(thaw(value), separators=(",", ":"), ensure_ascii=False).encode()


def _namespace(text: bytes) -> Namespace:
    key, *facts = freeze(json.loads(text))
    return Namespace(NamespaceKey(*key), *facts)


def _service(text: bytes) -> Service:
    key, *facts = freeze(json.loads(text))
    return Service(ServiceKey(*key), *facts)


def _instances(texts: Iterable[bytes]) -> HashTrieMap[str, Instance]:
    found = {}
    for text in texts:
        facts = dict(zip(INSTANCE_FACTS, freeze(json.loads(text)), strict=True))
        facts["health"], facts["reported"] = Health(facts["health"]), Health(facts["reported"])
        facts["changed_at"] = Position(*facts["changed_at"])
        found[facts["id"]] = Instance(**facts)
    return HashTrieMap(found)


def _token(digest: bytes, position: Position, entry: TokenEntry | None) -> list[Any]:
    if entry is None or entry.position != position:
        return [digest, list(position)]
    return [digest, list(position), entry.body, entry.time_us, thaw(entry.outcome)]


def _tokens(
    tokens: Iterable[Sequence[Any]],
) -> tuple[HashTrieMap[bytes, TokenEntry], Queue[tuple[bytes, Position]]]:
    entries: dict[bytes, TokenEntry] = {}
    order: list[tuple[bytes, Position]] = []
    for digest, at, *told in tokens:
        position = Position(*at)
        order.append((digest, position))
        if told:
            body, time_us, outcome = told
            entries[digest] = TokenEntry(body, position, time_us, freeze(outcome))
    return HashTrieMap(entries), Queue(order)
