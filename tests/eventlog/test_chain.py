"""The chain: contiguous, hashed, and nothing given out before what follows vouches for it."""

from __future__ import annotations

import pytest

from eventlog.chain import Chain
from eventlog.driver import StoredFrame
from eventlog.records import Head, genesis_head
from mesh.errors import Damaged
from mesh.position import Position
from tests.eventlog.logs import MemoryLog, make_memory_log, new_record


async def frames_of(made: MemoryLog) -> list[StoredFrame]:
    return list((await made.log.driver.read_frames(Position(1, 0), 100)).frames)


@pytest.fixture
async def made() -> MemoryLog:
    made = await make_memory_log(new_record(1))
    await made.log.append(new_record(2), new_record(3))
    await made.log.append(new_record(4))
    return made


def begin(made: MemoryLog) -> Chain:
    return Chain(genesis_head(made.log.head.head.log_id))


async def test_all_but_the_last_are_proven_by_their_successor_and_that_by_the_head(made: MemoryLog) -> None:
    chain = begin(made)
    proven, failure = chain.extend(await frames_of(made))
    assert failure is None
    assert [record.as_head.position for record in proven] == [1, 2, 3]
    last = chain.settle(made.log.head.head)
    assert last is not None
    assert last.as_head == made.log.head.head


async def test_pages_may_be_cut_anywhere(made: MemoryLog) -> None:
    frames = await frames_of(made)
    chain = begin(made)
    given = [record for frame in frames for record in chain.extend([frame])[0]]
    assert [record.as_head.position for record in given] == [1, 2, 3]


async def test_what_was_not_proven_can_be_read_again(made: MemoryLog) -> None:
    frames = await frames_of(made)
    chain = begin(made)
    chain.extend(frames[:2])
    chain.drop_unproven()
    assert chain.point.position == 2
    _, failure = chain.extend(frames[2:])
    assert isinstance(failure, Damaged)


async def test_a_gap_a_repeat_and_a_swap_are_damage(made: MemoryLog) -> None:
    one, two, three = await frames_of(made)
    for order in ([one, three], [two, three], [one, one], [one, three, two], [one, two, two]):
        proven, failure = begin(made).extend(order)
        assert isinstance(failure, Damaged)
        assert [record.as_head.position for record in proven] == list(range(1, len(proven) + 1))


async def test_another_epochs_frame_is_damage(made: MemoryLog) -> None:
    one, two, _ = await frames_of(made)
    _, failure = begin(made).extend([one, two._replace(last=Position(2, 3))])
    assert isinstance(failure, Damaged)


async def test_another_logs_records_are_damage(made: MemoryLog) -> None:
    other = await make_memory_log(new_record(1), seed="other")
    _, failure = begin(made).extend(await frames_of(other))
    assert isinstance(failure, Damaged)


async def test_a_changed_last_record_is_found_by_the_head_alone(made: MemoryLog) -> None:
    frames = await frames_of(made)
    changed = frames[-1].value[:-1] + bytes((frames[-1].value[-1] ^ 1,))
    chain = begin(made)
    _, failure = chain.extend([*frames[:-1], frames[-1]._replace(value=changed)])
    assert failure is None
    with pytest.raises(Damaged, match=r"1\.4"):
        chain.settle(made.log.head.head)


async def test_a_cut_tail_is_found_by_the_head(made: MemoryLog) -> None:
    chain = begin(made)
    chain.extend((await frames_of(made))[:-1])
    with pytest.raises(Damaged, match=r"1\.4"):
        chain.settle(made.log.head.head)


async def test_the_chain_verifies_without_a_key(made: MemoryLog) -> None:
    made.store.entries.clear()
    chain = begin(made)
    assert chain.extend(await frames_of(made))[1] is None
    assert isinstance(chain.settle(made.log.head.head) and chain.proven, Head)
