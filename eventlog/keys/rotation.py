"""Rotation: new data keys for what is written from now on, and another key-encryption key around those that exist.

    draw      a new data key of a class, wrapped as its class is wrapped now, written create-only
    rewrap    every data key unwrapped and wrapped anew, proven by unwrapping once more, written on its own revision

Records are never touched. Every step may be interrupted and repeated, by any number of servers at once: a data key is
whole before and after each write, and what is done already is left alone. Old data keys stay for as long as there is
history under them; an old key-encryption key for as long as `survey` finds a data key under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eventlog.driver import Committed, Entry, LogDriver
from eventlog.keys.file import FileKeyProvider
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider, WrappedKey, members_of
from eventlog.keys.wrapping import (
    WrappedDataKey,
    draw_data_key,
    parse_wrapped,
    unwrap_data_key,
    wrap_data_key,
)
from eventlog.records import KeyClass
from eventlog.sealing import KEY_BYTES, DataKey
from mesh.errors import BadRequest, Damaged, IntegrityError, MeshlogError, MissingKey, NoQuorum, NotFound
from runtime.clock import Clock, Entropy
from runtime.limits import KEKS_TOLD_MAX, KEY_WRITE_TRIES

Providers = Mapping[KeyClass, KeyProvider]
"""By the class of key-encryption key."""


_GONE = (
    "This server has it in memory, but it has gone from etcd, and nobody who starts anew can read what it sealed: run "
    "`meshlog keys rewrap`, which writes it again"
)


class KeyRow(NamedTuple):
    """One data key as stored. `sealing`: new records of its class are sealed with it. `problem`: it does not open."""

    key_id: str
    key_class: KeyClass
    created_us: int
    scheme: str
    kek_id: str
    sealing: bool
    problem: str | None = None


class ProviderRow(NamedTuple):
    """One provider of a class. `current`: the key that it wraps with now, if it can be asked (`problem` if not).

    `unused`: keys in its file that wrap no data key and are not the current one.
    """

    key_class: KeyClass
    scheme: str
    place: str
    first: bool
    current: str | None
    problem: str | None
    unused: tuple[str, ...] = ()


class Survey(NamedTuple):
    """Every data key, every provider."""

    keys: tuple[KeyRow, ...]
    providers: tuple[ProviderRow, ...]


class Target(NamedTuple):
    """What to wrap with: a provider, and of a file which of its keys."""

    provider: KeyProvider
    kek_id: str

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        if isinstance(self.provider, FileKeyProvider):
            return await self.provider.wrap_with(self.kek_id, material, context)
        return await self.provider.wrap(material, context)

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        return await self.provider.unwrap(wrapped, context)

    @property
    def scheme(self) -> str:
        return self.provider.scheme

    @property
    def place(self) -> str:
        return self.provider.place


class KeyRotation:
    """Rotation of one log's keys by one server, which has `providers`."""

    def __init__(
        self, driver: LogDriver, keyring: Keyring, providers: Providers, clock: Clock, entropy: Entropy
    ) -> None:
        self._driver = driver
        self._keyring = keyring
        self._providers = providers
        self._clock = clock
        self._entropy = entropy

    async def survey(self, log_id: str) -> Survey:
        """Look at every data key and ask every provider; only the store's own failures are raised."""
        stored = await self._driver.list_data_keys()
        rows = [await self._row(key_id, entry, log_id) for key_id, entry in stored.items()]
        rows += [
            KeyRow(key.key_id, key.key_class, key.created_us, "", "", False, _GONE)
            for key in self._keyring.loaded.values()
            if key.key_id not in stored
        ]
        newest = {row.key_class: row for row in sorted(rows, key=lambda row: (row.created_us, row.key_id))}
        used = {(row.scheme, row.kek_id) for row in rows}
        found = [
            await _ask(key_class, each, index == 0, used)
            for key_class, provider in self._providers.items()
            if key_class.wrapped_by is key_class
            for index, each in enumerate(members_of(provider))
        ]
        return Survey(tuple(row._replace(sealing=newest[row.key_class] is row) for row in rows), tuple(found))

    async def draw(self, log_id: str, key_class: KeyClass) -> str:
        """A new data key that seals from now on; its id. It is wrapped as the newest of its class is."""
        stored = await self._driver.list_data_keys()
        present = [parse_wrapped(key_id, entry.value) for key_id, entry in stored.items()]
        mine = [entry for entry in present if entry.key_class is key_class]
        # Later than all others, whatever this server's clock says: the newest one seals.
        created_us = max([self._clock.now_us(), *(entry.created_us + 1 for entry in mine)])
        key = draw_data_key(key_class, created_us, self._entropy)
        newest = max(mine, key=lambda entry: entry.created_us, default=None)
        await self._put_new(key, await wrap_data_key(key, log_id, self._like(newest, key_class)))
        return key.key_id

    async def choose(self, key_class: KeyClass, to: str | None) -> Target:
        """What `to` names: a key-encryption key's id, or a scheme; None: the current key of the first provider.

        BadRequest lists what there is.
        """
        known: list[str] = []
        for each in members_of(self._provider(key_class)):
            held = each.held() if isinstance(each, FileKeyProvider) else (await current_kek(each),)
            if to is None or to in (each.scheme, held[0]):
                return Target(each, held[0])
            if to in held:
                return Target(each, to)
            known += [each.scheme, *held]
        raise BadRequest(
            f"to: class '{key_class.wrapped_by.value}' has no key-encryption key '{str(to)[:200]}' on this server; "
            f"there are {', '.join(known)}. Add it to every host's key file first, with `meshlog keys import`"
        )

    async def rewrap(self, log_id: str, key_id: str, target: Target) -> bool:
        """Wrap one data key by `target`; False if it is already. It stays as it is if anything goes wrong.

        One that has gone from the store, was changed there, or does not open any more since its key-encryption key is
        lost, is written again if this server still has it in memory.
        """
        for _ in range(KEY_WRITE_TRIES):
            entry = await self._driver.read_entry(f"datakey/{key_id}")
            if entry is None:
                return await self._bring_back(log_id, key_id, target)
            try:
                key = await unwrap_data_key(key_id, entry.value, log_id, self._providers)
                present = parse_wrapped(key_id, entry.value)
                if (present.scheme, present.wrapped.kek_id) == (target.scheme, target.kek_id):
                    return False
            except IntegrityError:
                key = self._keyring.loaded.get(key_id)
                if key is None:
                    raise
            if key is None:
                raise MissingKey(f"This server is not given what opens data key {key_id}: ask an API server")
            value = await _wrap_proven(key, log_id, target)
            if isinstance(await self._driver.put_data_key(key_id, value, entry.mod_revision), Committed):
                return True
            # Another server was first, or the answer was lost: what is stored now decides.
        raise NoQuorum(f"Data key {key_id} could not be re-wrapped, since etcd gave no certain answer: try again")

    async def _bring_back(self, log_id: str, key_id: str, target: Target) -> bool:
        key = self._keyring.loaded.get(key_id)
        if key is None:
            raise NotFound(f"There is no data key {key_id}: see `meshlog keys status`")
        await self._put_new(key, await _wrap_proven(key, log_id, target))
        return True

    async def _put_new(self, key: DataKey, value: bytes) -> None:
        if isinstance(await self._driver.put_data_key(key.key_id, value, 0), Committed):
            return
        landed = await self._driver.read_entry(f"datakey/{key.key_id}")
        if landed is None or landed.value != value:
            raise NoQuorum(f"etcd gave no certain answer to the new data key {key.key_id}: try again")

    def _like(self, newest: WrappedDataKey | None, key_class: KeyClass) -> KeyProvider:
        """The provider, and of a file the key, by which the newest data key of the class is wrapped."""
        provider = self._provider(key_class)
        for each in members_of(provider) if newest else ():
            if newest and each.scheme == newest.scheme:
                if not isinstance(each, FileKeyProvider):
                    return each
                if newest.wrapped.kek_id in each.held():
                    return Target(each, newest.wrapped.kek_id)
        return provider

    def _provider(self, key_class: KeyClass) -> KeyProvider:
        provider = self._providers.get(key_class.wrapped_by)
        if provider is None:
            raise MissingKey(f"This server is not given key-encryption keys of class '{key_class.wrapped_by.value}'")
        return provider

    async def _row(self, key_id: str, entry: Entry, log_id: str) -> KeyRow:
        try:
            parsed = parse_wrapped(key_id, entry.value)
        except Damaged as damaged:
            class_of = next((each for each in KeyClass if key_id.startswith(f"{each.value}-")), KeyClass.CONFIG)
            return KeyRow(key_id, class_of, 0, "", "", False, damaged.message)
        row = KeyRow(key_id, parsed.key_class, parsed.created_us, parsed.scheme, parsed.wrapped.kek_id, False)
        try:
            await unwrap_data_key(key_id, entry.value, log_id, self._providers)
        except MeshlogError as failure:
            return row._replace(problem=failure.message)
        return row


async def _wrap_proven(key: DataKey, log_id: str, target: Target) -> bytes:
    """Wrapped by `target`, and unwrapped again: what wraps but cannot unwrap would lose the key."""
    value = await wrap_data_key(key, log_id, target)
    if await unwrap_data_key(key.key_id, value, log_id, {key.key_class.wrapped_by: target}) != key:
        raise Damaged(f"{target.place} does not give back what it wraps: data key {key.key_id} is left as it is")
    return value


def holdings(providers: Providers) -> tuple[str, ...]:
    """What a member tells the others that it could unwrap: names as `held_as` makes them, without asking anybody."""
    found: list[str] = []
    for key_class, provider in providers.items():
        for each in members_of(provider):
            try:
                keks = each.held() if isinstance(each, FileKeyProvider) else ("",)
            except MeshlogError:
                continue  # its file is gone or unsound: it holds nothing
            found += [held_as(key_class, each.scheme, kek_id) for kek_id in keks]
    return tuple(found[:KEKS_TOLD_MAX])


def held_as(key_class: KeyClass, scheme: str, kek_id: str) -> str:
    """`config:file:kek-1`; of a key service only its kind, since access to its keys is not ours to know."""
    return f"{key_class.wrapped_by.value}:{scheme}" + (f":{kek_id}" if scheme == FileKeyProvider.scheme else "")


async def current_kek(provider: KeyProvider) -> str:
    """The id of the key that a provider wraps with now, found by wrapping nothing of worth."""
    return (await provider.wrap(bytes(KEY_BYTES), b"meshlog/probe")).kek_id


async def _ask(key_class: KeyClass, provider: KeyProvider, first: bool, used: set[tuple[str, str]]) -> ProviderRow:
    row = ProviderRow(key_class, provider.scheme, provider.place, first, None, None)
    try:
        current = await current_kek(provider)
        held: Sequence[str] = provider.held() if isinstance(provider, FileKeyProvider) else ()
    except MeshlogError as failure:
        return row._replace(problem=failure.message)
    unused = tuple(kek for kek in held if kek != current and (provider.scheme, kek) not in used)
    return row._replace(current=current, unused=unused)
