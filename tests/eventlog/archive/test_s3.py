"""The archive in a real S3-compatible server, whole and through a proxy that refuses, loses, delays and cuts."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.s3 import S3Store
from eventlog.archive.store import ObjectStore
from mesh.errors import SettingsError, Unavailable
from mesh.position import ORIGIN
from runtime.clock import SystemClock
from tests.conditions import await_until
from tests.eventlog.archive.archives import DUTY, Archived, make_archived
from tests.eventlog.archive.conformance import ObjectStoreConformance
from tests.s3_server import CREDENTIALS, Fate, FaultProxy, S3Server

_prefixes = count(1)


class QuickClock(SystemClock):
    """Real time, with short pauses: what is waited for here is the network."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, 0.01))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix() -> str:
    return f"cluster-{next(_prefixes)}"


class TestS3Store(ObjectStoreConformance):
    @pytest.fixture
    def store(self, server: S3Server, prefix: str) -> ObjectStore:
        return S3Store(server.url(prefix))


def is_marked(archived: Archived) -> bool:
    """Whether etcd says that the archive has all of the log: the last thing that the archiver writes."""
    mark = archived.mark()
    return mark is not None and mark.head == archived.log.head.head


async def ship(archived: Archived, store: ObjectStore, rounds: int) -> None:
    """Ship a growing log, each time until the archive has it; with a checkpoint on the way."""
    archiver = archived.archiver(store=store, clock=QuickClock())
    task = asyncio.ensure_future(archiver.run(archived.etcd.grant(DUTY)))
    try:
        for number in range(rounds):
            await archived.append(records=1 + number % 3)
            if number == 3:
                await archived.checkpoint()
            await await_until(lambda: is_marked(archived), what="the archive's mark in etcd")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def check(archived: Archived, store: ObjectStore) -> None:
    """All of the log is there, once; every object is whole."""
    mark, reader = archived.mark(), ArchiveReader(store)
    assert mark is not None
    assert mark.head == archived.log.head.head == (await reader.load()).head
    assert [frame async for frame in reader.frames(ORIGIN)] == archived.frames()
    assert [ref.at.position for ref in await reader.checkpoints()] == [7]
    for each in await store.list("objects/"):
        data = await store.get(each.name)
        assert data is not None
        assert each.name == f"objects/{hashlib.sha256(data).hexdigest()}"


async def test_the_log_is_archived(server: S3Server, prefix: str) -> None:
    archived, store = await make_archived(), S3Store(server.url(prefix))
    await ship(archived, store, rounds=8)
    await check(archived, store)


async def test_through_every_kind_of_trouble_the_archive_becomes_whole(server: S3Server, prefix: str) -> None:
    drawn = random.Random(1)  # noqa: S311 - faults, not keys
    fates = [drawn.choice([*Fate, *[Fate.WELL] * 6]) for _ in range(400)]
    archived = await make_archived()
    async with FaultProxy(server.port, lambda number, _: fates[number] if number < len(fates) else Fate.WELL) as proxy:
        await ship(archived, S3Store(server.url(prefix, proxy.port), request_s=0.25), rounds=10)
        assert {fate for _, fate in proxy.seen} == set(Fate)
    await check(archived, S3Store(server.url(prefix)))


async def test_what_is_wrong_is_said_without_what_is_secret(server: S3Server, prefix: str) -> None:
    async with FaultProxy(server.port, lambda *_: Fate.REFUSED) as proxy:
        with pytest.raises(Unavailable, match=r"does not answer \(500 Internal Server Error\)") as refused:
            await S3Store(server.url(prefix, proxy.port)).put_new("objects/aa", b"x")
    with pytest.raises(Unavailable, match="the connection failed") as nobody:
        await S3Store(server.url(prefix, proxy.port)).get("objects/aa")
    with pytest.raises(SettingsError, match="no bucket for the archive") as missing:
        await S3Store(server.url(prefix).replace("s3://meshlog", "s3://another")).get("objects/aa")
    for failure in (refused, nobody, missing):
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(failure.getrepr(style="long"))


async def test_refused_credentials_are_named_as_such(
    server: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-planted-secret")
    with pytest.raises(
        SettingsError, match=r"refuses this role's credentials \(403 Forbidden, SignatureDoesNotMatch\)"
    ):
        await S3Store(server.url(prefix)).list("objects/")


def test_secrets_of_the_environment_are_in_no_setting(server: S3Server, tmp_path: Path) -> None:
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in S3Store(server.url("x")).place
