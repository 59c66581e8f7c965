"""Checkpoints are made when due, reproduced by others, and only then is trimmed what the archive has."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.duties import FenceFell
from cluster.members import Member
from eventlog.archive.archiver import MARK
from eventlog.archive.manifest import ManifestRef, Mark, encode_mark
from eventlog.checkpoints import list_checkpoints, manifest_name, newest_checkpoint, part_name
from eventlog.driver import Entry
from eventlog.drivers.memory import MemoryDriver
from mesh.checkpoint import from_documents
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import state_hash
from projector.checkpointing import CheckpointDuty, LastCheckpoint, is_due
from projector.replica import Replica
from projector.reproduction import Reproduction
from projector.trimming import Facts, TrimDuty, trim_target
from runtime.settings import DutySettings
from tests.conditions import PATIENCE_S
from tests.mesh.worlds import key, node_spec
from tests.projector.logs import BOTH, CLOCK, ENTROPY, MemoryLog

NODE = key("virtualNode", "cart-v1")
SETTINGS = DutySettings(checkpoint_events=5, checkpoint_every_s=3600, keep_events=2)


def at(position: int) -> Position:
    return Position(1, position)


# --- decisions


@given(
    events=st.integers(0, 30_000),
    since_s=st.floats(0, 5000),
)
def test_a_checkpoint_is_due_by_count_or_by_time_and_never_without_an_event(events: int, since_s: float) -> None:
    settings = DutySettings(checkpoint_events=10_000, checkpoint_every_s=900)
    now_us = 10**16
    last = LastCheckpoint(at(7), now_us - int(since_s * 1e6))
    due = is_due(last, at(7 + events), now_us, settings)
    assert not (due and events == 0)
    if events and since_s >= 901:
        assert due
    if events >= 10_000:
        assert due == (now_us - last.made_us >= 30_000_000)
    elif since_s <= 899:
        assert not due


positions = st.integers(0, 60)


@given(
    head=positions,
    first=st.none() | positions,
    archived=st.none() | positions,
    sound=st.lists(positions, max_size=4, unique=True),
    keep=st.integers(0, 20),
    pressed=st.booleans(),
)
def test_nothing_goes_that_is_not_archived_covered_and_old_enough(
    *, head: int, first: int | None, archived: int | None, sound: list[int], keep: int, pressed: bool
) -> None:
    begins, marked = (None if each is None else at(each) for each in (first, archived))
    facts = Facts(at(head), begins, marked, [at(each) for each in sound], {})
    upto = trim_target(facts, keep, pressed=pressed)
    if upto is None:
        return
    assert archived is not None
    assert upto.position <= archived
    covering = [each for each in sound if each >= upto.position]
    assert len(covering) >= (1 if pressed else 2)
    assert pressed or upto.position <= head - keep
    assert first is not None
    assert upto.position >= first


def test_what_is_of_another_epoch_counts_for_nothing() -> None:
    facts = Facts(Position(2, 50), Position(2, 31), Position(2, 50), [Position(2, 40), Position(2, 45)], {})
    assert trim_target(facts, 0, pressed=False) == Position(2, 40)
    assert trim_target(facts._replace(archived=Position(1, 99)), 0, pressed=False) is None
    assert trim_target(facts._replace(sound=[Position(1, 40), Position(2, 45)]), 0, pressed=False) is None


# --- duties over a log


class Process:
    """A replica with what a role has beside it."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self.log, self.name, self.driver = log, name, MemoryDriver(log.store)
        self.keyring = log.keyring(BOTH)
        self.replica: Replica = log.replica(BOTH)
        self.reproduction = Reproduction(MESH_FOLD, self.driver, lambda: None, CLOCK)
        self.replica.subscribe(self.reproduction.folded)

    def member(self) -> Member:
        said = str(self.reproduction)
        return Member(role="api", id=self.name, zone="z1", address="a:1", level=1, build="0", reproduced=said)

    async def caught_up(self) -> None:
        await self.replica.wait_for(self.log.state.position, 5.0)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Process]:
        task = asyncio.ensure_future(self.replica.run())
        try:
            await self.caught_up()
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Cluster:
    """Two processes over one log."""

    def __init__(self, log: MemoryLog, first: Process, second: Process) -> None:
        self.log, self.first, self.second = log, first, second
        maker = first
        self.checkpoints = CheckpointDuty(
            MESH_FOLD,
            maker.replica,
            maker.driver,
            maker.keyring,
            SETTINGS,
            member_id=maker.name,
            clock=CLOCK,
            entropy=ENTROPY,
        )
        self.short_of_space = False
        self.trim = TrimDuty(
            MESH_FOLD,
            maker.driver,
            maker.keyring,
            self.members,
            lambda: self.short_of_space,
            keep_events=2,
            clock=CLOCK,
        )

    async def members(self) -> Sequence[Member]:
        return [self.first.member(), self.second.member()]

    async def checkpoint(self, *, reproduced: bool = True) -> Position:
        """One at the head, and its reproduction."""
        state, head = self.first.replica.state, self.first.replica.head_ref.head
        await self.checkpoints.make(state, head, self.log.store.grant("checkpoint"))
        await self.first.reproduction.look()
        if reproduced:
            await self.second.reproduction.look()
        return head.at

    async def write(self, events: int) -> None:
        for _ in range(events):
            await self.log.update_resource(NODE, node_spec(1 + self.log.state.position.position))
        await self.first.caught_up()
        await self.second.caught_up()

    def archive(self, position: int, *, log_id: str | None = None) -> None:
        """The mark that the archiver leaves."""
        assert self.log.head is not None
        head = self.log.head.head._replace(position=position)
        mark = Mark("somewhere", head._replace(log_id=log_id or head.log_id), ManifestRef(1, 1, bytes(32)), 1)
        self.log.store.revision += 1
        self.log.store.entries[MARK] = Entry(encode_mark(mark), self.log.store.revision)

    async def trimmed(self) -> list[int]:
        """What is left after the duty did all that it could."""
        fence = self.log.store.grant("trim")
        while await self.trim.step(fence):
            pass
        page = await self.first.driver.read_frames(Position(1, 0), 1000)
        return [frame.last.position for frame in page.frames]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    log = await MemoryLog.create(tmp_path)
    await log.fill_shop()
    await log.create_access_key()
    async with Process(log, "api-z1").following() as first, Process(log, "api-z2").following() as second:
        made = Cluster(log, first, second)
        await made.write(10)
        yield made


async def test_a_checkpoint_holds_the_state_and_the_point_to_follow_after(cluster: Cluster) -> None:
    where = await cluster.checkpoint()
    opened = await newest_checkpoint(cluster.first.driver, cluster.first.keyring)
    assert opened is not None
    assert (opened.manifest.at.at, opened.manifest.made_by) == (where, "api-z1")
    state = from_documents(opened.config, opened.secrets)
    assert state == cluster.first.replica.state
    assert state_hash(state) == opened.manifest.state_hash
    assert state.access_keys["AKIDEXAMPLE"].secret == "a secret"


async def test_the_duty_makes_them_as_the_log_grows_and_deletes_old_ones(cluster: Cluster) -> None:
    settings = DutySettings(checkpoint_events=5, checkpoint_every_s=0, keep_events=2)
    maker = cluster.first
    duty = CheckpointDuty(
        MESH_FOLD,
        maker.replica,
        maker.driver,
        maker.keyring,
        settings,
        member_id="api-z1",
        clock=CLOCK,
        entropy=ENTROPY,
    )
    orphan = part_name(at(3), 0)
    cluster.log.store.entries[orphan] = Entry(b"of one that was never finished", 1)
    task = asyncio.ensure_future(duty.work(cluster.log.store.grant("checkpoint")))
    try:
        seen: set[Position] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(seen) < 5:
                await cluster.write(5)
                before = seen.copy()
                while seen == before:
                    await asyncio.sleep(0.01)
                    seen |= set(await list_checkpoints(maker.driver))
        await asyncio.sleep(0.1)
        assert len(await list_checkpoints(maker.driver)) == 3
        assert orphan not in cluster.log.store.entries
        assert max(seen) == maker.replica.position
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_an_archive_nothing_is_trimmed(cluster: Cluster) -> None:
    everything = await cluster.trimmed()
    await cluster.checkpoint()
    await cluster.write(5)
    await cluster.checkpoint()
    assert len(await cluster.trimmed()) == len(everything) + 5


async def test_what_is_archived_and_under_two_reproduced_checkpoints_goes(cluster: Cluster) -> None:
    first = await cluster.checkpoint()
    await cluster.write(5)
    cluster.archive(first.position + 3)
    assert (await cluster.trimmed())[0] == 1, "one checkpoint could be damaged"
    await cluster.checkpoint()
    assert (await cluster.trimmed())[0] == first.position + 1
    cluster.short_of_space = True
    assert (await cluster.trimmed())[0] == first.position + 4, "as far as the archive has it"


async def test_a_checkpoint_that_only_its_maker_knows_does_not_count(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.checkpoint(reproduced=False)
        await cluster.write(5)
    cluster.archive(100)
    assert cluster.first.member().reproduced
    assert (await cluster.trimmed())[0] == 1
    await cluster.second.reproduction.look()
    assert (await cluster.trimmed())[0] > 1


async def test_a_reproduced_checkpoint_that_does_not_open_does_not_count(cluster: Cluster) -> None:
    places = []
    for _ in range(3):
        places.append(await cluster.checkpoint())
        await cluster.write(5)
    cluster.archive(100)
    places.append(await cluster.checkpoint())
    name = part_name(places[-1], 0)
    entry = cluster.log.store.entries[name]
    cluster.log.store.entries[name] = Entry(entry.value[:-1] + bytes((entry.value[-1] ^ 1,)), entry.mod_revision)
    cluster.short_of_space = True
    assert (await cluster.trimmed())[0] == places[-2].position + 1, "the one before it is the newest sound one"


async def test_another_state_at_the_same_position_is_told(cluster: Cluster) -> None:
    other = dataclasses.replace(cluster.first.replica.state, time_us=7)
    head = cluster.first.replica.head_ref.head
    await cluster.checkpoints.make(other, head, cluster.log.store.grant("checkpoint"))
    await cluster.second.reproduction.look()
    assert cluster.second.member().reproduced == ""
    assert cluster.second.reproduction.disagreement is not None
    assert "1.20, made by api-z1" in cluster.second.reproduction.disagreement


async def test_a_trim_duty_that_was_lost_trims_nothing(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.checkpoint()
        await cluster.write(5)
        cluster.archive(100)
    old = cluster.log.store.grant("trim")
    cluster.log.store.grant("trim")
    before = dict(cluster.log.store.frames)
    with pytest.raises(FenceFell):
        await cluster.trim.step(old)
    assert cluster.log.store.frames == before
    assert await cluster.trim.step(None), "without any duty it is safe too: the facts are compared"
    assert len(cluster.log.store.frames) < len(before)


async def test_facts_that_changed_under_way_are_read_again(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.checkpoint()
        await cluster.write(5)
        cluster.archive(100)
    facts = await cluster.trim._facts()
    del cluster.log.store.entries[manifest_name(facts.sound[-1])]
    fence = cluster.log.store.grant("trim")
    result = await cluster.first.driver.trim(at(5), expected=facts.revisions, fence=fence)
    assert type(result).__name__ == "HeadMoved"
    assert (await cluster.trimmed())[0] == 1, "with one of the two gone, nothing may go"


async def test_the_mark_of_another_log_is_none(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.checkpoint()
        await cluster.write(5)
        cluster.archive(100, log_id="another")
    assert (await cluster.trimmed())[0] == 1


async def test_a_follower_goes_on_from_a_checkpoint_of_a_trimmed_log(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.checkpoint()
        await cluster.write(5)
        cluster.archive(100)
    assert (await cluster.trimmed())[0] > 1
    opened = await newest_checkpoint(cluster.first.driver, cluster.first.keyring)
    assert opened is not None
    from mesh.evolve import evolve
    from projector.replica import event_of

    state = from_documents(opened.config, opened.secrets)
    async for batch in cluster.log.follower(BOTH).follow(opened.manifest.at):
        for record in batch.records:
            state = evolve(state, event_of(record))
        if batch.caught_up:
            break
    assert state == cluster.first.replica.state
