"""Where a replica begins: the newest checkpoint that opens, then the tail; and what it does where there is none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from eventlog.checkpoints import part_name
from eventlog.driver import WatchBatch
from eventlog.drivers.memory import MemoryDriver
from eventlog.follower import Follower
from eventlog.reads import HeadConfirmer
from mesh.errors import NoQuorum
from mesh.events import Event
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import State, state_hash
from projector.beginning import from_checkpoints
from projector.replica import Replica, are_all
from tests.conditions import await_until
from tests.mesh.worlds import key, node_spec
from tests.projector.logs import BOTH, CLOCK, CONFIG_ONLY, ENTROPY, MemoryLog
from tests.projector.test_replica import running

NODE = key("virtualNode", "cart-v1")


@pytest.fixture
async def log(tmp_path: Path) -> MemoryLog:
    log = await MemoryLog.create(tmp_path)
    await log.create_access_key()
    await log.fill_shop()
    return log


async def damage(log: MemoryLog, at: Position, number: int = 0) -> None:
    driver, name = MemoryDriver(log.store), part_name(at, number)
    entry = await driver.read_entry(name)
    assert entry is not None
    await driver.write_entries({name: entry.value[:-1] + bytes([entry.value[-1] ^ 1])})


async def trim(log: MemoryLog, upto: Position) -> None:
    await MemoryDriver(log.store).trim(upto, expected={}, fence=log.store.grant("trim"))


async def caught_up(log: MemoryLog, replica: Replica) -> None:
    await replica.wait_for(log.state.position, 60.0)
    await await_until(lambda: replica.ready)
    assert state_hash(replica.state) == state_hash(log.state)


@pytest.mark.parametrize("classes", [BOTH, CONFIG_ONLY])
async def test_a_checkpoint_and_its_tail_are_the_whole_fold(log: MemoryLog, classes: tuple[object, ...]) -> None:
    at = await log.checkpoint()
    await log.update_resource(NODE, node_spec(8081))
    await trim(log, at)
    replica = log.replica(classes)  # type: ignore[arg-type]
    async with running(replica):
        await caught_up(log, replica)
        assert len(replica.state.access_keys) == (1 if classes is BOTH else 0)
        assert replica.head_ref == log.head
        assert replica.state.resources == log.state.resources
        assert replica.state.tokens == log.state.tokens
        await log.update_resource(NODE, node_spec(8082))
        await caught_up(log, replica)
    assert list(replica.alarms) == []


async def test_a_checkpoint_at_the_head_is_enough(log: MemoryLog) -> None:
    await trim(log, await log.checkpoint())
    replica = log.replica()
    async with running(replica):
        await await_until(lambda: replica.ready)
        assert state_hash(replica.state) == state_hash(log.state)
        assert await replica.confirmed(60.0) == log.state.position


async def test_a_damaged_checkpoint_is_named_and_an_older_one_is_used(log: MemoryLog) -> None:
    older = await log.checkpoint()
    await log.update_resource(NODE, node_spec(8081))
    newer = await log.checkpoint()
    await log.update_resource(NODE, node_spec(8082))
    await trim(log, older)
    await damage(log, newer)
    replica = log.replica()
    async with running(replica):
        await caught_up(log, replica)
    (alarm,) = replica.alarms
    assert str(newer) in alarm


async def test_without_a_sound_checkpoint_a_whole_log_does(log: MemoryLog) -> None:
    await damage(log, await log.checkpoint())
    replica = log.replica()
    async with running(replica):
        await caught_up(log, replica)
    assert len(replica.alarms) == 1


async def test_where_nothing_gives_the_state_the_replica_stops_with_a_sentence(log: MemoryLog) -> None:
    at = await log.checkpoint()
    await log.update_resource(NODE, node_spec(8081))
    await trim(log, at)
    await damage(log, at)
    replica = log.replica()
    async with running(replica):
        await await_until(lambda: replica.halted is not None)
    assert replica.halted is not None
    assert str(at) in replica.halted
    assert "archive" in replica.halted
    assert not replica.ready
    assert replica.position == Position(1, 0), "an empty mesh is never shown as a folded one"


async def test_a_lost_data_key_of_a_checkpoint_stops_it_too(log: MemoryLog) -> None:
    await log.checkpoint()
    keys = [name for name in log.store.entries if name.startswith("datakey/")]
    kept = {name: log.store.entries[name] for name in keys}
    await MemoryDriver(log.store).write_entries(dict.fromkeys(keys))
    replica = log.replica()
    async with running(replica):
        await await_until(lambda: replica.halted is not None)
    assert replica.halted is not None
    assert any(name.removeprefix("datakey/") in replica.halted for name in kept)


class CutOff(MemoryDriver):
    """A driver whose own way to the store can be cut."""

    cut = False

    async def _turn(self) -> None:
        if self.cut:
            raise NoQuorum("cut off in this test")
        await super()._turn()

    async def watch(self, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        async with aclosing(super().watch(from_revision)) as batches:
            async for batch in batches:
                if self.cut:
                    raise NoQuorum("cut off in this test")
                yield batch


def cut_off(log: MemoryLog) -> tuple[Replica, CutOff]:
    driver = CutOff(log.store)
    follower = Follower(driver, log.keyring(CONFIG_ONLY), CLOCK, ENTROPY)
    begin = from_checkpoints(MESH_FOLD, driver, log.keyring(CONFIG_ONLY))
    return Replica(MESH_FOLD, follower, HeadConfirmer(driver), CLOCK, begin), driver


async def test_a_log_that_was_trimmed_under_a_replica_makes_it_begin_anew(log: MemoryLog) -> None:
    """It was cut off for long; what it missed is in a checkpoint, and no longer in the log."""
    told: list[bool] = []

    def listener(before: State, after: State, events: Sequence[Event]) -> None:
        assert after.position > before.position, "never back"
        told.append(are_all(before, events))

    replica, driver = cut_off(log)
    replica.subscribe(listener)
    async with running(replica):
        await caught_up(log, replica)
        told.clear()
        driver.cut = True
        for port in range(8081, 8091):
            await log.update_resource(NODE, node_spec(port))
        at = await log.checkpoint()
        await log.update_resource(NODE, node_spec(9000))
        await trim(log, at)
        driver.cut = False
        await caught_up(log, replica)
        await log.update_resource(NODE, node_spec(9001))
        await caught_up(log, replica)
        assert replica.halted is None
    assert told == [False, True]


async def test_records_that_are_gone_and_in_no_checkpoint_stop_a_replica(log: MemoryLog) -> None:
    at = await log.checkpoint()
    replica, driver = cut_off(log)
    async with running(replica):
        await caught_up(log, replica)
        sound = log.state
        driver.cut = True
        await log.update_resource(NODE, node_spec(8081))
        await log.update_resource(NODE, node_spec(8082))
        await trim(log, log.state.position._replace(position=log.state.position.position - 1))
        driver.cut = False
        await await_until(lambda: replica.halted is not None)
    assert replica.halted is not None
    assert f"no checkpoint in the store leads on from {at}" in replica.halted
    assert state_hash(replica.state) == state_hash(sound)


async def test_thousands_of_records_are_folded_in_bulk_to_the_same_state(log: MemoryLog) -> None:
    for number in range(600):
        await log.update_resource(NODE, node_spec(number + 1))
    told: list[tuple[int, int, bool]] = []
    replica = log.replica()

    def listener(before: State, after: State, events: Sequence[Event]) -> None:
        told.append((before.position.position, len(events), are_all(before, events)))

    replica.subscribe(listener)
    async with running(replica):
        await caught_up(log, replica)
    assert told == [(0, 610, True)]
