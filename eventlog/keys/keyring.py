"""The keyring: data keys of one log, unwrapped on demand and held in memory.

New ids may appear at any time while a log is followed (a rotation): whoever gets MissingKey calls `load` and tries once
more. A class without a provider is one that this role is not given; any other failure is raised, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

from eventlog.driver import LogDriver
from eventlog.keys.provider import KeyProvider
from eventlog.keys.wrapping import unwrap_data_key
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from mesh.errors import MissingKey
from mesh.position import Position


class Keyring:
    """Data keys by id. `providers` has the classes that this role may open: leave SECRETS out in a projector."""

    def __init__(self, driver: LogDriver, providers: Mapping[KeyClass, KeyProvider]) -> None:
        self._driver = driver
        self._providers = dict(providers)
        self._keys: dict[str, DataKey] = {}

    def opens(self, key_class: KeyClass) -> bool:
        """Whether this role is given keys of the class at all."""
        return key_class in self._providers

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
        for key_id, entry in (await self._driver.list_data_keys()).items():
            if key_id not in self._keys:
                key = await unwrap_data_key(key_id, entry.value, log_id, self._providers)
                if key is not None:
                    self._keys[key_id] = key

    async def sealing_keys(self, log_id: str, key_class: KeyClass) -> tuple[DataKey, DataKey | None]:
        """What `seal_record` needs for a record of the class: the newest config key; the newest secrets key or None."""
        config = await self._newest(log_id, KeyClass.CONFIG)
        return config, await self._newest(log_id, KeyClass.SECRETS) if key_class is KeyClass.SECRETS else None

    async def _newest(self, log_id: str, key_class: KeyClass) -> DataKey:
        if not self.opens(key_class):
            raise MissingKey(f"This role has no key-encryption key of class '{key_class.value}': set its key file")
        held = [key for key in self._keys.values() if key.key_class is key_class]
        if not held:
            await self.load(log_id)
            held = [key for key in self._keys.values() if key.key_class is key_class]
        if not held:
            raise MissingKey(f"The log has no data key of class '{key_class.value}': restore it from the archive")
        return max(held, key=lambda key: (key.created_us, key.key_id))
