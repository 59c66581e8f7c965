"""Rotation, interrupted, repeated, by two servers at once: every data key is whole at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from eventlog.driver import AppendResult, Committed, LogDriver, Unknown
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.genesis import create_log
from eventlog.keys.file import FileKeyProvider, add_keys, create_key_file, draw_kek, make_current, read_key_file
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider, ProviderGroup, WrappedKey
from eventlog.keys.rotation import KeyRotation, holdings
from eventlog.records import KeyClass
from mesh.errors import BadRequest, Damaged, IntegrityError, MissingKey, NoQuorum, NotFound, SettingsError
from tests.eventlog.keys.houses import ENTROPY
from tests.eventlog.logs import BOTH, CONFIG_ONLY, SeededEntropy, ToldClock, make_memory_log, new_record


class ForgetfulDriver(MemoryDriver):
    """Loses the answers of its first writes of data keys: `landed` says of each whether it lands all the same."""

    def __init__(self, store: MemoryStore, landed: list[bool]) -> None:
        super().__init__(store)
        self.landed = landed

    async def put_data_key(self, key_id: str, value: bytes, expected_mod_revision: int) -> AppendResult:
        if not self.landed:
            return await super().put_data_key(key_id, value, expected_mod_revision)
        if self.landed.pop(0):
            await super().put_data_key(key_id, value, expected_mod_revision)
        return Unknown("lost")


class Place:
    """A log whose key files an operator rotates."""

    def __init__(self, directory: Path, store: MemoryStore) -> None:
        self.store = store
        self.path = directory / "config.kek"
        secrets = directory / "secrets.kek"
        for path, key_class in ((self.path, KeyClass.CONFIG), (secrets, KeyClass.SECRETS)):
            create_key_file(path, key_class, ENTROPY)
        self.file = FileKeyProvider(self.path, KeyClass.CONFIG, ENTROPY)
        self.providers: Mapping[KeyClass, KeyProvider] = {
            KeyClass.CONFIG: self.file,
            KeyClass.SECRETS: FileKeyProvider(secrets, KeyClass.SECRETS, ENTROPY),
        }
        self.log_id = ""

    def keyring(self) -> Keyring:
        return Keyring(MemoryDriver(self.store), self.providers)

    def rotation(self, driver: LogDriver | None = None, keyring: Keyring | None = None) -> KeyRotation:
        driver = driver or MemoryDriver(self.store)
        return KeyRotation(
            driver, keyring or self.keyring(), self.providers, ToldClock(), SeededEntropy(self.path.name)
        )

    async def key_ids(self) -> list[str]:
        return list(await MemoryDriver(self.store).list_data_keys())

    def new_kek(self, *, current: bool) -> str:
        kek_id, material = draw_kek(ENTROPY)
        add_keys(self.path, KeyClass.CONFIG, {kek_id: material})
        if current:
            make_current(self.path, KeyClass.CONFIG, kek_id)
        return kek_id


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, MemoryStore())
    head = (await create_log(MemoryDriver(place.store), place.providers, ToldClock(), SeededEntropy())).head
    place.log_id = head.head.log_id
    return place


async def under(place: Place, kek_id: str) -> list[str]:
    return [row.key_id for row in (await place.rotation().survey(place.log_id)).keys if row.kek_id == kek_id]


async def test_a_drawn_key_seals_from_now_on_whatever_this_servers_clock_says(place: Place) -> None:
    rotation, keyring = place.rotation(), place.keyring()
    await keyring.load(place.log_id)
    first = keyring.newest(KeyClass.CONFIG)
    drawn = [await rotation.draw(place.log_id, KeyClass.CONFIG) for _ in range(3)]  # its clock stands still
    await keyring.load(place.log_id)
    assert keyring.newest(KeyClass.CONFIG).key_id == drawn[-1]
    assert [key.key_id for key in keyring.held(KeyClass.CONFIG)] == [first.key_id, *drawn]


@pytest.mark.parametrize("landed", [[True], [True, True]])
async def test_a_drawn_key_whose_answer_was_lost_is_there_once(place: Place, landed: list[bool]) -> None:
    drawn = await place.rotation(ForgetfulDriver(place.store, landed)).draw(place.log_id, KeyClass.SECRETS)
    assert (await place.key_ids()).count(drawn) == 1


async def test_a_drawn_key_that_never_landed_is_an_error_and_the_next_call_draws_another(place: Place) -> None:
    rotation = place.rotation(ForgetfulDriver(place.store, [False]))
    with pytest.raises(NoQuorum, match="try again"):
        await rotation.draw(place.log_id, KeyClass.CONFIG)
    assert await rotation.draw(place.log_id, KeyClass.CONFIG) in await place.key_ids()


@pytest.mark.parametrize("landed", [[], [False], [True], [False, True], [True, False], [False, False, True]])
async def test_re_wrapping_with_lost_answers_ends_with_every_key_under_the_new_one(
    place: Place, landed: list[bool]
) -> None:
    kek_id = place.new_kek(current=True)
    keyring = place.keyring()
    await keyring.load(place.log_id)
    rotation = place.rotation(ForgetfulDriver(place.store, list(landed)))
    target = await rotation.choose(KeyClass.CONFIG, None)
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    await rotation.rewrap(place.log_id, key_id, target)
    assert await rotation.rewrap(place.log_id, key_id, target) is False, "a second time changes nothing"
    assert await under(place, kek_id) == [key_id]
    fresh = place.keyring()
    await fresh.load(place.log_id)
    assert fresh.loaded == keyring.loaded


async def test_two_servers_at_once_leave_every_key_whole(place: Place) -> None:
    one, two = place.new_kek(current=False), place.new_kek(current=False)
    before = place.keyring()
    await before.load(place.log_id)
    rotation = place.rotation()
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    targets = [await rotation.choose(KeyClass.CONFIG, kek_id) for kek_id in (one, two) * 4]
    await asyncio.gather(*(place.rotation().rewrap(place.log_id, key_id, target) for target in targets))
    after = place.keyring()
    await after.load(place.log_id)
    assert after.loaded == before.loaded
    assert len(await under(place, one)) + len(await under(place, two)) == 1


async def test_a_new_data_key_is_wrapped_as_its_class_is_wrapped_now(place: Place) -> None:
    kek_id = place.new_kek(current=False)
    rotation = place.rotation()
    target = await rotation.choose(KeyClass.CONFIG, kek_id)
    for key_id in await place.key_ids():
        if key_id.startswith("config-"):
            await rotation.rewrap(place.log_id, key_id, target)
    drawn = await rotation.draw(place.log_id, KeyClass.CONFIG)
    assert drawn in await under(place, kek_id), "though another key is still first in this server's file"


async def test_a_retired_key_is_unused_only_once_no_data_key_is_under_it(place: Place) -> None:
    old = place.file.held()[0]
    place.new_kek(current=True)
    await place.rotation().draw(place.log_id, KeyClass.CONFIG)  # under the old one, as its class is
    rotation = place.rotation()

    async def unused() -> tuple[str, ...]:
        return (await rotation.survey(place.log_id)).providers[0].unused

    target = await rotation.choose(KeyClass.CONFIG, None)
    for key_id in [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]:
        assert await unused() == ()
        await rotation.rewrap(place.log_id, key_id, target)
    assert await unused() == (old,)


async def test_a_provider_that_cannot_unwrap_what_it_wraps_gets_no_key(place: Place) -> None:
    class Liar(FileKeyProvider):
        scheme = "liar"

        async def wrap_with(self, kek_id: str, material: bytes, context: bytes) -> WrappedKey:
            return await super().wrap_with(kek_id, bytes(len(material)), context)

    place.providers = {
        **place.providers,
        KeyClass.CONFIG: ProviderGroup([place.file, Liar(place.path, KeyClass.CONFIG, ENTROPY)]),
    }
    rotation = place.rotation()
    target = await rotation.choose(KeyClass.CONFIG, "liar")
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    before = await MemoryDriver(place.store).read_entry(f"datakey/{key_id}")
    with pytest.raises(Damaged, match="left as it is"):
        await rotation.rewrap(place.log_id, key_id, target)
    assert await MemoryDriver(place.store).read_entry(f"datakey/{key_id}") == before


async def test_a_key_that_etcd_lost_comes_back_from_a_server_that_has_it(place: Place) -> None:
    keyring = place.keyring()
    await keyring.load(place.log_id)
    rotation = place.rotation(keyring=keyring)
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    await MemoryDriver(place.store).write_entries({f"datakey/{key_id}": None})
    (row,) = [row for row in (await rotation.survey(place.log_id)).keys if row.problem]
    assert (row.key_id, "rewrap" in str(row.problem)) == (key_id, True)
    assert await rotation.rewrap(place.log_id, key_id, await rotation.choose(KeyClass.CONFIG, None))
    fresh = place.keyring()
    await fresh.load(place.log_id)
    assert fresh.loaded[key_id] == keyring.loaded[key_id]
    with pytest.raises(NotFound):
        await place.rotation().rewrap(place.log_id, "config-never", await rotation.choose(KeyClass.CONFIG, None))


async def test_a_lost_key_encryption_key_loses_nothing_while_a_server_has_the_data_keys(place: Place) -> None:
    keyring = place.keyring()
    await keyring.load(place.log_id)
    place.path.unlink()
    kek_id = place.new_kek(current=True)
    with pytest.raises(MissingKey):
        await place.keyring().load(place.log_id)
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    target = await place.rotation().choose(KeyClass.CONFIG, None)
    with pytest.raises(MissingKey):
        await place.rotation().rewrap(place.log_id, key_id, target)  # a server that never had it
    assert await place.rotation(keyring=keyring).rewrap(place.log_id, key_id, target)
    assert await under(place, kek_id) == [key_id]
    fresh = place.keyring()
    await fresh.load(place.log_id)
    assert fresh.loaded == keyring.loaded


@pytest.mark.parametrize("index", [0, 40, -1])
async def test_a_wrapped_key_that_was_changed_is_written_again_by_a_server_that_has_it(
    place: Place, index: int
) -> None:
    keyring = place.keyring()
    await keyring.load(place.log_id)
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    name = f"datakey/{key_id}"
    entry = place.store.entries[name]
    changed = bytearray(entry.value)
    changed[index] ^= 1
    place.store.entries[name] = entry._replace(value=bytes(changed))
    target = await place.rotation().choose(KeyClass.CONFIG, None)
    with pytest.raises(IntegrityError):
        await place.rotation().rewrap(place.log_id, key_id, target)
    assert await place.rotation(keyring=keyring).rewrap(place.log_id, key_id, target)
    fresh = place.keyring()
    await fresh.load(place.log_id)
    assert fresh.loaded == keyring.loaded


async def test_what_to_wrap_with_is_named_by_key_or_by_kind_and_told_if_unknown(place: Place) -> None:
    rotation, kek_id = place.rotation(), place.new_kek(current=False)
    assert (await rotation.choose(KeyClass.SIGNING, "file")).place.endswith("secrets.kek")
    assert (await rotation.choose(KeyClass.CONFIG, kek_id)).kek_id == kek_id
    with pytest.raises(BadRequest, match=f"no key-encryption key 'nobody'.*{kek_id}"):
        await rotation.choose(KeyClass.CONFIG, "nobody")
    place.providers = {KeyClass.CONFIG: place.file}
    with pytest.raises(MissingKey, match="class 'secrets'"):
        await place.rotation().choose(KeyClass.SIGNING, None)


async def test_members_tell_what_they_hold_by_name_and_a_lost_file_holds_nothing(place: Place) -> None:
    kek_id = place.new_kek(current=False)
    assert f"config:file:{kek_id}" in holdings(place.providers)
    assert holdings(CONFIG_ONLY) == ("config:memory",)
    place.path.unlink()
    assert [name for name in holdings(place.providers) if name.startswith("config:")] == []


# --- the key file


def test_an_added_key_is_not_current_and_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "a.kek"
    first = create_key_file(path, KeyClass.CONFIG, ENTROPY)
    kek_id, material = draw_kek(ENTROPY)
    assert add_keys(path, KeyClass.CONFIG, {kek_id: material}) == [kek_id]
    before = path.read_bytes()
    assert add_keys(path, KeyClass.CONFIG, {kek_id: material}) == []
    assert path.read_bytes() == before
    assert list(read_key_file(path, KeyClass.CONFIG)) == [first, kek_id]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="another key under the id"):
        add_keys(path, KeyClass.CONFIG, {first: material})
    assert path.read_bytes() == before


def test_another_key_becomes_current_and_nothing_else_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.kek"
    path.write_text(f"# ours\nold {'11' * 32}\n\n# see the runbook\nolder {'22' * 32}\nnew {'33' * 32}\n")
    path.chmod(0o600)
    keys = read_key_file(path, KeyClass.CONFIG)
    make_current(path, KeyClass.CONFIG, "new")
    assert list(read_key_file(path, KeyClass.CONFIG)) == ["new", "old", "older"]
    assert read_key_file(path, KeyClass.CONFIG) == keys
    assert path.read_text().startswith("# ours\nnew ")
    assert "# see the runbook" in path.read_text()
    with pytest.raises(MissingKey, match="keys import"):
        make_current(path, KeyClass.CONFIG, "none")


def test_a_file_that_is_gone_is_made_anew_from_a_copy(tmp_path: Path) -> None:
    kek_id, material = draw_kek(ENTROPY)
    add_keys(tmp_path / "a.kek", KeyClass.CONFIG, {kek_id: material})
    assert read_key_file(tmp_path / "a.kek", KeyClass.CONFIG) == {kek_id: material}
    assert (tmp_path / "a.kek").stat().st_mode & 0o777 == 0o600


# --- rotation and what is sealed


async def test_writers_go_on_with_whatever_key_they_have_and_all_of_it_opens() -> None:
    made = await make_memory_log(new_record(1))
    log, rotation = made.log, KeyRotation(made.log.driver, made.log.keyring, BOTH, ToldClock(), SeededEntropy("r"))
    log_id = log.head.head.log_id
    for number in range(2, 6):
        drawn = await rotation.draw(log_id, KeyClass.CONFIG)
        await log.append(new_record(number))
        await log.keyring.load(log_id)
        assert log.keyring.newest(KeyClass.CONFIG).key_id == drawn
        await log.append(new_record(number + 10))
    assert len(await log.read()) == 9


async def test_a_wrapped_key_put_by_an_intruder_is_never_taken(place: Place) -> None:
    (key_id,) = [key_id for key_id in await place.key_ids() if key_id.startswith("config-")]
    entry = await MemoryDriver(place.store).read_entry(f"datakey/{key_id}")
    assert entry is not None
    assert isinstance(await MemoryDriver(place.store).put_data_key("config-other", entry.value, 0), Committed)
    with pytest.raises(IntegrityError):
        await place.keyring().load(place.log_id)
