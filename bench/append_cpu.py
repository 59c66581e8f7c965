"""What an event costs the appender's processor, step by step: the part of an append that is not etcd's.

One thread, no store, process time: decide and fold as a batch does, seal as the writer does, open as a follower does.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from api.batch import Batch
from api.domain import MESH_DOMAIN
from api.outcomes import Origin, Ticket
from bench.appender import ACCOUNT, PRINCIPAL, create_keys, node_spec
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.frames import decode_frame
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.sealing import open_record
from eventlog.writer import LogWriter
from mesh.commands import Command, Context, Create, Update, idempotency_token
from mesh.decide import decide
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import Position
from mesh.state import State
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import GROUP_COMMANDS_MAX, MAX_FRAME_BYTES

FRAMES = 12


def _ticket(command: Command, number: int) -> Ticket:
    token = idempotency_token(ACCOUNT, PRINCIPAL, "op", f"rq-{number}", {})
    origin = Origin(ACCOUNT, PRINCIPAL, "127.0.0.1", f"rq-{number}", "op", token)
    return Ticket(command, origin, Context(ACCOUNT, PRINCIPAL, "op", token, f"uid-{number}", 1), 0.0)


async def _steps(scratch: Path) -> dict[str, float]:
    """Seconds of process time by step, over all frames."""
    clock, entropy = SystemClock(), SystemEntropy()
    driver = MemoryDriver(MemoryStore())
    providers = create_keys(scratch)
    head = (await create_log(driver, providers, clock, entropy)).head
    keyring = Keyring(driver, providers)
    await keyring.load(head.head.log_id)
    writer = LogWriter(driver, keyring, clock, entropy)
    keys = [ResourceKey(ACCOUNT, "bench", "virtualNode", "", f"a0-{number}") for number in range(GROUP_COMMANDS_MAX)]
    made = Batch(MESH_DOMAIN, State(), head, clock.now_us())
    for number, command in enumerate(
        [Create(mesh_key(ACCOUNT, "bench"), {}), *(Create(key, node_spec("a0", 0)) for key in keys)]
    ):
        made.add(_ticket(command, number), MAX_FRAME_BYTES)
    state, spent = made.after, dict.fromkeys(("decide", "decide_and_fold", "seal", "open"), 0.0)
    for frame in range(FRAMES):
        point = head._replace(head=head.head._replace(position=state.position.position))
        tickets = [
            _ticket(Update(key, node_spec("a0", frame), checked=True), 1_000 * (frame + 1) + at)
            for at, key in enumerate(keys)
        ]
        batch = Batch(MESH_DOMAIN, state, point, clock.now_us())
        spent["decide"] += _timed(lambda: [decide(state, one.command, one.context) for one in tickets])  # noqa: B023
        spent["decide_and_fold"] += _timed(lambda: [batch.add(one, 2**30) for one in tickets])  # noqa: B023
        began_s = time.process_time()
        sealed = await writer.seal(point, batch.records, state.time_us, batch.wall_us)
        spent["seal"] += time.process_time() - began_s
        stored = decode_frame(sealed.txn.frame, sealed.txn.head.at)
        first = state.position.position + 1
        spent["open"] += _timed(
            lambda: [
                open_record(one, point.head.log_id, Position(1, first + at), keyring)  # noqa: B023
                for at, one in enumerate(stored)  # noqa: B023
            ]
        )
        state = batch.after
    return spent


def _timed(work: Callable[[], object]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def measure() -> str:
    """A JSON line: microseconds an event, and the events a second that one core could do at most."""
    with tempfile.TemporaryDirectory(prefix="meshlog-bench-") as directory:
        spent = asyncio.run(_steps(Path(directory)))
    events = FRAMES * GROUP_COMMANDS_MAX
    each = {name: 1e6 * seconds / events for name, seconds in spent.items()}
    steps = {
        "decide_us": each["decide"],
        "fold_us": each["decide_and_fold"] - each["decide"],
        "seal_us": each["seal"],
        "open_us": each["open"],
    }
    at_most = 1e6 / (each["decide_and_fold"] + each["seal"] + each["open"])
    rounded = {name: round(value, 1) for name, value in steps.items()}
    return json.dumps({"bench": "append_cpu", **rounded, "events_per_s_at_most": round(at_most), "n": events})
