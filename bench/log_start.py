"""One cold start of a replica in this process, as JSON on stdout. For `bench.log_history`; imports do not count."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.appender import file_keys
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection, TlsFiles
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.keys.keyring import Keyring
from eventlog.reads import HeadConfirmer
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import state_hash
from projector.beginning import Beginning, Usable, from_checkpoints
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.collector import collect_as_a_server
from runtime.limits import FOLLOW_PAGE_FRAMES, THREAD_SWITCH_S
from runtime.logging import configure_logging
from runtime.supervise import Supervisor


async def start(told: dict[str, Any]) -> dict[str, Any]:
    """Seconds to a loaded checkpoint and to a state at the head, and of etcd alone reading the same."""
    clock, entropy = SystemClock(), SystemEntropy()
    members = [EtcdMember(*pair) for pair in told["members"]]
    connection = EtcdConnection(members, members[0].zone, TlsFiles(*map(Path, told["tls"])), clock, entropy)
    driver = EtcdDriver(connection)
    head = await driver.read_head()  # connects
    assert head is not None
    keyring = Keyring(driver, file_keys(Path(told["keys"])))
    marks = [time.perf_counter()]
    cpu_s = time.process_time()
    loaded: list[Beginning] = []

    async def begin(usable: Usable) -> Beginning:
        loaded.append(await from_checkpoints(MESH_FOLD, driver, keyring)(usable))
        marks.append(time.perf_counter())
        return loaded[0]

    replica = Replica(MESH_FOLD, Follower(driver, keyring, clock, entropy), HeadConfirmer(driver), clock, begin)
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        await replica.wait_for(head.head.at, None)
        marks.append(time.perf_counter())
    cpu_s = time.process_time() - cpu_s
    began_s = time.perf_counter()
    read_bytes = await _read_same(driver, loaded[0])
    raw_s = time.perf_counter() - began_s
    connection.close()
    return {
        "ready_s": round(marks[2] - marks[0], 3),
        "cpu_s": round(cpu_s, 3),
        "load_s": round(marks[1] - marks[0], 3),
        "tail_s": round(marks[2] - marks[1], 3),
        "tokens": len(replica.state.tokens),
        "read_mb": round(read_bytes / 1e6, 1),
        "yardstick_read_s": round(raw_s, 3),
        "state_hash": state_hash(replica.state),
    }


async def _read_same(driver: EtcdDriver, loaded: Beginning) -> int:
    entries = await driver.list_entries("checkpoint/")
    read_bytes = sum(len(entry.value) for entry in entries.values())
    at, revision = loaded.after.at if loaded.after is not None else Position(1, 0), None
    while True:
        page = await driver.read_frames(at, FOLLOW_PAGE_FRAMES, revision)
        read_bytes += sum(len(frame.value) for frame in page.frames)
        if not page.more:
            return read_bytes
        at, revision = page.frames[-1].last, page.revision


if __name__ == "__main__":
    configure_logging("bench", "", "warning")
    sys.setswitchinterval(THREAD_SWITCH_S)  # as a role's process does, and the next
    collect_as_a_server()
    sys.stdout.write(json.dumps(asyncio.run(start(json.loads(sys.argv[1])))) + "\n")
