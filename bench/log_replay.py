"""Replay: pages of stored frames in memory become a state, on one core: chain, open, fold.

Beside it, on the very same bytes, two loops that cannot be had for less: msgpack and AES-GCM alone, and with the hash
of the chain and the key derivation that the format asks for.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench import figures
from bench.long_log import frames
from eventlog.chain import Chain, ChainedRecord
from eventlog.driver import Entry, StoredFrame
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.frames import decode_frame, frame_name
from eventlog.keys.keyring import Keyring
from eventlog.reads import HeadConfirmer
from eventlog.records import Head, KeyClass, encode_head, genesis_head
from eventlog.sealing import ENVELOPE, RECORD_FORMAT, DataKey, derive, open_envelope
from mesh.draft import Draft
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import State, state_hash
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import FOLLOW_PAGE_FRAMES
from runtime.supervise import Supervisor

GOAL_PER_S = 100_000
LOG_ID = "6f1e2d3c-0000-4000-8000-0123456789ab"


class _OneKey(Keyring):
    """A keyring with one key, that asks no store."""

    def __init__(self, key: DataKey) -> None:
        super().__init__(MemoryDriver(MemoryStore()), {})
        self._only = key

    def find(self, key_id: str, position: Position) -> DataKey:  # noqa: ARG002 - a Keyring's
        return self._only


def measure(events: int) -> Iterator[str]:
    """Figures of CPU time, so that other work on the host does not count."""
    entropy = SystemEntropy()
    key = DataKey("config-1", KeyClass.CONFIG, entropy.token_bytes(32), 1)
    start = genesis_head(LOG_ID)
    made = [each.frame for each in frames(start, key, entropy, events)]
    yield figures.host(events=events, event_bytes=round(sum(len(frame.value) for frame in made) / events))
    gc.collect()
    gc.freeze()
    raw = _raw(made, key)
    pieces, expected = _pieces(made, start, key)
    whole = asyncio.run(_replayed(made, key))
    took_s = whole.pop("took_s")
    assert whole.pop("state_hash") == expected
    per_s = round(events / took_s)
    yield json.dumps(
        {
            "replay": "follow, verify, open and fold from pages in memory, on one core",
            "n": events,
            "events_per_s": per_s,
            "event_us": {name: round(spent_s / events * 1e6, 2) for name, spent_s in pieces.items()},
            "yardstick_events_per_s": {name: round(events / spent_s) for name, spent_s in raw.items()},
            "ratio": round(per_s / (events / raw["msgpack, AES-GCM, SHA-256, HKDF"]), 3),
            "goal_events_per_s": GOAL_PER_S,
            "goal_met": per_s >= GOAL_PER_S,
        }
    )


def _raw(made: Sequence[StoredFrame], key: DataKey) -> dict[str, float]:
    """Seconds of the loops that only do what must be done; first with what is to be opened at hand, then all of it."""
    stored = [record for frame in made for record in decode_frame(frame.value, frame.last)]
    fields = [msgpack.unpackb(record) for record in stored]
    aads = [_aad(number, record) for number, record in enumerate(fields, 1)]
    salts = dict.fromkeys(record[3] for record in fields)
    secrets = {salt: derive(key.material, salt, ENVELOPE) for salt in salts}
    opened = [
        (AESGCM(secrets[record[3]][0]), _nonce(secrets[record[3]][1], number), record[6])
        for number, record in enumerate(fields, 1)
    ]

    def light() -> None:
        for (cipher, nonce, sealed), aad in zip(opened, aads, strict=True):
            msgpack.unpackb(cipher.decrypt(nonce, sealed, aad)[1:])

    def full() -> None:
        salt = b""
        for number, (record, aad) in enumerate(zip(stored, aads, strict=True), 1):
            hashlib.sha256(record).digest()
            parts = msgpack.unpackb(record)
            if parts[3] != salt:
                salt = parts[3]
                secret, base, _ = derive(key.material, salt, ENVELOPE)
                cipher = AESGCM(secret)
            msgpack.unpackb(cipher.decrypt(_nonce(base, number), parts[6], aad)[1:])

    return {"msgpack, AES-GCM": _cpu_s(light), "msgpack, AES-GCM, SHA-256, HKDF": _cpu_s(full)}


def _nonce(base: bytes, number: int) -> bytes:
    return (int.from_bytes(base, "big") ^ number).to_bytes(len(base), "big")


def _aad(number: int, record: Any) -> bytes:
    packed: bytes = msgpack.packb([ENVELOPE, RECORD_FORMAT, LOG_ID, 1, number, record[5], record[2], record[1]])
    return packed


def _cpu_s(work: Any) -> float:
    gc.disable()
    began_s = time.process_time()
    work()
    spent_s = time.process_time() - began_s
    gc.enable()
    return spent_s


def _pieces(made: Sequence[StoredFrame], start: Head, key: DataKey) -> tuple[dict[str, float], str]:
    """Seconds of each step by itself, and the state's hash."""
    keyring, chain, draft = _OneKey(key), Chain(start), Draft(State())
    spent = dict.fromkeys(("chain", "open", "fold", "settle"), 0.0)
    gc.disable()
    for first in range(0, len(made), FOLLOW_PAGE_FRAMES):
        marks = [time.process_time()]
        proven, failure = chain.extend(made[first : first + FOLLOW_PAGE_FRAMES])
        assert failure is None
        if first + FOLLOW_PAGE_FRAMES >= len(made):
            proven.extend(_last(chain))
        marks.append(time.process_time())
        records = [open_envelope(each.envelope, LOG_ID, each.as_head.at, keyring) for each in proven]
        marks.append(time.process_time())
        for record in records:
            draft.fold(record)
        marks.append(time.process_time())
        for name, began_s, ended_s in zip(spent, marks, marks[1:], strict=False):
            spent[name] += ended_s - began_s
    began_s = time.process_time()
    state = draft.state()
    spent["settle"] = time.process_time() - began_s
    gc.enable()
    return spent, state_hash(state)


def _last(chain: Chain) -> Sequence[ChainedRecord]:
    held = chain.settle(chain.point)
    return [held] if held is not None else []


async def _replayed(made: Sequence[StoredFrame], key: DataKey) -> dict[str, Any]:
    """The real follower and replica over a store in memory."""
    store = MemoryStore()
    store.revision = 2
    for frame in made:
        store.put_frame(frame_name(frame.last), frame.value)
    stored = decode_frame(made[-1].value, made[-1].last)[-1]
    head = Head(LOG_ID, 1, made[-1].last.position, hashlib.sha256(stored).digest())
    store.head = Entry(encode_head(head), store.revision)
    driver, clock = MemoryDriver(store), SystemClock()
    replica = Replica(MESH_FOLD, Follower(driver, _OneKey(key), clock, SystemEntropy()), HeadConfirmer(driver), clock)
    began_s = time.process_time()
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        await replica.wait_for(head.at, None)
        spent_s = time.process_time() - began_s
    assert replica.halted is None
    return {"took_s": spent_s, "state_hash": state_hash(replica.state)}
