"""Keys from copies: key-encryption keys into the key files of this host, wrapped data keys into etcd.

Everything is tried before it is written: a data key goes in only if it opens, a key file only gets what fits it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.archive_access import archive_url
from cli.establish import api_settings
from cli.layout import Layout
from cli.log_access import etcd_connection, key_providers
from cli.output import note
from eventlog.archive.places import open_store
from eventlog.archive.reader import ArchiveReader
from eventlog.driver import Committed
from eventlog.drivers.etcd import EtcdDriver
from eventlog.keys.file import add_keys, draw_kek, make_current, read_key_file
from eventlog.keys.provider import KeyProvider
from eventlog.keys.wrapping import unwrap_data_key
from eventlog.records import KeyClass
from mesh.errors import Conflict, IntegrityError, MissingKey, NoQuorum, SettingsError
from runtime.clock import Entropy, SystemClock, SystemEntropy
from runtime.settings import ApiSettings, KekSettings, ProjectorSettings
from runtime.settings_file import load


def key_file_paths(layout: Layout, key_class: str) -> list[Path]:
    """Every key file of a class in the cluster's directory: the operator's, then those of the zones' roles."""
    cluster = layout.load()
    roles = ("api", "projector") if key_class == KeyClass.CONFIG.value else ("api",)
    configs = [layout.config(zone, role) for zone in cluster.zones for role in roles]
    found = [path for config in configs if config.exists() for path in _files_of(config, key_class)]
    return [layout.key_file(key_class), *found] if found else []


def import_file(
    layout: Layout, key_class: str, file: Path, configs: Sequence[Path], *, current: bool
) -> Iterator[tuple[Path, list[str]]]:
    """Add the keys in `file` to each key file; gives its path and what was added."""
    name = KeyClass(key_class)
    keys = read_key_file(file, name)
    paths = _paths(layout, key_class, configs)
    if not paths:
        raise SettingsError(f"class '{key_class}' has no key file in those settings: its keys are kept elsewhere")
    other = KeyClass.SECRETS if name is KeyClass.CONFIG else KeyClass.CONFIG
    _check_not_of(other, keys, file, _paths(layout, other.value, configs))
    for path in paths:
        added = add_keys(path, name, keys)
        if current:
            make_current(path, name, next(iter(keys)))
        yield path, added


def _paths(layout: Layout, key_class: str, configs: Sequence[Path]) -> list[Path]:
    if not configs:
        return key_file_paths(layout, key_class)
    return [path for config in configs for path in _files_of(config, key_class)]


def _check_not_of(other: KeyClass, keys: Mapping[str, bytes], file: Path, paths: Sequence[Path]) -> None:
    """SettingsError if one of `keys` is a key of the other class: projectors hold those of one, never of both."""
    for path in paths:
        held = read_key_file(path, other) if path.exists() else {}
        if shared := sorted(kek_id for kek_id, key in keys.items() if key in held.values()):
            raise SettingsError(
                f"{file} holds {shared[0]}, which is a key of class '{other.value}' here ({path}): the two classes "
                "have keys of their own, since projectors hold only one of them. Import the other file, or say "
                f"--class {other.value}"
            )


def add_new_kek(layout: Layout, key_class: str, entropy: Entropy) -> str:
    """Draw a key into every key file of the directory, not current; its id. The operator's file goes first."""
    paths = key_file_paths(layout, key_class)
    if not paths:
        raise SettingsError(
            f"class '{key_class}' is not kept in key files: rotate the key where it is kept (AWS KMS: point the alias "
            "to another key; Vault: vault write -f transit/keys/NAME/rotate), then run `meshlog keys rewrap`"
        )
    kek_id, material = draw_kek(entropy)
    for path in paths:
        add_keys(path, KeyClass(key_class), {kek_id: material})
    return kek_id


def prefer(layout: Layout, key_class: str, kek_id: str) -> None:
    """Make it the current key of every key file of the directory."""
    for path in key_file_paths(layout, key_class):
        make_current(path, KeyClass(key_class), kek_id)


async def bring_back_data_key(layout: Layout, key_id: str, value: bytes) -> None:
    """Write a wrapped data key to etcd, if it opens and etcd has none that does."""
    with _store(layout) as (driver, providers):
        await _bring_back(driver, providers, {key_id: value})


async def data_keys_from_archive(layout: Layout) -> None:
    """The same for every data key that the archive holds."""
    reader = ArchiveReader(open_store(archive_url(layout, None)))
    await reader.load()
    with _store(layout) as (driver, providers):
        await _bring_back(driver, providers, await reader.data_keys())


@contextmanager
def _store(layout: Layout) -> Iterator[tuple[EtcdDriver, Mapping[KeyClass, KeyProvider]]]:
    settings = api_settings(layout, layout.load())
    connection = etcd_connection(settings, SystemClock(), SystemEntropy())
    try:
        yield EtcdDriver(connection, settings.key_prefix), key_providers(settings.kek, SystemEntropy())
    finally:
        connection.close()


async def _bring_back(
    driver: EtcdDriver, providers: Mapping[KeyClass, KeyProvider], values: Mapping[str, bytes]
) -> None:
    head = await driver.read_head()
    if head is None:
        raise MissingKey("there is no log in etcd: a lost cluster comes back with `meshlog restore`")
    log_id = head.head.log_id
    stored = await driver.list_data_keys()
    for key_id, value in values.items():
        copy = await unwrap_data_key(key_id, value, log_id, providers)
        present = stored.get(key_id)
        if present is not None:
            try:
                if await unwrap_data_key(key_id, present.value, log_id, providers) == copy:
                    note(f"{key_id}: is there, and opens")
                    continue
            except IntegrityError as damaged:
                note(f"{key_id}: is there, and does not open ({damaged.message})")
            else:
                raise Conflict(f"etcd has another data key {key_id}, which opens: nothing was changed")
        if not isinstance(await driver.put_data_key(key_id, value, present.mod_revision if present else 0), Committed):
            raise NoQuorum(f"etcd gave no certain answer to {key_id}: run this again")
        note(f"{key_id}: brought back")


def _files_of(config: Path, key_class: str) -> list[Path]:
    """The key files that a role's settings name for a class."""
    kek = _kek_of(config)
    sources = kek.config if key_class == KeyClass.CONFIG.value else (kek.secrets or ())
    return [source.path for source in sources if source.path is not None]


def _kek_of(config: Path) -> KekSettings:
    try:
        return load(ApiSettings, config, {}).kek
    except SettingsError as not_an_api_server:
        try:
            return load(ProjectorSettings, config, {}).kek
        except SettingsError:
            raise not_an_api_server from None
