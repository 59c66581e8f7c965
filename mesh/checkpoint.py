"""A state as plain documents and back: what a checkpoint holds. Pure; bytes, sealing and signing are eventlog's.

    config   [format, position, time_us, level, lineage, fingerprint, resources, changed_in, deleted, tokens, tables]
        resources    [packed resource, …]                       by key; `mesh.state.pack`
        changed_in   [[key, position], …]                       by key
        deleted      [[uid, position, key, version] | [uid, position], …]
        tokens       [[digest, position, body, time_us, answer] | [digest, position], …]
                     answer: None, a packed resource, or the index of one in `resources`
        tables       {name: [[key, entry], …]}                  the small ones (`mesh.state.TABLES`), by key
    secrets  [format, access keys as maps, authority keys]      by id and by root; for roles that open secrets
                     the last is left out where there are none, since older builds do not know it

The format is 2; or 1, which older builds read too, where all tables are empty: `tables` is then left out.

`deleted` and `tokens` are in the order in which they will be forgotten; a short entry is a place in that order whose
owner has been replaced or forgotten since. Indexes (`of_mesh`, `referrers`) are made anew. Folding on from the state
that comes back gives the same states, to the last field, as folding on from the one that went in: nothing may be left
out here that a later event could look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from rpds import HashTrieMap, HashTrieSet, Queue

from mesh.certificates import AuthorityKey
from mesh.errors import Damaged
from mesh.fingerprint import FINGERPRINT_BYTES, Tally
from mesh.frozen import freeze
from mesh.kinds import ResourceKey
from mesh.position import Position
from mesh.principals import AccessKey
from mesh.state import (
    TABLES,
    PackedResource,
    Resource,
    State,
    TokenEntry,
    Tombstone,
    computed_fingerprint,
    pack,
    targets_of,
    unpack,
)

FORMAT = 2
_PLAIN_FORMAT = 1
"""Without tables."""
_K = TypeVar("_K")


class Documents(NamedTuple):
    """A state in two parts: what every role may open, and what only the API role may."""

    config: list[Any]
    secrets: list[Any]


def to_documents(state: State) -> Documents:
    """Plain values only: lists, maps, strings, bytes, integers. Costs O(state); the state may be used meanwhile."""
    resources = [state.resources[key] for key in sorted(state.resources)]
    index_of = {resource.mark: index for index, resource in enumerate(resources)}
    tables = {table: [list(each) for each in sorted(getattr(state, table).items())] for table in TABLES}
    tables = {table: entries for table, entries in tables.items() if entries}
    form = FORMAT if tables else _PLAIN_FORMAT
    config = [
        form,
        list(state.position),
        state.time_us,
        state.level,
        [list(base) for base in state.lineage],
        state.fingerprint.to_bytes(FINGERPRINT_BYTES, "big"),
        [pack(resource) for resource in resources],
        [[list(key), list(state.changed_in[key])] for key in sorted(state.changed_in)],
        [_stone(uid, position, state.deleted.get(uid)) for uid, position in state.deleted_order],
        [_token(digest, position, state.tokens.get(digest), index_of) for digest, position in state.token_order],
    ]
    if tables:
        config.append(tables)
    secrets: list[Any] = [form, [_access_key(state.access_keys[key]) for key in sorted(state.access_keys)]]
    if state.authority_keys:
        secrets.append([list(state.authority_keys[root]) for root in sorted(state.authority_keys)])
    return Documents(config, secrets)


def from_documents(config: Any, secrets: Any | None, *, verify: bool = True) -> State:
    """The state of which these are the documents; without `secrets`, as a role has it that opens none.

    `verify` makes the fingerprint anew from every item and compares, which costs more than all the rest: leave it out
    only for documents that are authenticated and were verified once. Damaged if they are no such documents.
    """
    try:
        state = _state(config)
        if secrets is not None:
            state = state.but(**_opened(secrets))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as failure:
        raise Damaged(
            "A checkpoint opens, but this build cannot read the state in it: run a newer build, or an older checkpoint"
        ) from failure
    if verify and computed_fingerprint(state) != state.fingerprint:
        raise Damaged(f"The checkpoint's state at {state.position} does not add up: use an older checkpoint")
    return state


def _state(config: Any) -> State:
    form, position, time_us, level, lineage, fingerprint, packed, changed, deleted, tokens, *tables = config
    _check_format(form)
    if (form == FORMAT) is not bool(tables):
        raise ValueError("tables come with format 2, and only with it")
    resources = [unpack(text) for text in packed]
    of_mesh, referrers = _indexes(resources)
    stones, stone_order = _stones(deleted)
    entries, token_order = _tokens(tokens, resources)
    return State(
        position=Position(*position),
        time_us=time_us,
        level=level,
        lineage=tuple(Position(*base) for base in lineage),
        resources=HashTrieMap({resource.key: resource for resource in resources}),
        of_mesh=of_mesh,
        referrers=referrers,
        changed_in=HashTrieMap({ResourceKey(*key): Position(*at) for key, at in changed}),
        deleted=stones,
        deleted_order=stone_order,
        tokens=entries,
        token_order=token_order,
        tally=Tally(int.from_bytes(fingerprint, "big")),
        **_tables(*tables),
    )


def _tables(tables: Mapping[str, Iterable[Any]] = MappingProxyType({})) -> dict[str, HashTrieMap[Any, Any]]:
    return {
        table: HashTrieMap({freeze(key): TABLES[table](*freeze(entry)) for key, entry in entries})
        for table, entries in tables.items()
    }


def _stone(uid: str, position: Position, stone: Tombstone | None) -> list[Any]:
    if stone is None or stone.deleted_at != position:
        return [uid, list(position)]
    return [uid, list(position), list(stone.key), stone.version]


def _stones(deleted: Iterable[Sequence[Any]]) -> tuple[HashTrieMap[str, Tombstone], Queue[tuple[str, Position]]]:
    stones: dict[str, Tombstone] = {}
    order: list[tuple[str, Position]] = []
    for uid, at, *rest in deleted:
        position = Position(*at)
        order.append((uid, position))
        if rest:
            key, version = rest
            stones[uid] = Tombstone(ResourceKey(*key), version, position)
    return HashTrieMap(stones), Queue(order)


def _token(
    digest: bytes, position: Position, entry: TokenEntry | None, index_of: dict[tuple[str, int, Position], int]
) -> list[Any]:
    if entry is None or entry.position != position:
        return [digest, list(position)]
    return [digest, list(position), entry.body, entry.time_us, _answer(entry.kept, index_of)]


def _answer(
    kept: Resource | PackedResource | None, index_of: dict[tuple[str, int, Position], int]
) -> int | bytes | None:
    if kept is None:
        return None
    if isinstance(kept, PackedResource):
        return kept.text
    index = index_of.get(kept.mark)
    return pack(kept) if index is None else index


def _tokens(
    tokens: Iterable[Sequence[Any]], resources: Sequence[Resource]
) -> tuple[HashTrieMap[bytes, TokenEntry], Queue[tuple[bytes, Position]]]:
    entries: dict[bytes, TokenEntry] = {}
    order: list[tuple[bytes, Position]] = []
    for digest, at, *rest in tokens:
        position = Position(*at)
        order.append((digest, position))
        if rest:
            body, time_us, answer = rest
            entries[digest] = TokenEntry(body, position, time_us, _kept(answer, resources))
    return HashTrieMap(entries), Queue(order)


def _kept(answer: Any, resources: Sequence[Resource]) -> Resource | PackedResource | None:
    if answer is None:
        return None
    return resources[answer] if isinstance(answer, int) else PackedResource(bytes(answer))


def _indexes(
    resources: Iterable[Resource],
) -> tuple[HashTrieMap[tuple[str, str], HashTrieSet[ResourceKey]], HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]]]:
    of_mesh: dict[tuple[str, str], list[ResourceKey]] = {}
    referrers: dict[ResourceKey, list[ResourceKey]] = {}
    for resource in resources:
        key = resource.key
        of_mesh.setdefault((key.account, key.mesh), []).append(key)
        for target in targets_of(resource):
            referrers.setdefault(target, []).append(key)
    return HashTrieMap(dict(_sets(of_mesh))), HashTrieMap(dict(_sets(referrers)))


def _sets(lists: dict[_K, list[ResourceKey]]) -> Iterator[tuple[_K, HashTrieSet[ResourceKey]]]:
    for name, keys in lists.items():
        yield name, HashTrieSet(keys)


def _access_key(key: AccessKey) -> dict[str, Any]:
    document = key._asdict()
    if key.used_us is None:  # older builds do not know it
        del document["used_us"]
    return document


def _opened(secrets: Any) -> dict[str, HashTrieMap[str, Any]]:
    form, keys, *authority_keys = secrets
    _check_format(form)
    found = [AuthorityKey(*key) for each in authority_keys for key in each]
    return {
        "access_keys": HashTrieMap({key["access_key_id"]: AccessKey(**key) for key in keys}),
        "authority_keys": HashTrieMap({key.root: key for key in found}),
    }


def _check_format(form: Any) -> None:
    if form not in (_PLAIN_FORMAT, FORMAT):
        raise ValueError(f"documents of format {form!r}")
