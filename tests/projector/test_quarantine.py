"""Poison stops every replica where it is; quarantine takes them past it, living or starting, to one state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventlog.append import new_head
from eventlog.driver import AppendTxn, Committed
from eventlog.drivers.memory import MemoryDriver
from eventlog.frames import encode_frame
from eventlog.quarantine import RECORD_QUARANTINED, Quarantined, stand_in
from eventlog.reads import HeadConfirmer
from eventlog.records import HeadRef, KeyClass, NewRecord
from eventlog.sealing import place_record, seal_record
from eventlog.writer import Appended
from identity.node_id import parse_node_id
from mesh import events
from mesh.errors import Conflict, NotFound, NotReady
from mesh.events import RESOURCE_UPDATED
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import State, state_hash
from projector.beginning import from_checkpoints
from projector.envoy.compiler import Compiler
from projector.projection import Projection
from projector.quarantining import Examined, examine
from projector.refold import open_archive, refold
from projector.replica import Replica, event_of
from projector.verification import verify_archive
from tests.conditions import await_until
from tests.mesh.worlds import ACCOUNT, MESH, PRINCIPAL, key, node_spec
from tests.projector.archives import archived
from tests.projector.logs import BOTH, CLOCK, MemoryLog
from tests.projector.test_replica import running

NODE = key("virtualNode", "cart-v1")


@pytest.fixture
async def log(tmp_path: Path) -> MemoryLog:
    log = await MemoryLog.create(tmp_path)
    await log.fill_shop()
    return log


async def append_misfit(log: MemoryLog) -> Position:
    """An event that opens, and that decide would never make: it changes what is not there."""
    data = {"key": list(key("virtualNode", "nobody")), "spec": node_spec()}
    new = NewRecord(RESOURCE_UPDATED, 1, ACCOUNT, PRINCIPAL, "192.0.2.7", "misfit", None, data)
    return (await log.append(new)).head.head.at


async def append_unopenable(log: MemoryLog) -> Position:
    """A record with one byte of its sealed data changed before it was written: an intact chain over damage."""
    head = log.head
    assert head is not None
    keys = await log.keyring(BOTH).sealing_keys(head.head.log_id, KeyClass.CONFIG)
    new = NewRecord(RESOURCE_UPDATED, 1, ACCOUNT, PRINCIPAL, "192.0.2.7", "broken", None, {"key": list(NODE)})
    stored = seal_record(place_record(new, head.head, 1, 1), head.head, keys, (b"1" * 32, b"2" * 32))
    broken = stored[:-1] + bytes([stored[-1] ^ 1])
    after = new_head(head.head, [broken])
    committed = await MemoryDriver(log.store).append(AppendTxn(head, encode_frame([broken]), after))
    assert isinstance(committed, Committed)
    log.head = HeadRef(after, committed.mod_revision)
    return after.at


POISONS = {"unknown": MemoryLog.append_poison, "misfit": append_misfit, "unopenable": append_unopenable}


def pass_over(log: MemoryLog, at: Position, by: Appended, time_us: int = 0) -> None:
    """The oracle: what the fold must be once `at` does not count."""
    named = Quarantined(at, time_us, by.head.head.at)
    for record in (stand_in(named), *by.records):
        log.state = evolve(log.state, event_of(record))


async def caught_up(log: MemoryLog, *replicas: Replica) -> None:
    for replica in replicas:
        await await_until(lambda replica=replica: replica.halted is None and replica.position == log.state.position)  # type: ignore[misc]
        assert state_hash(replica.state) == state_hash(log.state)
        assert replica.ready


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("checkpointed", [False, True])
async def test_replicas_stop_at_poison_and_go_on_once_it_is_quarantined(
    log: MemoryLog, poison: str, *, checkpointed: bool
) -> None:
    if checkpointed:
        await log.checkpoint()
        await log.update_resource(NODE, node_spec(8081))
    sound = log.state
    living, starting = log.replica(BOTH), log.replica()
    async with running(living):
        await living.confirmed(60.0)
        at = await POISONS[poison](log)
        async with running(starting):
            for replica in (living, starting):
                await await_until(lambda replica=replica: replica.halted is not None)  # type: ignore[misc]
                assert replica.halted is not None
                assert str(at) in replica.halted
                assert state_hash(replica.state) == state_hash(sound)
                with pytest.raises(NotReady, match=str(at)):
                    await replica.confirmed(60.0)
            waiting = asyncio.ensure_future(living.wait_for(sound.position, 60.0))
            by = await log.quarantine(at, time_us=sound.time_us + 5)
            pass_over(log, at, by, sound.time_us + 5)
            await caught_up(log, living, starting)
            await waiting
            await log.update_resource(NODE, node_spec(8082))
            await caught_up(log, living, starting)
            assert await living.confirmed(60.0) == log.state.position
            late = log.replica(BOTH)
            async with running(late):
                await caught_up(log, late)


async def test_poison_in_the_middle_of_a_frame(log: MemoryLog) -> None:
    def new(name: str, port: int) -> NewRecord:
        data = {"key": list(key("virtualNode", name)), "spec": node_spec(port)}
        return NewRecord(RESOURCE_UPDATED, 1, ACCOUNT, PRINCIPAL, "192.0.2.7", "r", None, data)

    living = log.replica()
    async with running(living):
        await living.confirmed(60.0)
        written = await log.append(new("cart-v1", 8081), new("nobody", 1), new("cart-v1", 8082))
        await await_until(lambda: living.halted is not None)
        assert living.position == written.records[0].position
        by = await log.quarantine(written.records[1].position)
        log.state = evolve(log.state, event_of(written.records[0]))
        stand = stand_in(Quarantined(written.records[1].position, 0, by.head.head.at))
        for record in (stand, written.records[2], *by.records):
            log.state = evolve(log.state, event_of(record))
        starting = log.replica(BOTH)
        async with running(starting):
            await caught_up(log, living, starting)
    assert living.head_ref == log.head


async def test_two_poisonous_records_need_two_words(log: MemoryLog) -> None:
    living = log.replica()
    async with running(living):
        await living.confirmed(60.0)
        sound = log.state
        first, second = await log.append_poison(), await append_unopenable(log)
        by_first = await log.quarantine(first)
        await await_until(lambda: living.halted is not None and str(second) in living.halted)
        assert living.position == first
        by_second = await log.quarantine(second)
        for record in (
            stand_in(Quarantined(first, 0, by_first.head.head.at)),
            stand_in(Quarantined(second, 0, by_second.head.head.at)),
            *by_first.records,
            *by_second.records,
        ):
            sound = evolve(sound, event_of(record))
        log.state = sound
        await caught_up(log, living)


async def test_a_healthy_record_is_taken_out_of_every_fold_and_of_checkpoints(log: MemoryLog) -> None:
    """Forced: what it did is gone in all replicas alike, also in those that begin with a checkpoint that has it."""
    older = await log.checkpoint()
    base = log.state
    done = await log.update_resource(NODE, node_spec(8081))
    after = await log.update_resource(key("virtualNode", "cart-v2"), node_spec(8082))
    void = await log.checkpoint()
    await MemoryDriver(log.store).trim(older, expected={}, fence=log.store.grant("trim"))
    shown: list[State] = []
    living = log.replica(BOTH)
    living.subscribe(lambda _before, now, _events: shown.append(now))
    async with running(living):
        await living.confirmed(60.0)
        by = await log.quarantine(done.records[0].position, done.records[0].time_us)
        for record in (
            stand_in(Quarantined(done.records[0].position, done.records[0].time_us, by.head.head.at)),
            *after.records,
            *by.records,
        ):
            base = evolve(base, event_of(record))
        log.state = base
        starting = log.replica()
        async with running(starting):
            await caught_up(log, living, starting)
    assert void > older
    assert log.state.resources[NODE].version == 1
    assert log.state.resources[key("virtualNode", "cart-v2")].version == 2
    positions = [state.position for state in shown]
    assert positions == sorted(positions), "nobody was shown an older state meanwhile"


async def test_what_cannot_be_taken_out_any_more_stops_the_replicas(log: MemoryLog) -> None:
    """Every checkpoint that is left has the record, and the log before it is gone."""
    done = await log.update_resource(NODE, node_spec(8081))
    void = await log.checkpoint()
    await MemoryDriver(log.store).trim(void, expected={}, fence=log.store.grant("trim"))
    await log.quarantine(done.records[0].position)
    replica = log.replica()
    async with running(replica):
        await await_until(lambda: replica.halted is not None)
    assert replica.halted is not None
    assert "archive" in replica.halted


async def test_a_projection_keeps_what_its_proxies_have(log: MemoryLog) -> None:
    node = parse_node_id(f"mesh/{MESH.mesh}/virtualNode/cart-v1", ACCOUNT)
    replica = log.replica()
    projection = Projection(replica, Compiler())
    async with running(replica):
        await replica.confirmed(60.0)
        changed: list[object] = []
        projection.subscribe(node, changed.append)
        had = projection.current(node)
        assert had is not None
        at = await log.append_poison()
        await await_until(lambda: replica.halted is not None)
        assert projection.current(node) is had
        assert changed == []
        with pytest.raises(NotReady):
            await projection.confirmed(60.0)
        await log.quarantine(at)
        await await_until(lambda: replica.halted is None and replica.position > at)
        now = projection.current(node)
        assert now is not None
        assert now.resources == had.resources, "the same resources with the same versions"


async def look(log: MemoryLog, position: Position) -> Examined:
    driver = MemoryDriver(log.store)

    def replica(known: tuple[Quarantined, ...]) -> Replica:
        begin = from_checkpoints(MESH_FOLD, driver, log.keyring(BOTH))
        return Replica(MESH_FOLD, log.follower(BOTH), HeadConfirmer(driver), CLOCK, begin, quarantined=known)

    return await examine(driver, log.keyring(BOTH), replica, position)


@pytest.mark.parametrize("poison", POISONS)
async def test_poison_is_known_for_what_it_is(log: MemoryLog, poison: str) -> None:
    at = await POISONS[poison](log)
    found = await look(log, at)
    assert found.stops is not None
    assert str(at) in found.stops
    assert found.next is None
    assert (found.record is None) == (poison == "unopenable")
    later = await log.append_poison()
    found = await look(log, at)
    assert found.next is not None
    assert str(later) in found.next
    for other in (later, Position(1, 1)):
        with pytest.raises(Conflict, match=f"What stops the fold is record {at.position}"):
            await look(log, other)
    await log.quarantine(at)
    with pytest.raises(Conflict, match="already"):
        await look(log, at)


async def test_a_sound_record_is_shown_with_what_needs_it(log: MemoryLog) -> None:
    await log.checkpoint()
    done = await log.update_resource(NODE, node_spec(8081))
    found = await look(log, done.records[0].position)
    assert found.stops is None
    assert found.next is None
    assert found.record is not None
    assert found.record.data == done.records[0].data
    made_the_node = await look(log, Position(1, 2))
    assert made_the_node.stops is None
    assert made_the_node.next is not None, "its update cannot be folded without it"
    assert str(done.records[0].position) in made_the_node.next
    with pytest.raises(NotFound):
        await look(log, Position(1, 999))


@pytest.mark.parametrize("poison", POISONS)
async def test_an_archive_with_quarantined_poison_verifies_and_refolds(log: MemoryLog, poison: str) -> None:
    await log.checkpoint()
    before = log.state
    at = await POISONS[poison](log)
    by = await log.quarantine(at)
    pass_over(log, at, by)
    await log.update_resource(NODE, node_spec(8081))
    archive = await archived(log)
    verified = await verify_archive(MESH_FOLD, archive, log.providers(BOTH))
    assert verified.state_hash == state_hash(log.state)
    opened = await open_archive(archive, log.providers(BOTH))
    for from_nothing in (False, True):
        whole = await refold(MESH_FOLD, opened, log.state.position, from_nothing=from_nothing)
        assert state_hash(whole.state) == state_hash(log.state)
        there = await refold(MESH_FOLD, opened, at, from_nothing=from_nothing)
        assert there.state.position == at
        assert there.state.resources == before.resources, "also at the record itself, before the word was given"


async def test_an_archive_forgets_a_healthy_record_that_was_quarantined(log: MemoryLog) -> None:
    await log.checkpoint()
    base = log.state
    done = await log.update_resource(NODE, node_spec(8081))
    counted = log.state
    await log.checkpoint()
    by = await log.quarantine(done.records[0].position)
    for record in (stand_in(Quarantined(done.records[0].position, 0, by.head.head.at)), *by.records):
        base = evolve(base, event_of(record))
    archive = await archived(log)
    verified = await verify_archive(MESH_FOLD, archive, log.providers(BOTH))
    assert verified.state_hash == state_hash(base)
    opened = await open_archive(archive, log.providers(BOTH))
    for from_nothing in (False, True):
        assert state_hash(
            (await refold(MESH_FOLD, opened, base.position, from_nothing=from_nothing)).state
        ) == state_hash(base)
    then = await refold(MESH_FOLD, opened, counted.position)
    assert state_hash(then.state) == state_hash(counted), "what it was then, it was"


def test_both_rooms_mean_the_same_type() -> None:
    assert events.RECORD_QUARANTINED == RECORD_QUARANTINED
