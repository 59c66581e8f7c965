"""A log made again from its archive is the log as it was: at every position, over every interruption, and never a
guess when something is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.reader import ArchiveReader
from eventlog.audit import ChainWriter, Refusals, segment_name
from eventlog.checkpoints import newest_checkpoint
from eventlog.driver import LogDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from eventlog.restore import Journal, Kind, Loss, new_epoch
from eventlog.signing import signing_key
from mesh.checkpoint import from_documents
from mesh.commands import (
    Create,
    CreateAccessKey,
    CreatePrincipal,
    Delete,
    DisableAccessKey,
    PutInlinePolicy,
    RaiseLevel,
    Update,
)
from mesh.errors import Conflict, Damaged, IntegrityError, MissingKey, NotFound, TimelineMoved
from mesh.events import LOG_RESTORED
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.position import ORIGIN, Position
from mesh.state import State, state_hash
from projector.refold import OpenArchive, Refolded, open_archive, refold
from projector.replica import event_of
from projector.restoring import LogRestore, first_records
from projector.verification import verify_archive, verify_without_keys
from tests.eventlog.logs import read_all
from tests.mesh.worlds import ACCOUNT, MESH, PRINCIPAL, key, node_spec
from tests.projector.archives import archived, ship
from tests.projector.logs import BOTH, CLOCK, ENTROPY, MemoryLog


async def busy_log(directory: Path, events: int) -> MemoryLog:
    """A mesh whose nodes come, change and go."""
    log = await MemoryLog.create(directory)
    await log.create_access_key()
    await log.create_resource(MESH, {})
    drawn, living = random.Random(7), set[str]()  # noqa: S311 - the same history every time
    while log.state.position.position < events:
        name = f"node-{drawn.randrange(40)}"
        node = key("virtualNode", name)
        if name not in living:
            await log.do(Create(node, node_spec(drawn.randrange(1, 60_000)), {}))
            living.add(name)
        elif drawn.random() < 0.2:
            await log.do(Delete(node))
            living.remove(name)
        else:
            await log.do(Update(node, node_spec(drawn.randrange(1, 60_000))))
    return log


async def oracle(log: MemoryLog) -> list[State]:
    """The state after each position, folded one by one from the log itself; the empty one first."""
    states = [State()]
    for record in await read_all(log.follower(BOTH)):
        states.append(evolve(states[-1], event_of(record)))
    return states


def journal_for(archive: OpenArchive, refolded: Refolded, **fields: Any) -> Journal:
    claims = [claim.epoch for claim in archive.index.claims]
    made = Journal(
        restore_id="restore-1",
        kind=Kind.CLUSTER,
        source="memory:",
        asked=str(refolded.state.position),
        reason="",
        base=refolded.base,
        head=new_epoch(refolded.base, claims),
        loss=Loss(refolded.state.position, archive.index.head.position, (), (), certain=True),
        archive_head=archive.index.head.at,
        begun_us=CLOCK.now_us(),
    )
    return replace(made, **fields)


Providers = dict[KeyClass, KeyProvider]


class Restored:
    """The parts of one restore into an empty store."""

    def __init__(self, archive: OpenArchive, refolded: Refolded, providers: Providers, journal: Journal) -> None:
        self.archive, self.refolded, self.providers, self.journal = archive, refolded, providers, journal
        self.store = MemoryStore()
        self.driver: LogDriver = MemoryDriver(self.store)
        self.records = first_records(journal, ACCOUNT, PRINCIPAL)

    @property
    def steps(self) -> LogRestore:
        return LogRestore(self.journal, self.providers, CLOCK, ENTROPY)

    async def claim(self, objects: MemoryObjectStore) -> None:
        log_id = self.archive.index.log_id
        signer = await signing_key(self.archive.key_store, self.archive.keyring, log_id, CLOCK, ENTROPY)
        await self.steps.claim(objects, self.archive.index.newest, signer)

    async def write(self) -> None:
        await self.steps.write(MESH_FOLD, self.driver, self.refolded.state, self.archive.data_keys)

    async def announce(self) -> None:
        await self.steps.announce(self.driver, self.records, self.refolded.state.time_us)

    async def all(self, objects: MemoryObjectStore) -> None:
        await self.claim(objects)
        await self.write()
        await self.announce()


async def open_for(log: MemoryLog, objects: MemoryObjectStore) -> OpenArchive:
    return await open_archive(objects, log.providers(BOTH))


async def restored(log: MemoryLog, objects: MemoryObjectStore, at: Position, **fields: Any) -> Restored:
    archive = await open_for(log, objects)
    refolded = await refold(MESH_FOLD, archive, at)
    return Restored(archive, refolded, dict(log.providers(BOTH)), journal_for(archive, refolded, **fields))


async def folded_by_a_role(one: Restored) -> State:
    """As a role starts on the new store: its newest checkpoint, and what follows it."""
    driver = MemoryDriver(one.store)
    keyring = Keyring(driver, one.providers)
    checkpoint = await newest_checkpoint(driver, keyring)
    assert checkpoint is not None
    state = from_documents(checkpoint.config, checkpoint.secrets)
    for record in await read_all(Follower(driver, keyring, CLOCK, ENTROPY), checkpoint.manifest.at):
        state = evolve(state, event_of(record))
    return state


# --- every moment


@pytest.mark.parametrize("events", [300, pytest.param(2_000, marks=pytest.mark.long)])
async def test_a_restore_to_any_position_is_the_fold_of_that_prefix(tmp_path: Path, events: int) -> None:
    log = await busy_log(tmp_path, events)
    objects, states = await archived(log), await oracle(log)
    assert (await verify_archive(MESH_FOLD, objects, log.providers(BOTH))).state_hash == state_hash(states[-1])
    for number in (0, 1, 2, *range(events // 20 - 3, events, events // 9 - 11), len(states) - 1):
        copy = MemoryObjectStore()
        copy.objects = dict(objects.objects)
        one = await restored(log, copy, states[number].position)
        assert one.refolded.state == states[number], number
        await one.all(copy)
        now = await folded_by_a_role(one)
        announced = now.lineage[-1]
        assert (announced, now.position) == (states[number].position, Position(2, number + 1))
        rest: dict[str, Any] = {"position": ORIGIN, "time_us": 0, "lineage": ()}
        assert replace(now, **rest) == replace(states[number], **rest), number


async def test_a_restored_log_is_archived_and_restored_again_and_numbers_go_on(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 30)
    objects, states = await archived(log), await oracle(log)
    one = await restored(log, objects, Position(1, 20))
    await one.all(objects)
    await ship(one.store, Keyring(one.driver, one.providers), objects)
    archive = await open_for(log, objects)
    assert (archive.index.epoch, archive.index.head.at) == (2, Position(2, 21))
    assert (await refold(MESH_FOLD, archive, Position(1, 20))).state == states[20]
    assert (await refold(MESH_FOLD, archive, Position(1, 7), from_nothing=True)).state == states[7]
    again = await restored(log, objects, Position(2, 21))
    await again.all(objects)
    now = await folded_by_a_role(again)
    assert (now.position, now.lineage) == (Position(3, 22), (Position(1, 20), Position(2, 21)))
    await verify_without_keys(objects)


async def test_what_was_left_behind_is_not_on_the_timeline_any_more(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 30)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 20))
    await one.claim(objects)
    with pytest.raises(TimelineMoved):
        await refold(MESH_FOLD, await open_for(log, objects), Position(1, 21))
    older = await ArchiveReader(objects).load(epoch=1)
    assert older.head.position == log.state.position.position, "it is kept all the same"


# --- what must stay revoked


async def test_a_key_that_was_disabled_after_the_moment_is_disabled_again(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 10)
    await log.do(CreateAccessKey("AKIDOTHER", "another secret", ACCOUNT, PRINCIPAL, admin=True))
    await log.do(DisableAccessKey("AKIDEXAMPLE", ACCOUNT))
    objects = await archived(log)
    event = {"type": "AccessKeyDisabled", "account": ACCOUNT, "actor": PRINCIPAL}
    one = await restored(
        log, objects, Position(1, 5), restricting=({**event, "data": {"access_key_id": "AKIDEXAMPLE"}},)
    )
    assert one.refolded.state.access_keys["AKIDEXAMPLE"].disabled_us is None
    await one.all(objects)
    now = await folded_by_a_role(one)
    assert now.access_keys["AKIDEXAMPLE"].disabled_us is not None
    assert now.position == Position(2, 7)


async def test_a_right_that_was_taken_after_the_moment_is_taken_again(tmp_path: Path) -> None:
    log = await MemoryLog.create(tmp_path)
    await log.create_access_key()
    ann = f"arn:aws:iam::{ACCOUNT}:user/ann"
    one, two = (f'{{"Effect": "Allow", "Action": "a:{name}", "Resource": "*"}}' for name in ("One", "Two"))
    await log.do(RaiseLevel(2))
    await log.do(CreatePrincipal(ann))
    await log.do(PutInlinePolicy(ann, "p", f'{{"Statement": [{one}, {two}]}}'))
    before = log.state.position
    less = f'{{"Statement": [{two}]}}'
    await log.do(PutInlinePolicy(ann, "p", less))
    objects = await archived(log)
    data = {"principal": ann, "name": "p", "document": less}
    event = {"type": "InlinePolicyPut", "account": ACCOUNT, "actor": PRINCIPAL, "data": data}
    restored_one = await restored(log, objects, before, restricting=(event,))
    await restored_one.all(objects)
    now = await folded_by_a_role(restored_one)
    ((name, document),) = now.principals[ann].inline
    assert (name, "a:Two" in document, "a:One" in document) == ("p", True, False)


# --- interruptions


async def test_every_step_may_be_repeated(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 12)
    objects, states = await archived(log), await oracle(log)
    one = await restored(log, objects, Position(1, 12))
    for step in (one.claim, one.write, one.announce):
        for _ in range(2):
            await (step(objects) if step == one.claim else step())  # type: ignore[call-arg]
    now = await folded_by_a_role(one)
    assert now.resources == states[12].resources
    assert now.position == Position(2, 13)


class Dying(MemoryDriver):
    """Ends the process, as it were, before the `left`-th write that it is asked for, or right after it."""

    def __init__(self, store: MemoryStore, left: int, *, after: bool) -> None:
        super().__init__(store)
        self._left, self._after = left, after

    async def _maybe(self, write: Callable[[], Awaitable[Any]]) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise asyncio.CancelledError
        done = await write()
        if self._left == 0:
            raise asyncio.CancelledError
        return done

    async def write_entries(self, *arguments: Any, **named: Any) -> Any:
        write = super().write_entries
        return await self._maybe(lambda: write(*arguments, **named))

    async def create(self, *arguments: Any) -> Any:
        write = super().create
        return await self._maybe(lambda: write(*arguments))

    async def append(self, *arguments: Any) -> Any:
        write = super().append
        return await self._maybe(lambda: write(*arguments))


async def test_a_restore_that_dies_at_any_write_is_done_by_the_next_one(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 12)
    objects, states = await archived(log), await oracle(log)
    interrupted = 0
    for left in range(1, 30):
        for after in (False, True):
            one = await restored(log, objects, Position(1, 12))
            one.driver = Dying(one.store, left, after=after)
            try:
                await one.write()
                await one.announce()
            except asyncio.CancelledError:
                interrupted += 1
            one.driver = MemoryDriver(one.store)
            await one.write()
            await one.announce()
            now = await folded_by_a_role(one)
            assert (now.position, now.resources) == (Position(2, 13), states[12].resources), (left, after)
    assert interrupted > 8


async def test_two_restores_do_not_get_one_epoch(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 5)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 5))
    other = await restored(log, objects, Position(1, 4), restore_id="restore-2")
    await one.claim(objects)
    with pytest.raises(Conflict, match="restore-1"):
        await other.claim(objects)


async def test_nothing_is_written_into_a_store_that_has_another_log(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 5)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 5))
    one.store, one.driver = log.store, MemoryDriver(log.store)
    before = dict(log.store.entries)
    with pytest.raises(Conflict, match="empty"):
        await one.write()
    assert log.store.entries == before


# --- dead epochs


async def test_a_writer_of_the_dead_epoch_that_wakes_up_on_the_new_store_writes_nothing(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 6)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 6))
    await one.all(objects)
    paused = MemoryLog(tmp_path)
    paused.store, paused.state, paused.head = one.store, log.state, log.head
    paused.write_to(one.store)
    with pytest.raises(TimelineMoved, match="epoch 2"):
        await paused.create_resource(key("virtualNode", "late"), node_spec())
    assert (await folded_by_a_role(one)).position == Position(2, 7)


async def test_the_archiver_of_the_dead_epoch_ships_nothing_more(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 6)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 6))
    await one.claim(objects)
    await log.create_resource(key("virtualNode", "late"), node_spec())
    before = dict(objects.objects)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await ship(log.store, log.keyring(BOTH), objects)
    assert objects.objects == before


# --- a clone


async def test_a_clone_has_a_log_of_its_own_and_keys_of_its_own(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 12)
    objects, states = await archived(log), await oracle(log)
    (tmp_path / "clone").mkdir()
    own: Providers = {}
    for key_class in BOTH:
        create_key_file(tmp_path / "clone" / key_class.value, key_class, ENTROPY)
        own[key_class] = FileKeyProvider(tmp_path / "clone" / key_class.value, key_class, ENTROPY)
    one = await restored(log, objects, Position(1, 12), kind=Kind.CLONE)
    journal = one.journal
    one.journal = replace(
        journal, base=journal.base._replace(log_id="clone"), head=journal.head._replace(log_id="clone")
    )
    one.providers = own
    untouched = dict(objects.objects)
    await one.steps.write(MESH_FOLD, one.driver, one.refolded.state, {})
    await one.announce()
    now = await folded_by_a_role(one)
    assert now.resources == states[12].resources
    assert set(await one.driver.list_data_keys()).isdisjoint(await MemoryDriver(log.store).list_data_keys())
    theirs = MemoryObjectStore()
    await ship(one.store, Keyring(one.driver, own), theirs)
    found = await verify_archive(MESH_FOLD, theirs, own)
    assert (found.head, found.state_hash) == (now.position, state_hash(now))
    assert objects.objects == untouched
    with pytest.raises(IntegrityError):
        await ship_into_foreign(one, own, objects)
    assert objects.objects == untouched


async def ship_into_foreign(one: Restored, own: Providers, objects: MemoryObjectStore) -> None:
    """As if somebody had set the clone's archive to the first cluster's."""
    try:
        async with asyncio.timeout(5.0):
            await ship(one.store, Keyring(one.driver, own), objects)
    except TimeoutError:
        raise Damaged("it went on for ever and shipped nothing") from None


# --- never a guess


async def test_without_the_key_nothing_is_restored(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 5)
    objects = await archived(log)
    (tmp_path / "other").mkdir()
    wrong: Providers = {}
    for key_class in BOTH:
        create_key_file(tmp_path / "other" / key_class.value, key_class, ENTROPY)
        wrong[key_class] = FileKeyProvider(tmp_path / "other" / key_class.value, key_class, ENTROPY)
    with pytest.raises(IntegrityError):
        await open_archive(objects, wrong)
    with pytest.raises(MissingKey):
        await refold(MESH_FOLD, await open_archive(objects, {}), Position(1, 5))


async def test_every_object_that_is_damaged_or_gone_is_noticed(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 30)
    objects = await archived(log)
    named = [name for name in objects.objects if not name.startswith("keys/")]
    assert len(named) >= 4
    for name in named:
        sound = objects.objects[name]
        for damaged in (None, sound[:-1], bytes([sound[0] ^ 1]) + sound[1:], sound[:-1] + bytes([sound[-1] ^ 1])):
            if damaged is None:
                del objects.objects[name]
            else:
                objects.objects[name] = damaged
            with pytest.raises((IntegrityError, NotFound)):
                await verify_archive(MESH_FOLD, objects, log.providers(BOTH))
            objects.objects[name] = sound
    await verify_archive(MESH_FOLD, objects, log.providers(BOTH))


async def test_a_damaged_segment_of_refused_calls_is_noticed_with_and_without_keys(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 5)
    objects = await archived(log)
    archive = await open_for(log, objects)
    key, _ = await archive.keyring.sealing_keys(archive.index.log_id, KeyClass.CONFIG)
    writer = ChainWriter(objects, archive.index.log_id, "api-z1")
    for number in range(3):
        entry = {"time_us": number, "eventName": "CreateMesh"}
        await writer.append(Refusals((entry,), {}), key, bytes([number]) * 32, None)
    for verified in (await verify_archive(MESH_FOLD, objects, log.providers(BOTH)), await verify_without_keys(objects)):
        assert verified.audit_segments == 3
    name = segment_name("api-z1", 2)
    sound = objects.objects.pop(name)
    for damaged in (
        None,
        sound[:-1],
        bytes([sound[0] ^ 1]) + sound[1:],
        sound[:60] + bytes([sound[60] ^ 1]) + sound[61:],
    ):
        if damaged is not None:
            objects.objects[name] = damaged
        with pytest.raises(IntegrityError, match="audit/api-z1"):
            await verify_archive(MESH_FOLD, objects, log.providers(BOTH))
        with pytest.raises(IntegrityError, match="audit/api-z1"):
            await verify_without_keys(objects)


async def test_the_first_record_says_what_was_restored(tmp_path: Path) -> None:
    log = await busy_log(tmp_path, 8)
    objects = await archived(log)
    one = await restored(log, objects, Position(1, 6), reason="fat finger")
    await one.all(objects)
    (first,) = [r for r in one.records if r.type == LOG_RESTORED]
    assert first.data == {
        "from_epoch": 1,
        "position": 6,
        "hash": one.journal.base.hash.hex(),
        "to": "1.6",
        "known": log.state.position.position,
        "reason": "fat finger",
    }
