"""What every key provider must do, whoever keeps the key: wrap, unwrap, and tell each way of having no key apart."""

from __future__ import annotations

import asyncio

import pytest

from eventlog.keys.provider import ProviderGroup, WrappedKey
from eventlog.keys.wrapping import draw_data_key, parse_wrapped, unwrap_data_key, wrap_data_key
from eventlog.records import KeyClass
from mesh.errors import Damaged, IntegrityError, MeshlogError, MissingKey, Unavailable
from tests.conditions import PATIENCE_S
from tests.eventlog.keys.houses import ENTROPY, FileHouse, House
from tests.eventlog.logs import START_US

MATERIAL = b"planted-word-of-32-bytes-in-all!"
CONTEXT = b"\x93\x00\xff a context of any bytes"


def flipped(data: bytes, index: int) -> bytes:
    changed = bytearray(data)
    changed[index] ^= 1 << index % 8
    return bytes(changed)


async def refusal(house: House, wrapped: WrappedKey, context: bytes = CONTEXT) -> MeshlogError:
    """The error of an unwrapping that must fail, checked to tell no secret."""
    with pytest.raises(IntegrityError) as refused:
        await house.provider().unwrap(wrapped, context)
    assert "planted" not in refused.value.message
    assert MATERIAL.hex() not in refused.value.message
    return refused.value


async def test_what_one_role_wraps_another_unwraps(house: House) -> None:
    wrapped = await house.provider().wrap(MATERIAL, CONTEXT)
    assert wrapped.kek_id.isprintable()
    assert 0 < len(wrapped.kek_id) <= 512
    assert MATERIAL not in wrapped.blob
    assert await house.provider().unwrap(wrapped, CONTEXT) == MATERIAL


async def test_wrapping_twice_gives_different_bytes_under_one_key(house: House) -> None:
    one, two = [await house.provider().wrap(MATERIAL, CONTEXT) for _ in range(2)]
    assert one.kek_id == two.kek_id
    assert one.blob != two.blob


async def test_any_bytes_can_be_wrapped(house: House) -> None:
    for material in (bytes(32), bytes(range(224, 256)), b"\n" * 32):
        assert await house.provider().unwrap(await house.provider().wrap(material, b""), b"") == material


async def test_a_wrapped_key_opens_in_its_context_only(house: House) -> None:
    wrapped = await house.provider().wrap(MATERIAL, CONTEXT)
    for other in (b"", CONTEXT[:-1], CONTEXT + b"\0", flipped(CONTEXT, 3)):
        assert isinstance(await refusal(house, wrapped, other), Damaged)


async def test_each_byte_of_a_blob_counts_and_none_may_be_missing(house: House) -> None:
    provider = house.provider()
    wrapped = await provider.wrap(MATERIAL, CONTEXT)
    whole = wrapped.blob
    changed = [flipped(whole, index) for index in range(len(whole))] + [whole[:-1], whole + b"\0", b""]
    some = asyncio.Semaphore(4)

    async def opened(blob: bytes) -> bool:
        async with some:
            try:
                await provider.unwrap(wrapped._replace(blob=blob), CONTEXT)
            except IntegrityError:
                return False
            return True

    assert not any(await asyncio.gather(*map(opened, changed)))


async def test_each_byte_of_a_stored_data_key_counts(house: House) -> None:
    providers = {KeyClass.CONFIG: house.provider()}
    key = draw_data_key(KeyClass.CONFIG, START_US, ENTROPY)
    value = await wrap_data_key(key, "a-log", providers[KeyClass.CONFIG])
    assert await unwrap_data_key(key.key_id, value, "a-log", providers) == key
    length = len(parse_wrapped(key.key_id, value).wrapped.blob)
    # The blob's own bytes are flipped one by one above; here what stands before it.
    for index in [*range(len(value) - length), len(value) - 1]:
        with pytest.raises(IntegrityError):
            await unwrap_data_key(key.key_id, flipped(value, index), "a-log", providers)
    for key_id, log_id in (("config-other", "a-log"), (key.key_id, "another-log")):
        with pytest.raises(Damaged):
            await unwrap_data_key(key_id, value, log_id, providers)


async def test_after_a_rotation_the_new_key_wraps_and_the_old_one_still_opens(house: House) -> None:
    old = await house.provider().wrap(MATERIAL, CONTEXT)
    house.rotate()
    new = await house.provider().wrap(MATERIAL, CONTEXT)
    assert new.kek_id != old.kek_id
    for wrapped in (old, new):
        assert await house.provider().unwrap(wrapped, CONTEXT) == MATERIAL


async def test_a_lost_key_is_named_with_its_class_and_its_place_and_what_to_do(house: House) -> None:
    wrapped = await house.provider().wrap(MATERIAL, CONTEXT)
    house.lose(wrapped.kek_id)
    refused = await refusal(house, wrapped)
    assert isinstance(refused, MissingKey)
    assert house.said in refused.message
    assert "class 'config'" in refused.message
    assert any(word in refused.message for word in ("put the file back", "check", "Check", "make the key available"))


async def test_a_house_that_is_away_is_waited_for_and_said_so(house: House) -> None:
    wrapped = await house.provider().wrap(MATERIAL, CONTEXT)
    away = house.away()
    if away is None:  # a file is there or it is not
        return
    for call in (away.wrap(MATERIAL, CONTEXT), away.unwrap(wrapped, CONTEXT)):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Unavailable, match="try again") as refused:
                await call
        assert "class 'config'" in refused.value.message
        assert "hunter2" not in refused.value.message


async def test_many_at_once(house: House) -> None:
    provider = house.provider()
    wrapped = await asyncio.gather(*(provider.wrap(bytes([n]) * 32, CONTEXT) for n in range(12)))
    opened = await asyncio.gather(*(provider.unwrap(each, CONTEXT) for each in wrapped))
    assert opened == [bytes([n]) * 32 for n in range(12)]


async def test_of_several_providers_the_first_wraps_and_each_opens_its_own(
    house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = FileHouse(tmp_path_factory.mktemp("moved")).provider()
    key = draw_data_key(KeyClass.CONFIG, START_US, ENTROPY)
    before = await wrap_data_key(key, "a-log", house.provider())
    moving = {KeyClass.CONFIG: ProviderGroup([files, house.provider()])}
    after = await wrap_data_key(key, "a-log", moving[KeyClass.CONFIG])
    assert parse_wrapped(key.key_id, after).scheme == "file"
    for value in (before, after):
        assert await unwrap_data_key(key.key_id, value, "a-log", moving) == key
    with pytest.raises(MissingKey, match=r"beside it|put the file back"):
        await unwrap_data_key(key.key_id, before, "a-log", {KeyClass.CONFIG: files})
