"""The replica: it folds what the log says, waits, confirms, takes its own appends early, halts on what is unsound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eventlog.follower import AtHand, FollowBatch
from eventlog.quarantine import Quarantined
from eventlog.records import Head, HeadRef
from mesh.errors import NoQuorum, NotReady, Poison, TimelineMoved
from mesh.events import Event
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import State, state_hash
from projector.replica import Replica
from runtime.supervise import Supervisor
from tests.conditions import await_until
from tests.mesh.worlds import MESH, SHOP, key, node_spec
from tests.projector.logs import BOTH, CLOCK, MemoryLog


@pytest.fixture
async def log(tmp_path: Path) -> MemoryLog:
    return await MemoryLog.create(tmp_path)


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    async with Supervisor() as tasks:
        for replica in replicas:
            tasks.start(replica.run(), "replica")
        yield


async def test_it_folds_what_is_there_and_what_comes(log: MemoryLog) -> None:
    await log.fill_shop()
    replica = log.replica()
    assert not replica.ready
    with pytest.raises(NotReady):
        _ = replica.head_ref
    async with running(replica):
        await replica.wait_for(log.state.position, 60.0)
        assert state_hash(replica.state) == state_hash(log.state)
        await await_until(lambda: replica.ready)
        await log.update_resource(key("virtualNode", "cart-v1"), node_spec(8081))
        await replica.wait_for(log.state.position, 60.0)
        assert state_hash(replica.state) == state_hash(log.state)
        assert replica.head_ref == log.head


async def test_an_empty_log_is_folded_and_can_be_appended_to(log: MemoryLog) -> None:
    replica = log.replica()
    async with running(replica):
        await await_until(lambda: replica.ready)
        assert replica.head_ref == log.head
        assert await replica.confirmed(60.0) == Position(1, 0)


async def test_every_fold_is_told_with_its_events_and_a_broken_listener_stops_nobody(log: MemoryLog) -> None:
    told: list[tuple[State, State, Sequence[Event]]] = []

    def broken(*_: object) -> None:
        raise RuntimeError("a broken listener")

    replica = log.replica()
    replica.subscribe(broken)
    end = replica.subscribe(lambda before, after, events: told.append((before, after, events)))
    await log.create_resource(MESH, {})
    async with running(replica):
        await replica.wait_for(Position(1, 1), 60.0)
        await log.create_resource(*SHOP[1])
        await replica.wait_for(Position(1, 2), 60.0)
        end()
        await log.create_resource(*SHOP[2])
        await replica.wait_for(Position(1, 3), 60.0)
    assert [(before.position.position, after.position.position) for before, after, _ in told] == [(0, 1), (1, 2)]
    assert [event.position.position for _, _, events in told for event in events] == [1, 2]


async def test_a_role_without_the_secrets_key_has_the_same_state_hash_and_no_secret(log: MemoryLog) -> None:
    await log.create_access_key()
    await log.fill_shop()
    api, projector = log.replica(BOTH), log.replica()
    async with running(api, projector):
        for replica in (api, projector):
            await replica.wait_for(log.state.position, 60.0)
    assert state_hash(api.state) == state_hash(projector.state)
    assert len(api.state.access_keys) == 1
    assert len(projector.state.access_keys) == 0


async def test_a_wait_ends_when_it_is_folded_or_when_time_is_up(log: MemoryLog) -> None:
    await log.create_resource(MESH, {})
    replica = log.replica()
    async with running(replica):
        with pytest.raises(NotReady, match=r"1\.9"):
            await replica.wait_for(Position(1, 9), 0.05)
        waits = [asyncio.ensure_future(replica.wait_for(Position(1, number), 60.0)) for number in (3, 2, 3)]
        await asyncio.sleep(0)
        await log.create_resource(*SHOP[1])
        await waits[1]
        assert not waits[0].done()
        await log.create_resource(*SHOP[2])
        await asyncio.gather(*waits)


async def test_a_confirmed_position_is_the_head_and_is_folded(log: MemoryLog) -> None:
    replica = log.replica()
    assert replica.confirmed_age_s == float("inf")
    async with running(replica):
        for each, spec in SHOP:
            await log.create_resource(each, spec)
            position = await replica.confirmed(60.0)
            assert position == log.state.position == replica.position
        assert replica.confirmed_age_s < 5.0


async def test_without_a_quorum_nothing_is_confirmed_until_it_is_back(log: MemoryLog) -> None:
    await log.create_resource(MESH, {})
    replica = log.replica()
    async with running(replica):
        await replica.confirmed(60.0)
        log.store.reachable = False
        with pytest.raises(NoQuorum):
            await replica.confirmed(0.2)
        asking = asyncio.ensure_future(replica.confirmed(60.0))
        await asyncio.sleep(0)
        log.store.reachable = True
        assert await asking == Position(1, 1)


async def test_an_own_append_is_folded_before_the_watch_brings_it_and_once(log: MemoryLog) -> None:
    await log.create_resource(MESH, {})
    replica = log.replica()
    told: list[Position] = []
    replica.subscribe(lambda _before, _after, events: told.extend(event.position for event in events))
    async with running(replica):
        await replica.wait_for(Position(1, 1), 60.0)
        appended = await log.create_resource(*SHOP[1])
        assert replica.advance(appended.records, appended.head)
        assert replica.position == Position(1, 2)
        assert replica.head_ref == appended.head
        assert replica.advance(appended.records, appended.head), "again is harmless"
        await log.create_resource(*SHOP[2])
        await replica.wait_for(Position(1, 3), 60.0)
        assert replica.advance(appended.records, appended.head), "and late is harmless"
        assert replica.head_ref == log.head
    assert told == [Position(1, 1), Position(1, 2), Position(1, 3)]
    assert state_hash(replica.state) == state_hash(log.state)


async def test_an_own_append_beyond_a_gap_waits_for_the_watch(log: MemoryLog) -> None:
    replica = log.replica()
    await log.create_resource(MESH, {})
    second = await log.create_resource(*SHOP[1])
    assert not replica.advance(second.records, second.head)
    assert replica.position == Position(1, 0)
    async with running(replica):
        await replica.wait_for(Position(1, 2), 60.0)
    assert state_hash(replica.state) == state_hash(log.state)


async def test_a_poisoned_event_halts_every_replica_at_the_same_state(log: MemoryLog) -> None:
    await log.fill_shop()
    sound = log.state
    early, late = log.replica(), log.replica(BOTH)
    async with running(early):
        await early.wait_for(sound.position, 60.0)
        waiting = asyncio.ensure_future(early.wait_for(Position(1, 999), None))
        await asyncio.sleep(0)
        poisoned = await log.append_poison()
        with pytest.raises(NotReady, match=str(poisoned)):
            await waiting
        async with running(late):
            await await_until(lambda: late.halted is not None)
        for replica in (early, late):
            assert replica.halted is not None
            assert str(poisoned) in replica.halted
            assert state_hash(replica.state) == state_hash(sound)
            with pytest.raises(NotReady, match="CakeBaked"):
                await replica.confirmed(60.0)
            with pytest.raises(NotReady, match="CakeBaked"):
                await replica.wait_for(poisoned, 60.0)
            await replica.wait_for(sound.position, 0.0)
    assert early.ready, "what it has is still the last good state"
    assert not late.ready, "it never reached the head"


async def test_an_own_append_that_cannot_be_folded_halts(log: MemoryLog) -> None:
    replica = log.replica()
    async with running(replica):
        await replica.confirmed(60.0)
        await log.create_resource(MESH, {})
        await replica.confirmed(60.0)
    await log.append_poison()
    batches = [batch async for batch in _first(log.follower(BOTH).follow(None))]
    with pytest.raises(Poison):
        replica.advance(batches[0].records, batches[0].head)
    with pytest.raises(NotReady):
        replica.advance((), batches[0].head)


async def _first(batches: AsyncGenerator[FollowBatch, None]) -> AsyncIterator[FollowBatch]:
    async for batch in batches:
        yield batch
        await batches.aclose()
        return


class ToldFollower:
    """A follower that gives what it is told to."""

    def __init__(self, *batches: FollowBatch) -> None:
        self._batches = batches

    async def follow(
        self, after: Head | None, quarantined: Mapping[Position, Quarantined], at_hand: AtHand
    ) -> AsyncGenerator[FollowBatch, None]:
        for batch in self._batches:
            yield batch
        await asyncio.Event().wait()

    async def quarantines(self, after: Head | None) -> AsyncGenerator[Quarantined | None, None]:
        await asyncio.Event().wait()
        yield Quarantined(Position(1, 1), 0, Position(1, 2))


class ToldHead:
    """A confirmer that answers what it is told to."""

    def __init__(self, head: Head) -> None:
        self.head = head

    async def confirm(self) -> HeadRef:
        return HeadRef(self.head, 1)


async def test_a_head_that_moved_back_or_changed_halts(log: MemoryLog) -> None:
    await log.create_resource(MESH, {})
    appended = await log.create_resource(*SHOP[1])
    (whole,) = [batch async for batch in _first(log.follower().follow(None))]
    here = appended.head.head
    for other in (here._replace(position=1), here._replace(hash=b"x" * 32)):
        confirmer = ToldHead(here)
        replica = Replica(MESH_FOLD, ToldFollower(whole), confirmer, CLOCK)
        async with running(replica):
            assert await replica.confirmed(60.0) == Position(1, 2)
            confirmer.head = other
            with pytest.raises(TimelineMoved):
                await replica.confirmed(60.0)
            assert replica.halted is not None
            with pytest.raises(NotReady):
                await replica.confirmed(60.0)


async def test_another_record_at_a_position_that_this_process_appended_halts(log: MemoryLog) -> None:
    appended = await log.create_resource(MESH, {})
    other = appended.head.head._replace(hash=b"x" * 32)
    watched = FollowBatch(appended.records, HeadRef(other, appended.head.mod_revision), caught_up=True)
    replica = Replica(MESH_FOLD, ToldFollower(watched), ToldHead(other), CLOCK)
    assert replica.advance(appended.records, appended.head)
    async with running(replica):
        await await_until(lambda: replica.halted is not None)
    assert replica.position == Position(1, 1)


async def test_records_that_are_not_contiguous_halt(log: MemoryLog) -> None:
    await log.create_resource(MESH, {})
    await log.create_resource(*SHOP[1])
    (whole,) = [batch async for batch in _first(log.follower().follow(None))]
    replica = Replica(
        MESH_FOLD, ToldFollower(whole._replace(records=whole.records[1:])), ToldHead(whole.head.head), CLOCK
    )
    async with running(replica):
        await await_until(lambda: replica.halted is not None)
    assert replica.position == Position(1, 0)
