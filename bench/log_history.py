"""A million events in a real etcd: how large it is, before and after trimming, and how soon a replica starts on it.

The history is written by a batch writer (frames of a group commit's size, many frames a Txn), with a checkpoint TAIL
events before its end. The start is measured in a process of its own, from the first call to a state at the log's head:
checkpoint read, opened and loaded, tail read, opened and folded. Beside it: etcd reading the same bytes, and no more.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import figures
from bench.appender import create_keys
from bench.etcd import EtcdCluster, etcd_members
from bench.long_log import frames
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.maintenance import Maintenance
from cluster.etcd.values import Operation, Put, RangeRead, TxnDone
from eventlog.driver import Committed, Fence
from eventlog.drivers.etcd import DEFAULT_PREFIX, EtcdDriver
from eventlog.follower import Follower
from eventlog.frames import frame_name
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.reads import HeadConfirmer
from eventlog.records import Head, KeyClass, encode_head
from mesh.draft import Draft
from mesh.fold import MESH_FOLD
from mesh.state import State
from projector.checkpointing import CheckpointDuty
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import DutySettings

TAIL = 10_000
TXN_FRAMES = 64
GOAL_START_S = 2.0
_MB = 1e6


def measure(events: int) -> Iterator[str]:
    """Figures of one history of so many events; the last TAIL of them (or half) lie beyond its checkpoint."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        with etcd_members(directory / "etcd", count=1) as etcd:
            yield figures.host(events=events, etcd=etcd.version, members=1)
            began_s = time.perf_counter()
            written = asyncio.run(_write(etcd, directory / "keys", events))
            yield json.dumps({"write": "seal and put in batches", "n": events, "took_s": _since(began_s)})
            start = _started(etcd, directory / "keys")
            whole = start.pop("state_hash")
            yield json.dumps(
                {
                    "cold start": f"from a checkpoint and {written['tail']} events, of {events} in etcd",
                    **start,
                    "goal_s": GOAL_START_S,
                    "goal_met": start["ready_s"] <= GOAL_START_S,
                }
            )
            yield json.dumps(asyncio.run(_trim(etcd, written)))
            assert _started(etcd, directory / "keys")["state_hash"] == whole, "trimmed, it is the same state"


def _since(began_s: float) -> float:
    return round(time.perf_counter() - began_s, 2)


async def _write(etcd: EtcdCluster, keys: Path, events: int) -> dict[str, Any]:
    connection, clock, entropy = etcd.connection(), SystemClock(), SystemEntropy()
    driver = EtcdDriver(connection)
    providers = create_keys(keys)
    start = (await create_log(driver, providers, clock, entropy)).head.head
    keyring = Keyring(driver, providers)
    await keyring.load(start.log_id)
    key, _ = await keyring.sealing_keys(start.log_id, KeyClass.CONFIG)
    draft, cut, at, puts, frame_bytes = Draft(State()), max(events - TAIL, events // 2), start, list[Operation](), 0
    checkpoint: Head | None = None
    for made in frames(start, key, entropy, events):
        puts.append(Put(f"{DEFAULT_PREFIX}log/{frame_name(made.frame.last)}".encode(), made.frame.value))
        frame_bytes += len(made.frame.value)
        if checkpoint is None:
            for record in made.records:
                draft.fold(record)
            checkpoint = made.head if made.head.position >= cut else None
        if len(puts) == TXN_FRAMES:
            await _put(connection, puts)
        at = made.head
    await _put(connection, [*puts, Put(f"{DEFAULT_PREFIX}head".encode(), encode_head(at))])
    assert checkpoint is not None
    replica = Replica(MESH_FOLD, Follower(driver, keyring, clock, entropy), HeadConfirmer(driver), clock)
    duty = CheckpointDuty(
        MESH_FOLD, replica, driver, keyring, DutySettings(), member_id="bench", clock=clock, entropy=entropy
    )
    began_s = time.perf_counter()
    await duty.make(draft.state(), checkpoint, await _fence(driver, "checkpoint"))
    sizes = await driver.list_entries("checkpoint/")
    connection.close()
    return {
        "checkpoint": checkpoint,
        "tail": at.position - checkpoint.position,
        "frame_bytes": frame_bytes,
        "checkpoint_bytes": sum(len(entry.value) for entry in sizes.values()),
        "checkpoint_s": _since(began_s),
        "events": events,
    }


async def _put(connection: EtcdConnection, puts: list[Operation]) -> None:
    outcome = await connection.txn([], puts)
    assert isinstance(outcome, TxnDone), outcome
    puts.clear()


async def _fence(driver: EtcdDriver, duty: str) -> Fence:
    name = f"duties/{duty}"
    await driver.write_entries({name: b"bench"})
    entry = await driver.read_entry(name)
    assert entry is not None
    return Fence(duty, entry.mod_revision)


async def _trim(etcd: EtcdCluster, written: dict[str, Any]) -> dict[str, Any]:
    """etcd's size with the whole history, and with what is left of it under the checkpoint."""
    connection = etcd.connection()
    driver = EtcdDriver(connection)
    (before,) = await connection.statuses()
    trimmed = await driver.trim(written["checkpoint"].at, expected={}, fence=await _fence(driver, "trim"))
    assert isinstance(trimmed, Committed)
    keeper = Maintenance(connection, 0.0, before.quota_bytes, SystemClock())
    await keeper.compact((await connection.range(RangeRead(b"\0"))).revision)
    await keeper.rewrite(0)
    (after,) = await connection.statuses()
    connection.close()
    return {
        "size": "of etcd's file, with all events, and trimmed under the checkpoint, compacted and rewritten",
        "n": written["events"],
        "whole_mb": round(before.db_size_bytes / _MB, 1),
        "trimmed_mb": round(after.db_size_bytes / _MB, 1),
        "left_events": written["tail"],
        "checkpoint_mb": round(written["checkpoint_bytes"] / _MB, 1),
        "checkpoint_s": written["checkpoint_s"],
        "yardstick_frames_mb": round(written["frame_bytes"] / _MB, 1),
    }


def _started(etcd: EtcdCluster, keys: Path) -> dict[str, Any]:
    told = {
        "members": [[member.zone, member.address] for member in etcd.members],
        "tls": [str(etcd.tls.ca), str(etcd.tls.certificate), str(etcd.tls.key)],
    }
    argv = [sys.executable, "-m", "bench.log_start", json.dumps({**told, "keys": str(keys)})]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
