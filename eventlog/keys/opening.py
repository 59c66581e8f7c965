"""A role's start: its keys open the log's data keys, or the role ends with one sentence. Nothing is served before.

A key service or an etcd that does not answer is waited for, and said so; a key that is missing, wrong or damaged is
raised. A role that went on without it would show an empty mesh.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from eventlog.driver import LogDriver
from eventlog.keys.file import FileKeyProvider
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider, members_of
from eventlog.records import KeyClass
from mesh.errors import IntegrityError, SettingsError, Unavailable
from runtime.clock import Clock
from runtime.limits import KEY_CHECK_PAUSE_S, KEYRING_REFRESH_S

log = structlog.get_logger(__name__)

_NO_LOG = "there is no log in etcd yet: make it with `meshlog provision`"


class KeyCheck:
    """`run` returns when every data key that this role may open is open; `waiting_for` says what it waits for."""

    def __init__(
        self, driver: LogDriver, keyring: Keyring, providers: Mapping[KeyClass, KeyProvider], clock: Clock
    ) -> None:
        self._driver, self._keyring, self._providers, self._clock = driver, keyring, providers, clock
        self.waiting_for: str | None = "the keys have not been tried yet"
        self.log_id = ""

    async def run(self) -> None:
        """MissingKey, WrongKey, Damaged or SettingsError: which key, where it was looked for, what to do."""
        for key_class, provider in self._providers.items():
            for each in members_of(provider):
                if isinstance(each, FileKeyProvider):
                    held = each.held()  # also while etcd is away
                    log.info("key file read", key_class=key_class.value, place=each.place, keys=list(held))
        while not await self._try():
            await self._clock.sleep(KEY_CHECK_PAUSE_S)
        self.waiting_for = None

    async def _try(self) -> bool:
        try:
            head = await self._driver.read_head()
            if head is not None:
                self.log_id = head.head.log_id
                await self._keyring.load(self.log_id)
                for key_class in self._providers:
                    self._keyring.newest(key_class)
                return True
            reason = _NO_LOG
        except Unavailable as failure:
            reason = failure.message
        if reason != self.waiting_for:
            log.warning("waiting before anything is served", reason=reason)
        self.waiting_for = reason
        return False


async def keep_fresh(keyring: Keyring, log_id: str, clock: Clock, every_s: float = KEYRING_REFRESH_S) -> None:
    """Look for data keys that others have drawn, for ever, so that a writer seals with the newest soon.

    One that does not open is an error in the log of this process, not its end: no record may be sealed with it yet.
    """
    said = ""
    while True:
        await clock.sleep(every_s)
        try:
            await keyring.load(log_id)
            said = ""
        except (Unavailable, IntegrityError, SettingsError) as failure:
            if failure.message != said:
                log.error("a new data key does not open here", error=failure.message)  # noqa: TRY400
            said = failure.message
