"""The first write: a new log's head and its first wrapped data keys, create-only, in one Txn.

Any number of processes may do this at once: one wins, all get the same log. It must never touch a log that exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from eventlog.driver import Committed, LogDriver
from eventlog.keys.provider import KeyProvider
from eventlog.keys.wrapping import draw_data_key, wrap_data_key
from eventlog.records import HeadRef, KeyClass, genesis_head
from mesh.errors import MissingKey, NoQuorum, Unavailable
from runtime.clock import Clock, Entropy
from runtime.limits import FOLLOW_RETRY_S, GENESIS_DEADLINE_S


class Genesis(NamedTuple):
    """The log's head. `created`: this call made the log (it is then empty, and its data keys are this call's)."""

    head: HeadRef
    created: bool


async def create_log(
    driver: LogDriver,
    providers: Mapping[KeyClass, KeyProvider],
    clock: Clock,
    entropy: Entropy,
    deadline_s: float = GENESIS_DEADLINE_S,
) -> Genesis:
    """Make the log unless there is one. Needs the providers of both classes to make it; NoQuorum after `deadline_s`."""
    give_up_s = clock.monotonic_s() + deadline_s
    log_id = entropy.uuid()
    wrapped: dict[str, bytes] = {}
    while True:
        try:
            present = await driver.read_head()
            if present is not None:
                return Genesis(present, present.head.log_id == log_id)
            wrapped = wrapped or await draw_data_keys(log_id, providers, clock, entropy)
            result = await driver.create(genesis_head(log_id), wrapped)
            if isinstance(result, Committed):
                return Genesis(HeadRef(genesis_head(log_id), result.mod_revision), created=True)
        except Unavailable:
            if clock.monotonic_s() >= give_up_s:
                raise
        # Lost the race, or the answer: whoever won, the head tells. The same log id again is the same Txn again.
        if clock.monotonic_s() >= give_up_s:
            raise NoQuorum(f"The log could not be created within {deadline_s:g} s: check that etcd has a quorum")
        await clock.sleep(FOLLOW_RETRY_S)


async def draw_data_keys(
    log_id: str, providers: Mapping[KeyClass, KeyProvider], clock: Clock, entropy: Entropy
) -> dict[str, bytes]:
    """A first data key of each class for a log, wrapped, by id. MissingKey where a class has no provider."""
    wrapped: dict[str, bytes] = {}
    for key_class in KeyClass:
        provider = providers.get(key_class.wrapped_by)
        if provider is None:
            raise MissingKey(
                f"A new log needs a key-encryption key of class '{key_class.wrapped_by.value}', and this role has "
                "none: start an API server with both key files first"
            )
        key = draw_data_key(key_class, clock.now_us(), entropy)
        wrapped[key.key_id] = await wrap_data_key(key, log_id, provider)
    return wrapped
