"""What every object store must do. Subclasses give `store`."""

from __future__ import annotations

import asyncio

import pytest

from eventlog.archive.store import ObjectStore, StoredObject


class ObjectStoreConformance:
    async def test_an_object_comes_back_as_it_was_put(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 4000
        assert await store.put_new("objects/aa11", data)
        assert await store.get("objects/aa11") == data

    async def test_a_name_is_written_once(self, store: ObjectStore) -> None:
        assert await store.put_new("manifests/00000001/00000000000000000001", b"first")
        assert not await store.put_new("manifests/00000001/00000000000000000001", b"second")
        assert await store.get("manifests/00000001/00000000000000000001") == b"first"

    async def test_of_many_that_put_one_name_at_once_one_wins(self, store: ObjectStore) -> None:
        answers = await asyncio.gather(*(store.put_new("epochs/00000002", b"%d" % each) for each in range(8)))
        assert sorted(answers) == [False] * 7 + [True]
        assert await store.get("epochs/00000002") == b"%d" % answers.index(True)

    async def test_what_was_never_put_is_not_there(self, store: ObjectStore) -> None:
        assert await store.get("objects/ffff") is None
        assert list(await store.list("objects/")) == []
        await store.delete("objects/ffff")

    async def test_a_listing_is_sorted_by_name_and_goes_on_after_one(self, store: ObjectStore) -> None:
        for name, size in (("objects/bb", 2), ("objects/ab", 1), ("keys/signing-1.pub", 32), ("objects/ba", 0)):
            await store.put_new(name, bytes(size))
        found = [StoredObject("objects/ab", 1), StoredObject("objects/ba", 0), StoredObject("objects/bb", 2)]
        assert list(await store.list("objects/")) == found
        assert list(await store.list("objects/", after="objects/ab")) == found[1:]
        assert [each.name for each in await store.list("")] == ["keys/signing-1.pub", *(each.name for each in found)]

    async def test_a_deleted_object_is_gone_and_its_name_free(self, store: ObjectStore) -> None:
        await store.put_new("objects/cc", b"old")
        await store.delete("objects/cc")
        assert await store.get("objects/cc") is None
        assert await store.put_new("objects/cc", b"new")

    @pytest.mark.parametrize(
        "name", ["../etc/passwd", "objects/../../x", "/objects/a", "objects//a", "objects", "a/.b"]
    )
    async def test_no_name_leads_out_of_the_store(self, store: ObjectStore, name: str) -> None:
        with pytest.raises(ValueError, match="no object can be called"):
            await store.put_new(name, b"")
        with pytest.raises(ValueError, match="no object can be called"):
            await store.get(name)
