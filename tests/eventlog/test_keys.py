"""Key files, wrapped data keys and the keyring: every way to have no key is told apart, with what to do."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from eventlog.driver import Committed
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.genesis import create_log
from eventlog.keys.file import FileKeyProvider, create_key_file, key_id_of
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import WrappedKey
from eventlog.keys.wrapping import draw_data_key, parse_wrapped, unwrap_data_key, wrap_data_key
from eventlog.records import KeyClass
from mesh.errors import Damaged, IntegrityError, MissingKey, SettingsError, WrongKey
from runtime.clock import SystemEntropy
from tests.eventlog.logs import BOTH, CONFIG_ONLY, START_US, SeededEntropy, ToldClock, make_memory_log, new_record

MATERIAL = b"m" * 32


def provider(path: Path) -> FileKeyProvider:
    return FileKeyProvider(path, KeyClass.CONFIG, SystemEntropy())


def key_file(path: Path, text: str, mode: int = 0o600) -> FileKeyProvider:
    path.write_text(text)
    path.chmod(mode)
    return provider(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.key"


def test_a_created_key_file_is_private(path: Path) -> None:
    create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_created_key_wraps(path: Path) -> None:
    key_id = create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    wrapped = await provider(path).wrap(MATERIAL, b"context")
    assert wrapped.kek_id == key_id
    assert MATERIAL not in wrapped.blob
    assert await provider(path).unwrap(wrapped, b"context") == MATERIAL


def test_a_key_file_is_never_overwritten(path: Path) -> None:
    create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=str(path)):
        create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    assert path.read_bytes() == before


async def test_wrapping_the_same_key_twice_gives_different_bytes(path: Path) -> None:
    create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    blobs = {(await provider(path).wrap(MATERIAL, b"context")).blob for _ in range(20)}
    assert len(blobs) == 20


@pytest.mark.parametrize("text", ["k1 {hex}", "{hex}", "k1 {b64}", "# a comment\n\nk1 {b64} # note\n", "{b64}\n"])
async def test_hex_and_base64_with_and_without_an_id(path: Path, text: str) -> None:
    key = b"\x7f" * 32
    used = key_file(path, text.format(hex=key.hex(), b64=base64.b64encode(key).decode()))
    wrapped = await used.wrap(MATERIAL, b"")
    assert wrapped.kek_id == ("k1" if "k1" in text else key_id_of(key))
    assert await used.unwrap(wrapped, b"") == MATERIAL


async def test_the_first_line_wraps_and_all_lines_unwrap(path: Path) -> None:
    old = key_file(path, f"old {'11' * 32}\n")
    wrapped = await old.wrap(MATERIAL, b"")
    rotated = key_file(path, f"new {'22' * 32}\nold {'11' * 32}\n")
    assert (await rotated.wrap(MATERIAL, b"")).kek_id == "new"
    assert await rotated.unwrap(wrapped, b"") == MATERIAL


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
async def test_a_file_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        await key_file(path, f"k {'11' * 32}", mode).wrap(MATERIAL, b"")


async def test_no_file_says_which_class_where_and_what_to_do(path: Path) -> None:
    with pytest.raises(MissingKey, match=rf"'config' at {path}.*copy"):
        await provider(path).wrap(MATERIAL, b"")


@pytest.mark.parametrize("line", ["k", "k 1234", "k zz", "k " + "g" * 64, "a b " + "11" * 32, "k " + "11" * 31])
async def test_a_line_that_is_no_key_is_named_by_number_and_never_quoted(path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="Line 2 of the key file") as refused:
        await key_file(path, f"# comment\n{line}\n").wrap(MATERIAL, b"")
    assert "1111" not in refused.value.message
    assert "zz" not in refused.value.message


async def test_an_empty_file_and_two_keys_of_one_id_are_refused(path: Path) -> None:
    with pytest.raises(MissingKey, match="empty"):
        await key_file(path, "# nothing\n").wrap(MATERIAL, b"")
    with pytest.raises(SettingsError, match="id k"):
        await key_file(path, f"k {'11' * 32}\nk {'22' * 32}\n").wrap(MATERIAL, b"")


async def test_a_key_of_another_id_is_missing_and_another_key_of_that_id_is_wrong(path: Path) -> None:
    wrapped = await key_file(path, f"k {'11' * 32}").wrap(MATERIAL, b"")
    with pytest.raises(MissingKey, match=f"key k of class 'config' is not in {path}"):
        await key_file(path, f"other {'11' * 32}").unwrap(wrapped, b"")
    with pytest.raises(WrongKey, match="not the one that wrapped"):
        await key_file(path, f"k {'22' * 32}").unwrap(wrapped, b"")


async def test_a_wrapped_key_opens_in_its_context_only_and_each_byte_counts(path: Path) -> None:
    used = key_file(path, f"k {'11' * 32}")
    wrapped = await used.wrap(MATERIAL, b"context")
    with pytest.raises(Damaged):
        await used.unwrap(wrapped, b"another")
    for index in range(len(wrapped.blob)):
        changed = bytearray(wrapped.blob)
        changed[index] ^= 1
        with pytest.raises(IntegrityError):
            await used.unwrap(WrappedKey("k", bytes(changed)), b"context")
    with pytest.raises(Damaged):
        await used.unwrap(WrappedKey("k", wrapped.blob[:-1]), b"context")


async def test_each_byte_of_a_stored_data_key_counts(path: Path) -> None:
    create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    providers = {KeyClass.CONFIG: provider(path)}
    key = draw_data_key(KeyClass.CONFIG, START_US, SystemEntropy())
    value = await wrap_data_key(key, "a-log", providers[KeyClass.CONFIG])
    assert await unwrap_data_key(key.key_id, value, "a-log", providers) == key
    for index in range(len(value)):
        changed = bytearray(value)
        changed[index] ^= 1
        with pytest.raises(IntegrityError):
            await unwrap_data_key(key.key_id, bytes(changed), "a-log", providers)
    for wrong in (("other-id", "a-log"), (key.key_id, "another-log")):
        with pytest.raises(Damaged):
            await unwrap_data_key(wrong[0], value, wrong[1], providers)


async def test_a_data_key_of_another_provider_says_what_to_set(path: Path) -> None:
    create_key_file(path, KeyClass.CONFIG, SystemEntropy())
    value = await wrap_data_key(draw_data_key(KeyClass.CONFIG, 1, SeededEntropy()), "a-log", BOTH[KeyClass.CONFIG])
    with pytest.raises(MissingKey, match=r"'memory' provider.*'file'"):
        await unwrap_data_key("id", value, "a-log", {KeyClass.CONFIG: provider(path)})


async def test_the_keyring_seals_with_the_newest_key_of_each_class() -> None:
    made = await make_memory_log()
    log_id = made.log.head.head.log_id
    newer = draw_data_key(KeyClass.CONFIG, START_US + 1, SeededEntropy("newer"))
    stored = await wrap_data_key(newer, log_id, BOTH[KeyClass.CONFIG])
    assert isinstance(await made.log.driver.put_data_key(newer.key_id, stored, 0), Committed)
    config, secrets = await Keyring(made.log.driver, BOTH).sealing_keys(log_id, KeyClass.SECRETS)
    assert config == newer
    assert secrets is not None
    assert secrets.key_class is KeyClass.SECRETS
    assert (await Keyring(made.log.driver, BOTH).sealing_keys(log_id, KeyClass.CONFIG))[1] is None


async def test_a_role_without_a_class_cannot_write_it_and_says_so() -> None:
    made = await make_memory_log()
    keyring = Keyring(made.log.driver, CONFIG_ONLY)
    with pytest.raises(MissingKey, match="class 'secrets'"):
        await keyring.sealing_keys(made.log.head.head.log_id, KeyClass.SECRETS)


async def test_new_logs_store_only_wrapped_keys_of_both_classes() -> None:
    store = MemoryStore()
    driver = MemoryDriver(store)
    head = (await create_log(driver, BOTH, ToldClock(), SeededEntropy())).head
    entries = await driver.list_data_keys()
    assert {parse_wrapped(key_id, entry.value).key_class for key_id, entry in entries.items()} == set(KeyClass)
    keyring = Keyring(driver, BOTH)
    keys = await keyring.sealing_keys(head.head.log_id, KeyClass.SECRETS)
    for key in keys:
        assert key is not None
        assert key.material not in b"".join(entry.value for entry in entries.values())


async def test_records_under_an_older_data_key_still_open() -> None:
    made = await make_memory_log(new_record(1))
    log = made.log
    newer = draw_data_key(KeyClass.CONFIG, START_US + 1, SeededEntropy("newer"))
    value = await wrap_data_key(newer, log.head.head.log_id, BOTH[KeyClass.CONFIG])
    await log.driver.put_data_key(newer.key_id, value, 0)
    await log.keyring.load(log.head.head.log_id)
    await log.append(new_record(2))
    assert [record.request_id for record in await log.read()] == ["rq-1", "rq-2"]
