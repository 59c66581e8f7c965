"""The fold as fsck uses it: the checkpoints of a real log are what its records fold to, and a forged one is not."""

from __future__ import annotations

from typing import Any

import pytest

from eventlog.checkpoints import CheckpointPlace, manifest_name, part_name, seal_checkpoint
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.fsck import FsckReport, fsck
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass, NewRecord
from eventlog.signing import signing_key
from mesh.checkpoint import to_documents
from mesh.events import RESOURCE_CREATED, RESOURCE_UPDATED, SCHEMAS
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.kinds import mesh_key
from mesh.state import State, state_hash
from projector.replica import event_of
from projector.state_fold import StateFold
from tests.eventlog.logs import BOTH, Log, make_log

ACCOUNT = "123456789012"


def mesh_record(kind: str, name: str, **data: Any) -> NewRecord:
    whole = {"key": list(mesh_key(ACCOUNT, name)), **data}
    return NewRecord(kind, SCHEMAS[kind], ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/a", "192.0.2.1", "r", None, whole)


async def a_log() -> Log:
    log = await make_log(MemoryDriver(MemoryStore()))
    for name in ("one", "two", "three"):
        await log.append(mesh_record(RESOURCE_CREATED, name, uid=f"u-{name}", owner=ACCOUNT, spec={}, tags={}))
    spec = {"egressFilter": {"type": "ALLOW_ALL"}}
    await log.append(mesh_record(RESOURCE_UPDATED, "two", spec=spec))
    return log


async def folded(log: Log, upto: int | None = None) -> State:
    state = State()
    for record in (await log.read())[:upto]:
        state = evolve(state, event_of(record))
    return state


async def put_checkpoint(log: Log, state: State) -> None:
    """A checkpoint at the head that says that it is of `state`."""
    head = log.head.head
    config, secrets = await log.keyring.sealing_keys(head.log_id, KeyClass.SECRETS)
    assert secrets is not None
    sealed = seal_checkpoint(
        to_documents(state),
        CheckpointPlace(head, state.position, state.time_us, state.level, state_hash(state)),
        (config, secrets),
        await signing_key(log.driver, log.keyring, head.log_id, log.clock, log.entropy),
        created_us=1,
        entropy=log.entropy,
    )
    parts = {part_name(head.at, number): part for number, part in enumerate(sealed.parts.values())}
    await log.driver.write_entries(parts | {manifest_name(head.at): sealed.manifest})


async def check(log: Log) -> FsckReport:
    return await fsck(log.driver, Keyring(log.driver, BOTH), fold=StateFold(MESH_FOLD))


async def test_a_checkpoint_of_the_fold_is_sound() -> None:
    log = await a_log()
    await put_checkpoint(log, await folded(log))
    report = await check(log)
    assert (report.findings, report.states, report.records) == ([], 1, 4)


@pytest.mark.parametrize("upto", [0, 2, 3])
async def test_a_signed_checkpoint_of_another_state_is_found(upto: int) -> None:
    """It opens, its signature holds, its documents are those of the hash that it names: only folding tells."""
    log = await a_log()
    await put_checkpoint(log, await folded(log, upto))
    report = await check(log)
    assert [finding.place for finding in report.findings] == ["checkpoint 1.4"]
    assert "fold to" in report.findings[0].message
