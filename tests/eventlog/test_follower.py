"""The follower: every record once, in order, proven; anything else stops it by name."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from eventlog.driver import WatchBatch
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import FollowBatch, Follower
from eventlog.frames import frame_name
from eventlog.keys.wrapping import draw_data_key, wrap_data_key
from eventlog.records import Head, KeyClass, Record, encode_head, genesis_head
from mesh.errors import Damaged, IntegrityError, MissingKey, TimelineMoved, WrongKey
from mesh.position import Position
from tests.conditions import PATIENCE_S
from tests.eventlog.logs import (
    BOTH,
    CONFIG_ONLY,
    START_US,
    Log,
    MemoryLog,
    MemoryProvider,
    SeededEntropy,
    make_log,
    make_memory_log,
    new_record,
    read_all,
)


@pytest.fixture
async def made() -> MemoryLog:
    return await make_memory_log(*(new_record(number) for number in (1, 2, 3)))


class Following:
    """A follower run beside the test; `seen` grows, `failure` is what ended it."""

    def __init__(self, follower: Follower, after: Head | None = None) -> None:
        self.seen: list[Record] = []
        self.batches: list[FollowBatch] = []
        self.failure: BaseException | None = None
        self._grew = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(follower, after))

    async def _run(self, follower: Follower, after: Head | None) -> None:
        try:
            async with aclosing(follower.follow(after)) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self.seen.extend(batch.records)
                    self._grew.set()
        except IntegrityError as failure:
            self.failure = failure
        self._grew.set()

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen) < count and self.failure is None:
                self._grew.clear()
                await self._grew.wait()
        return [record.request_id for record in self.seen]

    async def until_ended(self) -> BaseException:
        async with asyncio.timeout(PATIENCE_S):
            await self._task
        assert self.failure is not None
        return self.failure

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_the_first_batch_ends_at_the_head_to_append_on(made: MemoryLog) -> None:
    following = Following(made.log.follower())
    await following.until(3)
    assert following.batches[-1].caught_up
    assert following.batches[-1].head == made.store.head_ref()
    await following.close()


async def test_an_empty_log_gives_an_empty_batch_with_its_head() -> None:
    made = await make_memory_log()
    async with aclosing(made.log.follower().follow()) as batches:
        batch = await anext(batches)
    assert batch == FollowBatch((), made.log.head, caught_up=True)


async def test_what_comes_later_is_followed_record_by_record(made: MemoryLog) -> None:
    following = Following(made.log.follower())
    await following.until(3)
    await made.log.append(new_record(4))
    await made.log.append(new_record(5), new_record(6))
    assert await following.until(6) == [f"rq-{number}" for number in range(1, 7)]
    assert following.batches[-1].head == made.log.head
    await following.close()


async def test_what_is_at_hand_comes_as_its_head_alone_and_what_follows_is_opened(made: MemoryLog) -> None:
    own: set[Head] = set()
    async with aclosing(made.log.follower().follow(at_hand=lambda head: head in own)) as batches:
        await anext(batches)
        before = made.log.head.head
        await made.log.append(new_record(4), new_record(5))
        own.add(made.log.head.head)
        assert await anext(batches) == FollowBatch((), made.log.head, caught_up=True)
        await made.log.append(new_record(6))
        own.add(before)  # a head that is not the one that comes vouches for nothing
        later = await anext(batches)
    assert [record.request_id for record in later.records] == ["rq-6"]
    assert later.head == made.log.head


async def test_following_goes_on_after_a_point(made: MemoryLog) -> None:
    async with aclosing(made.log.follower().follow()) as batches:
        middle = await anext(batches)
    await made.log.append(new_record(4))
    assert [record.request_id for record in await made.log.read(middle.head.head)] == ["rq-4"]
    assert await made.log.read(made.log.head.head) == []


async def test_a_follower_waits_for_a_log_and_a_store(made: MemoryLog) -> None:
    store = MemoryStore()
    store.reachable = False
    driver = MemoryDriver(store)
    log = Log(driver, made.log.keyring, made.log.writer, made.log.clock, made.log.entropy, made.log.head)
    following = Following(log.follower())
    for _ in range(20):
        await asyncio.sleep(0)
    store.reachable = True
    for _ in range(20):
        await asyncio.sleep(0)
    written = await make_log(driver)
    await written.append(new_record(7))
    assert await following.until(1) == ["rq-7"]
    await following.close()


async def test_compaction_and_outages_lose_nothing(made: MemoryLog) -> None:
    following = Following(made.log.follower())
    await following.until(3)
    await made.log.append(new_record(4))
    made.store.compact()
    await made.log.append(new_record(5))
    made.store.reachable = False
    for _ in range(20):
        await asyncio.sleep(0)
    made.store.reachable = True
    await made.log.append(new_record(6))
    assert await following.until(6) == [f"rq-{number}" for number in range(1, 7)]
    await following.close()


async def test_many_pages_are_listed_in_order() -> None:
    made = await make_memory_log()
    for number in range(600):
        await made.log.append(new_record(number))
    assert [record.request_id for record in await made.log.read()] == [f"rq-{number}" for number in range(600)]


@pytest.mark.parametrize("fault", ["skipped", "twice", "no head", "swapped"])
async def test_a_watch_that_misbehaves_is_not_believed(made: MemoryLog, fault: str) -> None:
    following = Following(made.log.follower())
    await following.until(3)
    await asyncio.sleep(0)
    store, told = made.store, list[WatchBatch]()
    real = store.note
    store.note = told.append  # type: ignore[method-assign, assignment]
    for number in (4, 5, 6):
        await made.log.append(new_record(number))
    store.note = real  # type: ignore[method-assign]
    told = {
        "skipped": told[1:],
        "twice": [told[0], told[0], *told[1:], told[2]],
        "no head": [told[0]._replace(head=None), *told[1:]],
        "swapped": [told[1], told[0], told[2]],
    }[fault]
    for batch in told:
        store.note(batch)
    assert await following.until(6) == [f"rq-{number}" for number in range(1, 7)]
    assert following.failure is None
    await following.close()


async def test_each_byte_of_each_frame_and_of_the_head_is_proven() -> None:
    pristine = await make_memory_log(*(new_record(number) for number in (1, 2)))
    names = {name: entry.value for name, entry in pristine.store.frames.items()}
    assert pristine.store.head is not None
    head = pristine.store.head.value
    for target, value in [*names.items(), ("head", head)]:
        for index in range(len(value)):
            changed = value[:index] + bytes((value[index] ^ 1,)) + value[index + 1 :]
            if target == "head":
                pristine.store.head = pristine.store.head._replace(value=changed)
            else:
                pristine.store.put_frame(target, changed)
            seen: list[Record] = []
            with pytest.raises(Damaged):
                seen = await pristine.log.read()
            assert seen == []
            if target != "head":
                pristine.store.put_frame(target, value)
            pristine.store.head = pristine.store.head._replace(value=head)
    assert len(await pristine.log.read()) == 2


async def test_everything_before_the_damage_is_given(made: MemoryLog) -> None:
    name = frame_name(Position(1, 2))
    value = made.store.frames[name].value
    made.store.put_frame(name, value[:-1] + bytes((value[-1] ^ 1,)))
    following = Following(made.log.follower())
    failure = await following.until_ended()
    assert isinstance(failure, Damaged)
    assert "1.2" in failure.message
    assert [record.request_id for record in following.seen] == ["rq-1"]


@pytest.mark.parametrize("place", [Position(1, 1), Position(1, 3), Position(1, 4)])
async def test_a_record_copied_to_another_place_is_detected(made: MemoryLog, place: Position) -> None:
    copy = made.store.frames[frame_name(Position(1, 2))].value
    made.store.put_frame(frame_name(place), copy)
    with pytest.raises(Damaged):
        await made.log.read()


async def test_a_missing_frame_and_a_cut_tail_are_detected() -> None:
    for number in (1, 2, 3):
        fresh = await make_memory_log(*(new_record(each) for each in (1, 2, 3)))
        store = fresh.store
        name = frame_name(Position(1, number))
        del store.frames[name]
        store.names.remove(name)
        with pytest.raises(Damaged):
            await fresh.log.read()


async def test_a_frame_written_a_second_time_under_a_follower_stops_it(made: MemoryLog) -> None:
    following = Following(made.log.follower())
    await following.until(3)
    store = made.store
    store.revision += 1
    frame = (await made.log.driver.read_frames(Position(1, 1), 1)).frames[0]
    store.note(WatchBatch(store.revision, (frame._replace(mod_revision=store.revision),)))
    failure = await following.until_ended()
    assert isinstance(failure, Damaged)
    assert "1.2 was written a second time" in failure.message


async def test_another_timeline_stops_a_follower(made: MemoryLog) -> None:
    head = made.log.head.head
    heads = {
        "deleted": None,
        "moved back": head._replace(position=1),
        "same place": head._replace(hash=bytes(32)),
        "later epoch": head._replace(epoch=2),
        "another log": head._replace(log_id="another"),
    }
    for name, moved in heads.items():
        fresh = await make_memory_log(*(new_record(number) for number in (1, 2, 3)))
        following = Following(fresh.log.follower())
        await following.until(3)
        await asyncio.sleep(0)
        store = fresh.store
        store.revision += 1
        if moved is None:
            store.head = None
            store.note(WatchBatch(store.revision, head_deleted=True))
        else:
            assert store.head is not None
            store.head = store.head._replace(value=encode_head(moved), mod_revision=store.revision)
            store.note(WatchBatch(store.revision, (), store.head_ref()))
        assert isinstance(await following.until_ended(), TimelineMoved), name


async def test_a_follower_from_a_point_of_another_history_stops(made: MemoryLog) -> None:
    head = made.log.head.head
    for after in (
        genesis_head("another"),
        head._replace(epoch=2),
        head._replace(position=9),
        head._replace(hash=bytes(32)),
    ):
        with pytest.raises(TimelineMoved):
            await made.log.read(after)
    with pytest.raises(Damaged):
        await made.log.read(head._replace(position=2, hash=bytes(32)))


async def test_a_role_without_secrets_follows_on_with_the_data_withheld(made: MemoryLog) -> None:
    await made.log.append(new_record(4, KeyClass.SECRETS))
    await made.log.append(new_record(5))
    records = await read_all(made.log.follower(CONFIG_ONLY))
    assert [record.data is None for record in records] == [False, False, False, True, False]
    assert records[3].token == new_record(4).token


@pytest.mark.parametrize("drawn", [KeyClass.CONFIG, KeyClass.SECRETS])
async def test_a_data_key_drawn_while_following_is_fetched(made: MemoryLog, drawn: KeyClass) -> None:
    log = made.log
    following = Following(log.follower())
    await following.until(3)
    newer = draw_data_key(drawn, START_US + 1, SeededEntropy("newer"))
    await log.driver.put_data_key(newer.key_id, await wrap_data_key(newer, log.head.head.log_id, BOTH[drawn]), 0)
    await log.keyring.load(log.head.head.log_id)
    await log.append(new_record(4, KeyClass.SECRETS))
    await following.until(4)
    assert following.seen[3].data == new_record(4).data
    await following.close()


async def test_a_missing_data_key_and_a_replaced_one_stop_it_by_name(made: MemoryLog) -> None:
    log = made.log
    config = next(key_id for key_id in await log.driver.list_data_keys() if key_id.startswith("config"))
    del made.store.entries[f"datakey/{config}"]
    with pytest.raises(MissingKey, match=rf"Record 1\.1 .*{config}"):
        await log.read()
    impostor = draw_data_key(KeyClass.CONFIG, START_US, SeededEntropy("impostor"))._replace(key_id=config)
    value = await wrap_data_key(impostor, log.head.head.log_id, BOTH[KeyClass.CONFIG])
    await log.driver.put_data_key(config, value, 0)
    with pytest.raises(WrongKey, match=r"Record 1\.1 "):
        await log.read()


async def test_another_key_encryption_key_stops_it(made: MemoryLog) -> None:
    with pytest.raises(MissingKey, match="no key kek-config"):
        await read_all(made.log.follower({KeyClass.CONFIG: MemoryProvider("another")}))
