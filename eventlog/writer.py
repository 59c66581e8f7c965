"""The writing shell: seals new records onto a head, then drives the append machine against a driver.

The caller decides on the state at `expected` and folds what comes back; whether a token was used is its fold's to say.
Nothing here retries a lost race: the caller has to decide again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eventlog.append import AppendAction, AppendMachine, Done, Lost, NotWritten, ReadNext, Send, Unresolved, new_head
from eventlog.blobs import BlobWriter
from eventlog.driver import AppendTxn, LogDriver
from eventlog.frames import encode_frame
from eventlog.keys.keyring import Keyring
from eventlog.records import HeadRef, NewRecord, Record
from eventlog.sealing import SALT_BYTES, place_record, seal_record
from mesh.errors import NoQuorum, OutcomeUnknown, Unavailable
from runtime.clock import Clock, Entropy
from runtime.limits import APPEND_DEADLINE_S, INLINE_RECORD_BYTES


class Appended(NamedTuple):
    """It is in the log. `head` is what the append made; others may have gone on since.

    `records` are as a reader gets them, but for `data`, which is the caller's own.
    """

    head: HeadRef
    records: tuple[Record, ...]


class SealedAppend(NamedTuple):
    """An append that is ready to be sent: `txn.head` is the head that it would make."""

    txn: AppendTxn
    records: tuple[Record, ...]


class LostRace(NamedTuple):
    """It is not in the log and never will be: another writer was first. Catch up to `head` and decide again."""

    head: HeadRef


class LogWriter:
    """Appends to one log. Holds no position of its own, so any number may work at once."""

    def __init__(
        self,
        driver: LogDriver,
        keyring: Keyring,
        clock: Clock,
        entropy: Entropy,
        deadline_s: float = APPEND_DEADLINE_S,
    ) -> None:
        self._driver = driver
        self._keyring = keyring
        self._clock = clock
        self._entropy = entropy
        self._deadline_s = deadline_s
        self._blobs = BlobWriter(driver, clock, entropy, deadline_s)

    async def append(
        self, expected: HeadRef, records: Sequence[NewRecord], previous_time_us: int
    ) -> Appended | LostRace:
        """Append `records` as one frame right after `expected`, all or none: `seal`, and `send`."""
        return await self.send(await self.seal(expected, records, previous_time_us, self._clock.now_us()))

    async def send(self, sealed: SealedAppend) -> Appended | LostRace:
        """Append what was sealed, all or none.

        Raises OutcomeUnknown (it may or may not land: find out by the token before telling anybody), NoQuorum
        (certainly not written), LimitExceeded or TimelineMoved. Cancelled, its outcome is unknown: shield it.
        """
        txn, placed = sealed
        machine = AppendMachine(txn, self._clock.monotonic_s() + self._deadline_s)
        action: AppendAction = machine.start()
        while True:
            if isinstance(action, Done):
                return Appended(action.head, placed)
            if isinstance(action, Lost):
                return LostRace(action.head)
            if isinstance(action, NotWritten):
                raise NoQuorum(f"etcd takes no writes ({action.reason}); nothing was written: try again")
            if isinstance(action, Unresolved):
                raise OutcomeUnknown(
                    f"The write at {txn.head.at} got no certain answer from etcd within {self._deadline_s:g} s "
                    f"({action.reason}): repeat the call with the same clientToken"
                )
            action = await self._carry_out(action, machine)

    async def _carry_out(self, action: Send | ReadNext, machine: AppendMachine) -> AppendAction:
        if action.pause_s:
            await self._clock.sleep(action.pause_s * (0.5 + self._entropy.jitter()))
        if isinstance(action, Send):
            result = await self._driver.append(action.txn)
            return machine.on_result(result, self._clock.monotonic_s())
        try:
            page = await self._driver.read_frames(action.after.at, limit=1)
        except Unavailable as failure:
            return machine.on_read_failed(failure.message, self._clock.monotonic_s())
        return machine.on_next_frame(page.frames)

    async def seal(
        self, expected: HeadRef, records: Sequence[NewRecord], previous_time_us: int, wall_us: int
    ) -> SealedAppend:
        """Seal `records` as one frame to stand right after `expected`.

        `previous_time_us` is the time of the last record at `expected` (0 for none): log time never goes back. All
        records get the later of it and `wall_us`, the writer's own clock. Raises LimitExceeded, BadRequest or
        MissingKey; NoQuorum or OutcomeUnknown where data had to be stored beside the log (and the log is as it was).
        """
        if not records:
            raise ValueError("an append needs at least one record")
        time_us = max(previous_time_us, wall_us)
        point = expected.head
        placed: list[Record] = []
        stored_records: list[bytes] = []
        salts = self._salts()
        for new in records:
            keys = await self._keyring.sealing_keys(point.log_id, new.key_class)
            record = place_record(new, point, time_us, wall_us)
            stored = seal_record(record, point, keys, salts)
            if len(stored) > INLINE_RECORD_BYTES:
                record = await self._blobs.put(record, expected.head, keys[1] or keys[0])
                salts = self._salts()  # another text at the same position
                stored = seal_record(record, point, keys, salts)
            placed.append(record)
            stored_records.append(stored)
            point = new_head(point, [stored])
        return SealedAppend(AppendTxn(expected, encode_frame(stored_records), point), tuple(placed))

    def _salts(self) -> tuple[bytes, bytes]:
        return self._entropy.token_bytes(SALT_BYTES), self._entropy.token_bytes(SALT_BYTES)
