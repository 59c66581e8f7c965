"""The steps of a restore that write: a claim into the archive, then a log into an empty store. Each may be repeated.

    state at the base → data keys, checkpoint, head → LogRestored and what must stay revoked

A clone draws data keys of its own and a log id of its own, and never touches the archive that it was read from. Nothing
here deletes, and nothing is written into a store that holds another log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from eventlog.archive.manifest import EpochClaim, ManifestRef, claim_name, open_claim, seal_claim
from eventlog.archive.store import ObjectStore
from eventlog.checkpoints import CheckpointPlace, manifest_name, part_name, seal_checkpoint
from eventlog.driver import HeadMoved, LogDriver
from eventlog.fenced import settled
from eventlog.genesis import draw_data_keys
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.records import Head, HeadRef, KeyClass, NewRecord
from eventlog.restore import Journal
from eventlog.signing import SigningKey, signing_key
from eventlog.writer import LogWriter
from mesh.errors import Conflict, Damaged, NoQuorum, OutcomeUnknown, Unavailable
from mesh.events import LOG_RESTORED, NARROWING_TYPES, RESTRICTING_TYPES, SCHEMAS
from mesh.fold import Fold, S
from runtime.clock import Clock, Entropy
from runtime.limits import CHECKPOINT_TXN_PARTS, FOLLOW_RETRY_S, RESTORE_WRITE_S


@dataclass(frozen=True, slots=True)
class LogRestore:
    """The writing steps of the restore that `journal` is of. `providers`: of the log that is written."""

    journal: Journal
    providers: Mapping[KeyClass, KeyProvider]
    clock: Clock
    entropy: Entropy

    async def claim(self, store: ObjectStore, read_from: ManifestRef | None, signer: SigningKey) -> None:
        """Make the journal's epoch this restore's; from here on every writer of an older epoch stops.

        Conflict if another restore has it. Repeating it is safe, also after an answer that was lost.
        """
        journal = self.journal
        epoch, base = journal.head.epoch, journal.base
        name = claim_name(epoch)
        claim = EpochClaim(base.log_id, epoch, base, read_from, self.clock.now_us(), journal.restore_id)
        if await store.put_new(name, seal_claim(claim, signer)):
            return
        taken = open_claim(name, await store.get(name) or b"")
        if (taken.by, taken.base, taken.log_id) != (claim.by, claim.base, claim.log_id):
            raise Conflict(
                f"epoch {epoch} in {store.place} was claimed by another restore ({taken.by}), which goes on from "
                f"{taken.base.at}: let that one finish, or move {name} away if it was given up before it wrote anything"
            )

    async def write(self, fold: Fold[S], driver: LogDriver, state: S, data_keys: Mapping[str, bytes]) -> None:
        """Write data keys, a checkpoint of `state` and, last and create-only, the head; nothing if the head is there.

        `data_keys`: wrapped, by id; empty: new ones are drawn. Conflict if the store holds another log; NoQuorum.
        """
        head, clock = self.journal.head, self.clock
        if await _is_written(driver, head):
            return
        keyring = await self._keyring(driver, data_keys)
        signer = await signing_key(driver, keyring, head.log_id, clock, self.entropy)
        config, secrets = await keyring.sealing_keys(head.log_id, KeyClass.SECRETS)
        assert secrets is not None  # noqa: S101 - asked for
        place = CheckpointPlace(head, state.position, state.time_us, state.level, fold.state_hash(state))
        sealing = partial(seal_checkpoint, created_us=clock.now_us(), entropy=self.entropy)
        sealed = await asyncio.to_thread(lambda: sealing(fold.to_documents(state), place, (config, secrets), signer))
        names = [(part_name(head.at, number), part) for number, part in enumerate(sealed.parts.values())]
        for start in range(0, len(names), CHECKPOINT_TXN_PARTS):
            await _put(driver, dict(names[start : start + CHECKPOINT_TXN_PARTS]), clock)
        await _put(driver, {manifest_name(head.at): sealed.manifest}, clock)
        if isinstance(await settled(lambda: driver.create(head, {}), clock), HeadMoved):
            await _is_written(driver, head)

    async def _keyring(self, driver: LogDriver, data_keys: Mapping[str, bytes]) -> Keyring:
        head, present = self.journal.head, await driver.list_data_keys()
        if not (data_keys or present):
            data_keys = await draw_data_keys(head.log_id, self.providers, self.clock, self.entropy)
        missing = {f"datakey/{key_id}": value for key_id, value in data_keys.items() if key_id not in present}
        for name, value in missing.items():
            await _put(driver, {name: value}, self.clock)
        keyring = Keyring(driver, self.providers)
        await keyring.load(head.log_id)
        return keyring

    async def announce(self, driver: LogDriver, records: Sequence[NewRecord], previous_time_us: int) -> None:
        """Append `records` as the epoch's first frame, unless it has one already."""
        head, clock = self.journal.head, self.clock
        keyring = Keyring(driver, self.providers)
        writer = LogWriter(driver, keyring, clock, self.entropy)
        deadline_s = clock.monotonic_s() + RESTORE_WRITE_S
        while True:
            try:
                await keyring.load(head.log_id)
                at = await driver.read_head()
                if at is None or (at.head.epoch, at.head.log_id) != (head.epoch, head.log_id):
                    raise _another(head, at)
                if at.head.position > head.position:
                    return
                await writer.append(at, records, previous_time_us)
            except (Unavailable, OutcomeUnknown):
                if clock.monotonic_s() >= deadline_s:
                    raise
                await clock.sleep(FOLLOW_RETRY_S)


def first_records(journal: Journal, account: str, actor: str) -> list[NewRecord]:
    """LogRestored, and what took access away after the base, again: what was revoked stays revoked."""
    found = [(LOG_RESTORED, account, actor, journal.restored)]
    for event in journal.restricting:
        kind, data = event["type"], event["data"]
        found.append(
            (kind, event["account"], event["actor"], {**data, "within": True} if kind in NARROWING_TYPES else data)
        )
    return [
        NewRecord(kind, SCHEMAS[kind], owner, by, "", journal.restore_id, None, data)
        for kind, owner, by, data in found
        if kind == LOG_RESTORED or kind in RESTRICTING_TYPES
    ]


async def _is_written(driver: LogDriver, head: Head) -> bool:
    present = await driver.read_head()
    if present is None:
        return False
    same_log = (present.head.log_id, present.head.epoch) == (head.log_id, head.epoch)
    if not same_log or present.head.position < head.position:
        raise _another(head, present)
    return True


def _another(head: Head, present: HeadRef | None) -> Conflict | Damaged:
    if present is None:
        return Damaged(f"The log that was written for epoch {head.epoch} is gone from etcd: restore again")
    return Conflict(
        f"etcd holds log {present.head.log_id} at {present.head.at}, and a restore writes only into an empty one: "
        "check which members the settings name"
    )


async def _put(driver: LogDriver, puts: Mapping[str, bytes], clock: Clock) -> None:
    if isinstance(await settled(lambda: driver.write_entries(puts), clock), HeadMoved):
        raise NoQuorum("etcd refused a write that depends on nothing: try again")
