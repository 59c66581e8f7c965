"""The registry's log is kept as that of the meshes is: archived, verified, drilled, quarantined, trimmed under
checkpoints, and restored to its newest, whatever the meshes are restored to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cli.genesis import create_registry_log
from cli.restore_registry import PreparedRegistry, RegistrySource, archive_reaches, prepare_registry, resume_registry
from eventlog.archive.memory import MemoryObjectStore
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.fsck import fsck
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.quarantine import Operator, Quarantined, quarantine
from eventlog.reads import HeadConfirmer
from eventlog.records import Head, KeyClass
from eventlog.restore import Journal, Kind, Loss, Witness, decode_journal, encode_journal
from eventlog.signing import signing_key
from eventlog.writer import LogWriter
from mesh.errors import Conflict, Damaged
from mesh.position import Position
from mesh.registry.commands import DeregisterInstance
from mesh.registry.fold import REGISTRY_FOLD
from mesh.registry.state import RegistryState
from projector.beginning import from_checkpoints
from projector.drill import Drill
from projector.quarantining import examine
from projector.refold import open_archive, refold
from projector.replica import Replica
from projector.restoring import LogRestore, first_records
from projector.state_fold import StateFold
from projector.verification import verify_archive
from runtime.supervise import Supervisor
from tests.conditions import PATIENCE_S, await_until
from tests.projector.archives import ship
from tests.projector.logs import BOTH, CLOCK, ENTROPY, MemoryLog
from tests.projector.registry_logs import ACCOUNT, CART, RegistryLog

BESIDE = Journal(
    restore_id="restore-1",
    kind=Kind.CLUSTER,
    source="memory:",
    asked="1.2",
    reason="a test",
    base=Head("mesh", 1, 2, bytes(32)),
    head=Head("mesh", 2, 2, bytes(32)),
    loss=Loss(Position(1, 2), 9, (), (), certain=True),
    archive_head=Position(1, 9),
    begun_us=1,
)
"""What is done to the meshes: they go back."""


@pytest.fixture
async def registry(tmp_path: Path) -> RegistryLog:
    made = await RegistryLog.create(tmp_path)
    await made.stock(2)
    return made


async def archived(registry: RegistryLog) -> MemoryObjectStore:
    objects = MemoryObjectStore()
    await ship(registry.log.store, registry.log.keyring(BOTH), objects)
    return objects


def source_of(registry: RegistryLog, objects: MemoryObjectStore) -> RegistrySource:
    return RegistrySource(store=objects, providers=providers(registry), driver=registry.driver)


def providers(registry: RegistryLog) -> Mapping[KeyClass, KeyProvider]:
    return dict(registry.log.providers(BOTH))


async def restored(prepared: PreparedRegistry, objects: MemoryObjectStore, registry: RegistryLog) -> RegistryState:
    """Every step, twice, and then what a role folds."""
    store, archive = MemoryStore(), prepared.archive
    steps = LogRestore(prepared.journal, providers(registry), CLOCK, ENTROPY)
    records = first_records(prepared.journal, ACCOUNT, "arn:aws:iam::123456789012:root")
    for _ in range(2):
        signer = await signing_key(archive.key_store, archive.keyring, archive.index.log_id, CLOCK, ENTROPY)
        await steps.claim(objects, archive.index.newest, signer)
        await steps.write(REGISTRY_FOLD, MemoryDriver(store), prepared.state.state, archive.data_keys)
        await steps.announce(MemoryDriver(store), records, prepared.state.state.time_us)
    driver, keyring = MemoryDriver(store), Keyring(MemoryDriver(store), providers(registry))
    follower = Follower(driver, keyring, CLOCK, ENTROPY)
    begin = from_checkpoints(REGISTRY_FOLD, driver, keyring)
    replica = Replica(REGISTRY_FOLD, follower, HeadConfirmer(driver), CLOCK, begin)
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        await replica.confirmed(PATIENCE_S)
    return replica.state


async def test_it_is_restored_to_its_newest_although_the_meshes_go_back(registry: RegistryLog) -> None:
    objects = await archived(registry)
    heard = [Witness("api-z1", Position(1, 9), (), Position(1, registry.state.position.position + 3))]
    prepared = await prepare_registry(source_of(registry, objects), BESIDE, heard, "clone", None)
    assert prepared is not None
    assert (prepared.journal.asked, prepared.journal.base.at) == ("latest", registry.state.position)
    assert prepared.journal.loss.size == 3, "what is known to be missing is counted"
    state = await restored(prepared, objects, registry)
    assert state.instances == registry.state.instances
    assert state.position == Position(2, registry.state.position.position + 1)
    assert state.lineage == (registry.state.position,)


async def test_an_interrupted_restore_goes_on_where_it_was(registry: RegistryLog) -> None:
    objects = await archived(registry)
    prepared = await prepare_registry(source_of(registry, objects), BESIDE, [], "clone", None)
    assert prepared is not None
    kept = decode_journal(encode_journal(replace(BESIDE, registry=prepared.journal)), "x")
    assert kept.registry == prepared.journal
    again = await resume_registry(source_of(registry, objects), kept.registry, None)
    assert REGISTRY_FOLD.same(again.state.state, prepared.state.state)
    assert decode_journal(encode_journal(BESIDE), "x").registry is None


async def test_an_archive_without_a_registry_restores_the_meshes_alone(registry: RegistryLog) -> None:
    source = RegistrySource(store=MemoryObjectStore(), providers=providers(registry))
    assert await prepare_registry(source, BESIDE, [], "clone", None) is None
    await archive_reaches(source, CLOCK)


async def test_a_clone_has_a_registry_of_its_own(registry: RegistryLog) -> None:
    objects = await archived(registry)
    clone = replace(BESIDE, kind=Kind.CLONE)
    prepared = await prepare_registry(source_of(registry, objects), clone, [], "of its own", None)
    assert prepared is not None
    assert (prepared.journal.base.log_id, prepared.journal.head.log_id) == ("of its own", "of its own")


async def test_a_damaged_registry_archive_says_how_to_go_on_without_it(registry: RegistryLog) -> None:
    objects = await archived(registry)
    name = max((name for name in objects.objects if name.startswith("objects/")), key=lambda n: len(objects.objects[n]))
    objects.objects[name] = objects.objects[name][:-1] + b"\0"
    with pytest.raises(Damaged, match="move it away to restore the meshes without it"):
        await prepare_registry(source_of(registry, objects), BESIDE, [], "clone", None)


async def test_going_back_waits_until_the_archive_has_all_of_the_registry(registry: RegistryLog) -> None:
    objects = MemoryObjectStore()
    async with Supervisor() as tasks:
        waiting = tasks.start(archive_reaches(source_of(registry, objects), CLOCK), "waits")
        await ship(registry.log.store, registry.log.keyring(BOTH), objects)
        await waiting


async def test_its_archive_is_verified_and_drilled(registry: RegistryLog) -> None:
    await registry.checkpoint()
    await registry.do(DeregisterInstance(registry.state.services[CART].id, "i0"))
    objects = await archived(registry)
    found = await verify_archive(REGISTRY_FOLD, objects, providers(registry))
    assert (found.head, found.checkpoints) == (registry.state.position, 1)
    assert found.state_hash == REGISTRY_FOLD.state_hash(registry.state)
    replica = registry.replica()
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        await await_until(lambda: replica.ready)
        drill = Drill(
            REGISTRY_FOLD,
            objects,
            providers(registry),
            registry.driver,
            replica,
            clock=CLOCK,
            holder_id="api-z1",
            interval_s=60.0,
        )
        result = await drill.once()
    assert (result.ok, result.reason, result.state_hash) == (True, "", found.state_hash)


async def test_fsck_folds_it_by_its_own_rules(registry: RegistryLog) -> None:
    await registry.checkpoint()
    await registry.register(2)
    report = await fsck(registry.driver, registry.log.keyring(BOTH), fold=StateFold(REGISTRY_FOLD))
    assert report.clean
    assert report.states == 1


async def test_a_record_that_stops_it_is_put_in_quarantine_and_it_goes_on(registry: RegistryLog) -> None:
    replica = registry.replica()
    async with Supervisor() as tasks:
        tasks.start(replica.run(), "replica")
        at = await registry.poison()
        await await_until(lambda: replica.halted is not None)
        keyring = registry.log.keyring(BOTH)

        def other(known: tuple[Quarantined, ...]) -> Replica[RegistryState]:
            follower = registry.log.follower(BOTH)
            confirmer = HeadConfirmer(registry.driver)
            return Replica(REGISTRY_FOLD, follower, confirmer, CLOCK, quarantined=known)

        found = await examine(registry.driver, keyring, other, at)
        assert found.stops is not None
        assert found.next is None
        await quarantine(
            registry.driver,
            keyring,
            LogWriter(registry.driver, keyring, CLOCK, ENTROPY),
            position=at,
            time_us=found.named.time_us,
            reason="a test",
            operator=Operator(ACCOUNT, "arn:aws:iam::123456789012:root", "q"),
        )
        await await_until(lambda: replica.halted is None and replica.position.position == at.position + 1)
        assert replica.state.instances == registry.state.instances


async def test_a_cluster_from_before_registries_gets_one_once_whoever_is_first(tmp_path: Path) -> None:
    log = await MemoryLog.create(tmp_path)
    store, keys = MemoryStore(), log.providers(BOTH)
    made = [await create_registry_log(MemoryDriver(store), keys, None, CLOCK, ENTROPY) for _ in range(3)]
    assert made == [True, False, False]
    head = await MemoryDriver(store).read_head()
    assert head is not None
    assert head.head.at == Position(1, 0)


async def test_no_empty_registry_is_made_where_the_archive_has_one(registry: RegistryLog) -> None:
    objects = await archived(registry)
    with pytest.raises(Conflict, match="backup restore --to latest"):
        await create_registry_log(MemoryDriver(MemoryStore()), providers(registry), objects, CLOCK, ENTROPY)
    archive = await open_archive(objects, providers(registry))
    folded = await refold(REGISTRY_FOLD, archive, registry.state.position, from_nothing=True)
    assert REGISTRY_FOLD.same(folded.state, registry.state)
