"""The keyring: data keys of one log, unwrapped on demand and held in memory.

New ids may appear at any time while a log is followed (a rotation): whoever gets MissingKey calls `load` and tries once
more. A class without a provider is one that this role is not given; any other failure is raised, never passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from eventlog.driver import LogDriver
from eventlog.keys.provider import KeyProvider
from eventlog.keys.wrapping import unwrap_data_key, wrap_data_key
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from mesh.errors import MissingKey, WrongKey
from mesh.position import Position
from runtime.limits import KEY_PROBES_AT_ONCE


class Keyring:
    """Data keys by id. `providers` has the classes that this role may open: leave SECRETS out in a projector."""

    def __init__(self, driver: LogDriver, providers: Mapping[KeyClass, KeyProvider]) -> None:
        self._driver = driver
        self._providers = dict(providers)
        self._keys: dict[str, DataKey] = {}
        self._newest: dict[KeyClass, DataKey] = {}

    def opens(self, key_class: KeyClass) -> bool:
        """Whether this role is given keys of the class at all."""
        return key_class.wrapped_by in self._providers

    def find(self, key_id: str, position: Position) -> DataKey:
        """The data key of an id that was loaded; MissingKey naming the record otherwise."""
        key = self._keys.get(key_id)
        if key is None:
            raise MissingKey(
                f"Record {position} is sealed with data key {key_id}, which is not in the store (datakey/{key_id}) or "
                "not given to this role: restore it from the archive"
            )
        return key

    async def load(self, log_id: str) -> None:
        """Load what is new of the log's data keys, as far as this role may open them.

        Also the check at a start that a role's keys are the right ones: MissingKey, WrongKey and Damaged say which
        key, where it was looked for and what to do.
        """
        stored = await self._driver.list_data_keys()
        new = [(key_id, entry.value) for key_id, entry in stored.items() if key_id not in self._keys]
        for index in range(0, len(new), KEY_PROBES_AT_ONCE):
            some = new[index : index + KEY_PROBES_AT_ONCE]
            opened = await asyncio.gather(*(unwrap_data_key(*each, log_id, self._providers) for each in some))
            self._keys.update({key.key_id: key for key in opened if key is not None})
        self._newest = {key_class: held[-1] for key_class in KeyClass if (held := self.held(key_class))}

    async def check(self, key_id: str, value: bytes, log_id: str) -> None:
        """MissingKey, WrongKey or Damaged unless `value` unwraps, to the very key held under that id, if any."""
        key, held = await unwrap_data_key(key_id, value, log_id, self._providers), self._keys.get(key_id)
        if key is not None and held is not None and key.material != held.material:
            raise WrongKey(f"Data key {key_id} was replaced by another one: restore it from the archive")

    @property
    def loaded(self) -> Mapping[str, DataKey]:
        """What was loaded, by id: also what has gone from the store since."""
        return self._keys

    def held(self, key_class: KeyClass) -> list[DataKey]:
        """The keys of a class that were loaded, the oldest first: of two servers' picks, both take the same."""
        mine = (key for key in self._keys.values() if key.key_class is key_class)
        return sorted(mine, key=lambda key: (key.created_us, key.key_id))

    async def wrap(self, key: DataKey, log_id: str) -> bytes:
        """The value to store under `datakey/<key id>`; MissingKey where this role is not given the class."""
        if not self.opens(key.key_class):
            raise self._not_given(key.key_class)
        return await wrap_data_key(key, log_id, self._providers[key.key_class.wrapped_by])

    async def sealing_keys(self, log_id: str, key_class: KeyClass) -> tuple[DataKey, DataKey | None]:
        """What `seal_record` needs for a record of the class: the newest config key; the newest secrets key or None."""
        wanted = (KeyClass.CONFIG, KeyClass.SECRETS) if key_class is KeyClass.SECRETS else (KeyClass.CONFIG,)
        if not all(each in self._newest for each in wanted):
            await self.load(log_id)
        return self.newest(KeyClass.CONFIG), self.newest(key_class) if key_class is KeyClass.SECRETS else None

    def newest(self, key_class: KeyClass) -> DataKey:
        """The key of a class that seals now, of those that were loaded; MissingKey if there is none."""
        newest = self._newest.get(key_class)
        if newest is not None:
            return newest
        if not self.opens(key_class):
            raise self._not_given(key_class)
        raise MissingKey(
            f"The log has no data key of class '{key_class.value}' (datakey/{key_class.value}-…): bring it back with "
            "`meshlog keys import --from-archive`"
        )

    def _not_given(self, key_class: KeyClass) -> MissingKey:
        given = key_class.wrapped_by.value
        return MissingKey(f"This role has no key-encryption key of class '{given}': set its key file")
