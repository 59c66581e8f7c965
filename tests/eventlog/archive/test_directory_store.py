"""The directory store: conformance, and what only files can have: modes, links, half-written ones, a broken disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from eventlog.archive.directory import DirectoryStore
from eventlog.archive.memory import MemoryObjectStore
from eventlog.archive.places import open_store
from eventlog.archive.store import ObjectStore
from mesh.errors import SettingsError, Unavailable
from tests.eventlog.archive.conformance import ObjectStoreConformance


class TestDirectoryStore(ObjectStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return DirectoryStore(tmp_path / "archive")


class TestMemoryStore(ObjectStoreConformance):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryObjectStore()


async def test_only_the_owner_may_read_what_is_there(tmp_path: Path) -> None:
    await DirectoryStore(tmp_path / "archive").put_new("objects/aa11", b"x")
    for path in [tmp_path / "archive", *(tmp_path / "archive").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_links_inside_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "aa11").write_bytes(b"not ours")
    store = DirectoryStore(tmp_path / "archive")
    await store.put_new("objects/bb11", b"x")
    (tmp_path / "archive/objects/aa").symlink_to(outside)
    (tmp_path / "archive/objects/bb/bb22").symlink_to(outside / "aa11")
    for name in ("objects/aa11", "objects/bb22"):
        with pytest.raises(Unavailable, match="cannot be read"):
            await store.get(name)
    with pytest.raises(Unavailable, match="cannot be written"):
        await store.put_new("objects/aa33", b"x")
    assert os.listdir(outside) == ["aa11"]


async def test_what_a_crash_left_half_written_is_no_object_and_goes_away(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "archive")
    await store.put_new("objects/aa11", b"x")
    stale, fresh = tmp_path / "archive/.new/1-1", tmp_path / "archive/.new/1-2"
    stale.write_bytes(b"half")
    fresh.write_bytes(b"being written by another server")
    os.utime(stale, (1_000_000_000, 1_000_000_000))
    store = DirectoryStore(tmp_path / "archive")
    await store.put_new("objects/aa22", b"y")
    assert [each.name for each in await store.list("")] == ["objects/aa11", "objects/aa22"]
    assert os.listdir(tmp_path / "archive/.new") == ["1-2"]


async def test_a_file_system_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file where the directory should be")
    store = DirectoryStore(tmp_path / "archive")
    for call in (store.put_new("objects/aa", b""), store.get("objects/aa"), store.delete("objects/aa")):
        with pytest.raises(Unavailable, match=f"file://{tmp_path}/archive cannot be"):
            await call


@pytest.mark.parametrize(
    "url", ["/var/archive", "file:archive", "file://host/archive", "http://bucket/x", "s3:///prefix"]
)
def test_an_address_of_no_archive_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="s3://BUCKET/PREFIX"):
        open_store(url)


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    for url in ("s3://AKIA:hunter2@bucket/x", "s3://bucket/x?secret_access_key=hunter2"):
        with pytest.raises(SettingsError) as refusal:
            open_store(url)
        assert "hunter2" not in refusal.value.message


async def test_an_address_names_a_directory(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a b").as_uri())
    await store.put_new("objects/aa", b"x")
    assert (tmp_path / "a b/objects/aa/aa").read_bytes() == b"x"
    assert store.place == (tmp_path / "a b").as_uri()
