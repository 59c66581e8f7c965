"""When access keys were last used, to the hour: noted in memory at each call, put on record now and then.

One event tells of all keys of an account that were used in an hour for the first time, so a key costs at most one event
an hour, whatever its calls. What a server that dies has not put on record is lost: a few minutes of a mark to the hour.
"""

from __future__ import annotations

from collections import defaultdict

import structlog

from api.commands import CommandService
from api.outcomes import Origin
from api.ports import Replica
from mesh.commands import RecordKeyUse, idempotency_token
from mesh.errors import MeshlogError
from mesh.principals import AccessKey
from runtime.clock import Clock, Entropy
from runtime.limits import KEY_USE_EVERY_S

HOUR_US = 3600 * 1_000_000
OPERATION = "RecordKeyUse"

log = structlog.get_logger(__name__)


class KeyUse:
    """What this server has seen. `run` puts it on record, for ever."""

    def __init__(self, replica: Replica, commands: CommandService, clock: Clock, entropy: Entropy) -> None:
        self._replica, self._commands = replica, commands
        self._clock, self._entropy = clock, entropy
        self._hours: dict[str, int] = {}

    def note(self, access_key_id: str) -> None:
        """A call was signed with this key, and its signature was right. Temporary keys are nobody's to list."""
        if access_key_id in self._replica.state.access_keys:
            now_us = self._clock.now_us()
            self._hours[access_key_id] = now_us - now_us % HOUR_US

    def last_us(self, key: AccessKey) -> int | None:
        """The hour of the key's last use, by the log and by what this server saw."""
        found = [hour_us for hour_us in (key.used_us, self._hours.get(key.access_key_id)) if hour_us is not None]
        return max(found, default=None)

    async def run(self) -> None:
        """Put on record what is new, every `KEY_USE_EVERY_S`."""
        while True:
            await self._clock.sleep(KEY_USE_EVERY_S)
            try:
                await self.record()
            except MeshlogError as error:
                log.info("the use of access keys is not on record yet", reason=error.message)

    async def record(self) -> None:
        """Put on record what the log does not have yet."""
        keys = self._replica.state.access_keys
        new: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for key_id, hour_us in sorted(self._hours.items()):
            key = keys.get(key_id)
            if key is None:
                del self._hours[key_id]
            elif (key.used_us or 0) < hour_us:
                new[key.account, hour_us].append(key_id)
        for (account, hour_us), key_ids in new.items():
            await self._commands.submit(RecordKeyUse(hour_us, tuple(key_ids)), self._origin(account))

    def _origin(self, account: str) -> Origin:
        request_id, principal = self._entropy.uuid(), f"arn:aws:iam::{account}:service/meshlog"
        token = idempotency_token(account, principal, OPERATION, request_id, {})
        return Origin(account, principal, "", request_id, OPERATION, token)
