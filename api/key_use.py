"""When access keys were last used, to the hour: what this server saw, put on record now and then.

One event tells of all keys of an account that were used in an hour for the first time, so a key costs at most one event
an hour, whatever its calls. What a server that dies has not put on record is lost: a few minutes of a mark to the hour.
"""

from __future__ import annotations

from collections import defaultdict

import structlog

from api.commands import CommandService
from api.outcomes import Origin
from api.ports import ApiPorts
from mesh.commands import RecordKeyUse, idempotency_token
from mesh.errors import MeshlogError
from runtime.limits import KEY_USE_EVERY_S

OPERATION = "RecordKeyUse"

log = structlog.get_logger(__name__)


class KeyUse:
    """Puts on record what a server has seen. `run` is for ever."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    async def run(self) -> None:
        """Put on record what is new, every `KEY_USE_EVERY_S`."""
        while True:
            await self._ports.clock.sleep(KEY_USE_EVERY_S)
            try:
                await self.record()
            except MeshlogError as error:
                log.info("the use of access keys is not on record yet", reason=error.message)

    async def record(self) -> None:
        """Put on record what the log does not have yet."""
        keys, hours = self._ports.replica.state.access_keys, self._ports.key_sightings.hours
        new: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for key_id, hour_us in sorted(hours.items()):
            key = keys.get(key_id)
            if key is None:
                del hours[key_id]
            elif (key.used_us or 0) < hour_us:
                new[key.account, hour_us].append(key_id)
        for (account, hour_us), key_ids in new.items():
            await self._commands.submit(RecordKeyUse(hour_us, tuple(key_ids)), self._origin(account))

    def _origin(self, account: str) -> Origin:
        request_id, principal = self._ports.entropy.uuid(), f"arn:aws:iam::{account}:service/meshlog"
        token = idempotency_token(account, principal, OPERATION, request_id, {})
        return Origin(account, principal, "", request_id, OPERATION, token)
