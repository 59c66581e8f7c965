"""I7: whatever is done to stored bytes is detected, and nobody ever reads a wrong state. Counts are in the summary.

Each byte of everything stored, in etcd and in the archive; records swapped, dropped, cut, copied from another cluster,
replayed from an older epoch; a log set back to an old copy; a paused writer of a dead epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import aclosing

import pytest

from eventlog.append import check_same_timeline
from eventlog.archive.manifest import claim_name
from eventlog.archive.reader import ArchiveReader
from eventlog.checkpoints import CheckpointPlace, parse_manifest, part_name, seal_checkpoint
from eventlog.checkpoints import manifest_name as checkpoint_name
from eventlog.driver import Entry
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.frames import decode_frame, encode_frame, frame_name
from eventlog.fsck import FsckReport, fsck
from eventlog.keys.keyring import Keyring
from eventlog.records import Head, HeadRef, KeyClass, encode_head
from eventlog.signing import signing_key
from eventlog.writer import Appended, LogWriter
from mesh.errors import IntegrityError, TimelineMoved
from mesh.position import Position
from tests.eventlog.damage import SEEN, TRIED, Read, World, archive_places, etcd_places, make_world
from tests.eventlog.logs import BOTH, Log, new_record, read_all

STRIDES = [pytest.param(1, marks=pytest.mark.long, id="each"), pytest.param(61, id="some")]
"""Bytes of everything stored: each one in the long suite, one of so many, and the last, in the other."""

FSCK_EVERY = 20
"""What a reader does not stumble over is put to fsck at once; of the rest, every 20th byte is put to it as well."""


def count(kind: str, seen: bool) -> None:
    TRIED[kind] += 1
    SEEN[kind] += seen


def flips(value: bytes, stride: int) -> list[tuple[int, bytes]]:
    """Each byte, or each `stride`-th and the last, changed in turn, another bit of it each time."""
    return [
        (index, value[:index] + bytes((value[index] ^ 1 << index % 8,)) + value[index + 1 :])
        for index in sorted({*range(0, len(value), stride), len(value) - 1})
    ]


async def test_an_undamaged_world_is_sound() -> None:
    """The control: everything that is to find damage finds none here."""
    world = await make_world()
    assert len(world.truth) == 5
    assert await world.read_etcd() == (False, True)
    assert await world.read_checkpoint() == (False, True)
    assert await world.read_archive() == (False, True)
    assert not await world.fsck_sees()
    assert not await world.fsck_sees_in_archive()


@pytest.mark.parametrize("stride", STRIDES)
async def test_each_byte_in_etcd_is_vouched_for(stride: int) -> None:
    world = await make_world()
    for kind, value, put in etcd_places(world):
        for index, changed in flips(value, stride):
            damaged = world.damaged()
            put(damaged, changed)
            read = await (damaged.read_checkpoint() if kind.startswith("checkpoint") else damaged.read_etcd())
            assert read.right, f"{kind}, byte {index}: a wrong state was read"
            seen = read.failed
            if not seen or index % FSCK_EVERY == 0:
                seen = await damaged.fsck_sees()
            count(kind, seen)
            assert seen, f"{kind}, byte {index}: not detected"


@pytest.mark.parametrize("stride", STRIDES)
async def test_each_byte_in_the_archive_is_vouched_for(stride: int) -> None:
    world = await make_world(small=True)
    for kind, value, put in archive_places(world):
        # What a reader of records does not look at at all, it cannot stumble over: that is for fsck alone.
        gone = world.damaged()
        put(gone, b"")
        is_read = (await gone.read_archive()).failed
        for index, changed in flips(value, stride):
            damaged = world.damaged()
            put(damaged, changed)
            read = await damaged.read_archive() if is_read else Read(failed=False, right=True)
            assert read.right, f"{kind}, byte {index}: a wrong state was read"
            seen = read.failed
            if not seen or index % FSCK_EVERY == 0:
                seen = await damaged.fsck_sees_in_archive()
            count(kind, seen)
            assert seen, f"{kind}, byte {index}: not detected"


def name(position: int, epoch: int = 1) -> str:
    return frame_name(Position(epoch, position))


def drop(store: MemoryStore, position: int) -> None:
    del store.frames[name(position)]
    store.names.remove(name(position))


def swap_frames(damaged: World, _: World) -> None:
    one, other = damaged.etcd.frames[name(3)].value, damaged.etcd.frames[name(5)].value
    damaged.etcd.put_frame(name(3), other)
    damaged.etcd.put_frame(name(5), one)


def swap_records(damaged: World, _: World) -> None:
    records = decode_frame(damaged.etcd.frames[name(2)].value, Position(1, 2))
    damaged.etcd.put_frame(name(2), encode_frame(records[::-1]))


def drop_a_record(damaged: World, _: World) -> None:
    records = decode_frame(damaged.etcd.frames[name(5)].value, Position(1, 5))
    damaged.etcd.put_frame(name(5), encode_frame(records[1:]))


def drop_the_beginning(damaged: World, _: World) -> None:
    """Without a checkpoint that stands in for it; with one it would be a trim, and nothing would be lost."""
    drop(damaged.etcd, 2)
    for entry in [key for key in damaged.etcd.entries if key.startswith("checkpoint/")]:
        del damaged.etcd.entries[entry]


def cut_a_frame(damaged: World, _: World) -> None:
    damaged.etcd.put_frame(name(5), damaged.etcd.frames[name(5)].value[:-20])


def copy_from_another_cluster(damaged: World, other: World) -> None:
    damaged.etcd.put_frame(name(5), other.etcd.frames[name(5)].value)


def cut_the_tail(damaged: World, _: World) -> None:
    """Frame and head together: etcd alone is consistent again, and only what was signed tells."""
    drop(damaged.etcd, 5)
    head = damaged.log.head.head
    before = damaged.truth[2].position
    record = decode_frame(damaged.etcd.frames[name(3)].value, before)[0]
    cut = Head(head.log_id, 1, 3, hashlib.sha256(record).digest())
    assert damaged.etcd.head is not None
    damaged.etcd.head = damaged.etcd.head._replace(value=encode_head(cut))


def put_another_log_in_its_place(damaged: World, other: World) -> None:
    for what in ("head", "frames", "names", "entries"):
        setattr(damaged.etcd, what, getattr(other.damaged().etcd, what))


def take_a_data_key_from_another_cluster(damaged: World, other: World) -> None:
    mine = next(key for key in damaged.etcd.entries if key.startswith("datakey/config"))
    theirs = next(key for key in other.etcd.entries if key.startswith("datakey/config"))
    damaged.etcd.entries[mine] = other.etcd.entries[theirs]


def lose_a_data_key(damaged: World, _: World) -> None:
    del damaged.etcd.entries[next(key for key in damaged.etcd.entries if key.startswith("datakey/secrets"))]


def lose_a_checkpoint_part(damaged: World, _: World) -> None:
    del damaged.etcd.entries[part_name(damaged.checkpoint, 0)]


def swap_checkpoint_parts(damaged: World, _: World) -> None:
    one, other = part_name(damaged.checkpoint, 0), part_name(damaged.checkpoint, 1)
    entries = damaged.etcd.entries
    entries[one], entries[other] = entries[other], entries[one]


def checkpoint_from_another_cluster(damaged: World, other: World) -> None:
    for entry in [key for key in other.etcd.entries if key.startswith("checkpoint/")]:
        damaged.etcd.entries[entry] = other.etcd.entries[entry]


def drop_a_blob_part(damaged: World, _: World) -> None:
    for entry in [key for key in damaged.etcd.entries if key.startswith("blob/")]:
        del damaged.etcd.entries[entry]


IN_ETCD: dict[str, Callable[[World, World], None]] = {
    "two frames swapped": swap_frames,
    "two records of a frame swapped": swap_records,
    "a record dropped from a frame": drop_a_record,
    "the first frame dropped": drop_the_beginning,
    "a frame dropped": lambda damaged, _: drop(damaged.etcd, 3),
    "the last frame dropped": lambda damaged, _: drop(damaged.etcd, 5),
    "a frame cut off": cut_a_frame,
    "the tail cut off, head and all": cut_the_tail,
    "a record copied from another cluster": copy_from_another_cluster,
    "another cluster's log in its place": put_another_log_in_its_place,
    "a data key of another cluster": take_a_data_key_from_another_cluster,
    "a data key lost": lambda damaged, _: (
        damaged.etcd.entries.pop(next(key for key in damaged.etcd.entries if key.startswith("datakey/secrets")))
        and None
    ),
    "a checkpoint part lost": lose_a_checkpoint_part,
    "two checkpoint parts swapped": swap_checkpoint_parts,
    "a checkpoint of another cluster": checkpoint_from_another_cluster,
    "a blob lost": drop_a_blob_part,
}


@pytest.mark.parametrize("kind", IN_ETCD)
async def test_what_is_moved_dropped_or_copied_in_etcd_is_seen(kind: str) -> None:
    world, other = await make_world(), await make_world("another cluster")
    damaged = world.damaged()
    IN_ETCD[kind](damaged, other)
    seen = await damaged.fsck_sees()
    count(kind, seen)
    assert seen
    if "another cluster's log" not in kind:
        assert (await damaged.read_etcd()).right
        assert (await damaged.read_checkpoint()).right


def object_of(world: World, kind: str) -> str:
    return next(key for key in world.made.store.objects if key.startswith(kind))


def lose(damaged: World, which: str) -> None:
    del damaged.made.store.objects[which]


def swap_objects(damaged: World, _: World) -> None:
    objects = damaged.made.store.objects
    one, other = [key for key in objects if key.startswith("objects/")][:2]
    objects[one], objects[other] = objects[other], objects[one]


def manifests_of_another_cluster(damaged: World, other: World) -> None:
    damaged.made.store.objects |= {
        key: data for key, data in other.made.store.objects.items() if key.startswith(("manifests/", "objects/"))
    }


def newest_manifest_dropped(damaged: World, _: World) -> None:
    lose(damaged, max(key for key in damaged.made.store.objects if key.startswith("manifests/")))


IN_ARCHIVE: dict[str, Callable[[World, World], None]] = {
    "two objects swapped": swap_objects,
    "an object lost": lambda damaged, _: lose(damaged, object_of(damaged, "objects/")),
    "manifests of another cluster": manifests_of_another_cluster,
    "a claim of another cluster": lambda damaged, other: damaged.made.store.objects.update(
        {claim_name(1): other.made.store.objects[claim_name(1)]}
    ),
    "a claim lost": lambda damaged, _: lose(damaged, claim_name(1)),
    "the newest manifest lost": newest_manifest_dropped,
    "a public key of another cluster": lambda damaged, other: damaged.made.store.objects.update(
        {object_of(damaged, "keys/"): other.made.store.objects[object_of(other, "keys/")]}
    ),
}


@pytest.mark.parametrize("kind", IN_ARCHIVE)
async def test_what_is_moved_dropped_or_copied_in_the_archive_is_seen(kind: str) -> None:
    world, other = await make_world(), await make_world("another cluster")
    damaged = world.damaged()
    IN_ARCHIVE[kind](damaged, other)
    seen = await damaged.fsck_sees_in_archive()
    count(kind, seen)
    assert seen
    assert (await damaged.read_archive()).right or kind == "manifests of another cluster"


async def test_etcd_set_back_to_an_old_copy_is_seen_by_the_archive_and_by_who_followed() -> None:
    """Everything in etcd is sound, and old: only what is kept elsewhere can tell."""
    world = await make_world()
    old = world.damaged()
    head = world.log.head
    await world.log.append(new_record(6))
    await world.made.ship()
    old.reaches = (await ArchiveReader(world.made.store).load()).head
    seen = await old.fsck_sees()
    count("etcd set back to an old copy", seen)
    assert seen
    with pytest.raises(TimelineMoved, match="moved back"):
        check_same_timeline(world.log.head.head, head.head)
    with pytest.raises(TimelineMoved, match="moved back"):  # noqa: PT012 - a loop to follow with
        async with aclosing(old.log.follower().follow(world.log.head.head)) as batches:
            async for _ in batches:
                pass


async def restored(world: World) -> Log:
    """The log as a restore makes it: epoch 2 on a new store, based on position 3, with one record of its own."""
    log, old = world.log, world.log.head.head
    records = decode_frame(world.etcd.frames[name(3)].value, Position(1, 3))
    base = Head(old.log_id, 2, 3, hashlib.sha256(records[-1]).digest())
    keyring = world.keyring
    keys = [await keyring.sealing_keys(old.log_id, each) for each in (KeyClass.CONFIG, KeyClass.SECRETS)]
    secrets = keys[1][1]
    assert secrets is not None
    sealed = seal_checkpoint(
        (["state"], ["secret"]),
        CheckpointPlace(base, Position(1, 3), 1, 1, "hash"),
        (keys[0][0], secrets),
        await signing_key(log.driver, keyring, old.log_id, log.clock, log.entropy),
        created_us=1,
        entropy=log.entropy,
    )
    store = MemoryStore()
    store.entries = {key: entry for key, entry in world.etcd.entries.items() if key.startswith("datakey/")}
    store.entries |= {part_name(base.at, n): Entry(part, 2) for n, part in enumerate(sealed.parts.values())}
    store.entries[checkpoint_name(base.at)] = Entry(sealed.manifest, 2)
    store.head, store.revision = Entry(encode_head(base), 2), 2
    driver = MemoryDriver(store)
    writer = LogWriter(driver, Keyring(driver, BOTH), log.clock, log.entropy)
    made = Log(driver, Keyring(driver, BOTH), writer, log.clock, log.entropy, HeadRef(base, 2))
    await made.append(new_record(40))
    return made


def store_of(log: Log) -> MemoryStore:
    assert isinstance(log.driver, MemoryDriver)
    return log.driver._store


async def test_records_of_an_older_epoch_replayed_are_seen() -> None:
    world = await make_world()
    new = await restored(world)
    store = store_of(new)
    truth = [record.data for record in await read_all(new.follower(), _base(new))]
    assert truth == [new_record(40).data]
    replays: dict[str, Callable[[], None]] = {
        "an old epoch's record in a new one's place": lambda: store.put_frame(
            name(4, 2), world.etcd.frames[name(5)].value
        ),
        "an old epoch's head over the new one": lambda: setattr(
            store, "head", Entry(encode_head(world.log.head.head), 3)
        ),
    }
    for kind, replay in replays.items():
        frames, head = dict(store.frames), store.head
        replay()
        seen = not (await fsck_of(new)).clean
        count(kind, seen)
        assert seen, kind
        with pytest.raises(IntegrityError):
            await read_all(new.follower(), _base(new))
        store.frames, store.head = frames, head
    assert (await fsck_of(new)).clean


def _base(log: Log) -> Head:
    """The point that a restored log is followed from: its checkpoint's."""
    return parse_manifest(store_of(log).entries[checkpoint_name(Position(2, 3))].value).at


async def fsck_of(log: Log) -> FsckReport:
    return await fsck(log.driver, Keyring(log.driver, BOTH))


async def test_a_paused_writer_of_a_dead_epoch_writes_nothing_when_it_wakes() -> None:
    world = await make_world()
    new = await restored(world)
    sleeper = LogWriter(new.driver, Keyring(new.driver, BOTH), new.clock, new.entropy)
    before = dict(store_of(new).frames)
    with pytest.raises(TimelineMoved, match="epoch 2"):
        await sleeper.append(world.log.head, [new_record(99)], 0)
    assert store_of(new).frames == before
    follower = Follower(new.driver, Keyring(new.driver, BOTH), new.clock, new.entropy)
    with pytest.raises(TimelineMoved):
        await read_all(follower, world.log.head.head)
    count("a paused writer of a dead epoch", True)


async def test_a_writer_on_the_new_epoch_still_writes() -> None:
    """The control of the one before."""
    new = await restored(await make_world())
    assert isinstance(await new.writer.append(new.head, [new_record(41)], 0), Appended)


async def test_a_blob_copied_from_another_cluster_is_refused() -> None:
    world, other = await make_world(), await make_world("another cluster")
    damaged = world.damaged()
    mine = next(key for key in world.etcd.entries if key.startswith("blob/"))
    theirs = next(key for key in other.etcd.entries if key.startswith("blob/"))
    damaged.etcd.entries[mine] = other.etcd.entries[theirs]
    with pytest.raises(IntegrityError, match=r"1\.3"):
        await read_all(damaged.log.follower())
    count("a blob of another cluster", await damaged.fsck_sees())
    assert await damaged.fsck_sees()
