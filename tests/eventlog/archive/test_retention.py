"""Retention: what is older than the horizon goes, every moment after it stays, and an interruption harms nothing."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.archive.index import check_contiguous, empty_index
from eventlog.archive.manifest import CheckpointRef, EpochClaim, Holdings, LeafRef, PartRef, SegmentRef
from eventlog.archive.shipment import Floor, raised
from eventlog.checkpoints import parse_manifest
from eventlog.records import Head, genesis_head
from mesh.errors import NotFound
from mesh.position import Position
from tests.eventlog.archive.archives import Archived, Crash, Fate, Faults, make_archived
from tests.eventlog.logs import START_US

SECOND_US = 1_000_000


async def aged(faults: Faults | None = None) -> Archived:
    """A log of 40 records, one a second, a checkpoint every ten, shipped all along."""
    archived = await make_archived()
    for number in range(40):
        await archived.append()
        if number % 10 == 4:
            await archived.checkpoint()
        await archived.ship(archived.archiver(faults))
    return archived


async def retain(archived: Archived, seconds: int, faults: Faults | None = None) -> None:
    """Let an archiver look at what may go, `seconds` being kept."""
    await archived.append()
    await archived.ship(archived.archiver(faults, retention_us=seconds * SECOND_US))


async def check_kept(archived: Archived, base: Position) -> None:
    reader = await archived.reader()
    assert reader.index.base.at == base
    frames = archived.frames()
    assert await archived.archived() == frames[base.position :]
    checkpoints = await reader.checkpoints()
    assert checkpoints[0].at == base
    for ref in checkpoints:
        manifest, parts = await reader.checkpoint(ref)
        assert parse_manifest(manifest).at.at == ref.at
        assert set(parts) == set(ref.parts)
    # Every kept moment can be had: a checkpoint at or before it, and what follows.
    for frame, record in zip(frames, await archived.open(frames), strict=True):
        if record.time_us >= checkpoints[0].time_us:
            at = await reader.position_at(record.time_us)
            assert at == max(frame.last, base)
            nearest = await reader.checkpoint_before(at)
            assert nearest is not None
            assert nearest.state_at <= at


def test_the_newest_checkpoint_before_the_horizon_is_where_the_archive_begins() -> None:
    async def scenario() -> None:
        archived = await aged()
        now_s = (archived.log.clock.wall_us - START_US) // SECOND_US
        # Checkpoints are at 5, 15, 25 and 35; each record is at least a second after the one before.
        times = {record.position.position: record.time_us for record in await archived.open(archived.frames())}
        horizon_us = times[27]
        before = len(archived.store.objects)
        await retain(archived, (archived.log.clock.wall_us - horizon_us) // SECOND_US)
        await check_kept(archived, Position(1, 25))
        assert len(archived.store.objects) < before
        assert now_s > 0

    asyncio.run(scenario())


def test_what_is_wanted_still_of_a_leaf_that_goes_is_carried_over() -> None:
    """The checkpoint that the archive will begin at, and a blob part that a record to come may name."""
    log_id, digests = "log", iter(bytes((number,)) * 32 for number in range(99))
    at = Position(1, 25)
    old = SegmentRef(next(digests), 9, 1, 1, 25, 0, 0)
    checkpoint = CheckpointRef(next(digests), 9, at, at, 0, (next(digests),))
    part = PartRef(next(digests), 9, "blob/00/000000", Position(1, 20))
    leaf = Holdings((old,), (checkpoint,), (part,))
    first = LeafRef(next(digests), 9, 1, 25, 0, 0)
    newer = Holdings((SegmentRef(next(digests), 9, 1, 26, 40, 0, 0),))
    genesis = genesis_head(log_id)
    head = Head(log_id, 1, 40, bytes(32))
    claim = EpochClaim(log_id, 1, genesis, None, 0, "api-1")
    index = empty_index([claim])._replace(head=head, leaves=(first,), held=newer)
    after, gone = raised(index, Floor(Head(log_id, 1, 25, bytes(32)), {first: leaf}))
    assert (after.base.at, after.leaves) == (at, ())
    assert after.held == newer._replace(checkpoints=(checkpoint,), parts=(part,))
    assert gone == {old.hash, first.hash}
    check_contiguous(after, "this test")


def test_nothing_goes_without_a_checkpoint_that_is_old_enough() -> None:
    async def scenario() -> None:
        archived = await aged()
        await retain(archived, 10_000_000)
        reader = await archived.reader()
        assert reader.index.base.position == 0
        assert await archived.archived() == archived.frames()

    asyncio.run(scenario())


def test_what_went_is_named_as_gone() -> None:
    async def scenario() -> None:
        archived = await aged()
        await retain(archived, 1)
        reader = await archived.reader()
        for ask in (reader.position_at(START_US), reader.checkpoint_before(Position(1, 3))):
            try:
                await ask
            except NotFound as gone:
                assert "beyond the retention" in gone.message  # noqa: PT017 - either of two calls
            else:
                raise AssertionError("told what it does not have")

    asyncio.run(scenario())


@settings(max_examples=12)
@given(data=st.data())
def test_an_interrupted_retention_leaves_a_readable_archive(data: st.DataObject) -> None:
    async def scenario() -> None:
        archived = await aged()
        at = data.draw(st.integers(0, 90), label="call")
        fate = data.draw(st.sampled_from([Fate.DIES_BEFORE, Fate.DIES_AFTER, Fate.FAILS, Fate.LANDS]), label="fate")
        faults = Faults(lambda number, _: fate if number == at else Fate.WELL)
        try:
            await retain(archived, 15, faults)
        except Crash:
            reader = await archived.reader()
            frames = archived.frames()
            base = reader.index.base.position
            assert await archived.archived() == frames[base : reader.index.head.position]
        await retain(archived, 15)
        reader = await archived.reader()
        await check_kept(archived, reader.index.base.at)
        assert reader.index.base.position >= 15
        assert await archived.objects_named() <= archived.objects()

    asyncio.run(scenario())


def test_the_index_of_a_long_history_is_small_to_read() -> None:
    """300 shipments: what a reader gets to know the newest position does not grow with them."""

    async def scenario() -> None:
        archived = await make_archived()
        reads: list[int] = []
        for number in range(300):
            await archived.append()
            await archived.ship()
            if number % 100 == 99:
                faults = Faults()
                await archived.reader(faults)
                reads.append(len(faults.calls))
        assert max(reads) <= 14
        assert len([name for name in archived.store.objects if name.startswith("manifests/")]) <= 6

    asyncio.run(scenario())
