"""A process's settings: flag, variable, file, default, in that order, and errors that name the field."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mesh.errors import SettingsError
from runtime.key_sources import key_files
from runtime.settings import (
    ApiSettings,
    AuthorityFiles,
    Endpoint,
    EtcdMemberSettings,
    EtcdPeer,
    FrontendSettings,
    KekSettings,
    LimitSettings,
    ProcessSettings,
    ProjectorSettings,
    TlsFiles,
    split_address,
)
from runtime.settings_file import dump, load, relative_to

TLS = TlsFiles(certificate=Path("a/tls.crt"), key=Path("a/tls.key"), authority=Path("/elsewhere/ca.crt"))
COMMON = {
    "id": "x-z1",
    "zone": "z1",
    "data_dir": Path("a/state"),
    "listen": "127.0.0.1:7411",
    "advertise": "host.example:7411",
    "health": "127.0.0.1:7414",
    "pid_file": Path("a/pid"),
}
LOG = {
    "account_id": "123456789012",
    "etcd_endpoints": (Endpoint("z1", "127.0.0.1:2379"), Endpoint("z2", "[::1]:2379")),
    "etcd_tls": TLS,
    "role_tls": TLS,
    "kek": KekSettings(config=key_files(Path("a/config.kek"))),
}
API = ApiSettings(
    **COMMON,  # type: ignore[arg-type]
    **LOG,  # type: ignore[arg-type]
    proxy_authority=AuthorityFiles(certificate=Path("a/p.crt"), key=Path("a/p.key")),
    frontends=(Endpoint('zone "one" \\ β\x7f', "127.0.0.1:7412"),),
    http_tls=TLS,
    limits=LimitSettings(requests_per_s=7, connections=99),
)
EVERY_ROLE: list[ProcessSettings] = [
    API,
    ProjectorSettings(**COMMON, **LOG, projectors=()),  # type: ignore[arg-type]
    FrontendSettings(
        **COMMON,  # type: ignore[arg-type]
        account_id="123456789012",
        role_tls=TLS,
        proxy_authority_certificate=Path("a/p.crt"),
        projectors=(Endpoint("z1", "127.0.0.1:7413"),),
    ),
    EtcdMemberSettings(
        **COMMON,  # type: ignore[arg-type]
        peer_listen="0.0.0.0:2380",
        peer_advertise="127.0.0.1:2380",
        members=(EtcdPeer("etcd-z1", "127.0.0.1:2380"),),
        cluster_token="t",
        client_tls=TLS,
        peer_tls=TLS,
        allow_first_look=True,
    ),
]


def written(directory: Path, settings: ProcessSettings) -> Path:
    path = directory / "role.toml"
    path.write_text(dump(settings), encoding="utf-8")
    return path


@pytest.mark.parametrize("settings", EVERY_ROLE, ids=lambda settings: settings.role)
def test_what_is_written_is_read_back(tmp_path: Path, settings: ProcessSettings) -> None:
    read = load(type(settings), written(tmp_path, settings), {})
    assert read.data_dir == tmp_path / "a/state"
    assert relative_to(read, tmp_path) == settings


def test_a_flag_beats_a_variable_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    path = written(tmp_path, API)
    assert load(ApiSettings, path, {}).log_level == "info"
    path.write_text(path.read_text().replace('log_level = "info"', 'log_level = "warning"'))
    assert load(ApiSettings, path, {}).log_level == "warning"
    assert load(ApiSettings, path, {"MESHLOG_LOG_LEVEL": "debug"}).log_level == "debug"
    assert load(ApiSettings, path, {"MESHLOG_LOG_LEVEL": "debug"}, {"log_level": "error"}).log_level == "error"
    assert load(ApiSettings, path, {"MESHLOG_LOG_LEVEL": "debug"}, {"log_level": None}).log_level == "debug"


def test_variables_reach_nested_fields_lists_numbers_and_flags(tmp_path: Path) -> None:
    environ = {"MESHLOG_ETCD_TLS_KEY": "/run/key", "MESHLOG_ETCD_ENDPOINTS": "a=h1:1, b=h2:2"}
    settings = load(ApiSettings, written(tmp_path, API), environ)
    assert settings.etcd_tls.key == Path("/run/key")
    assert settings.etcd_tls.certificate == tmp_path / "a/tls.crt"
    assert settings.etcd_endpoints == (Endpoint("a", "h1:1"), Endpoint("b", "h2:2"))
    etcd = load(
        EtcdMemberSettings,
        written(tmp_path, EVERY_ROLE[-1]),
        {"MESHLOG_ELECTION_MS": "2000", "MESHLOG_ALLOW_FIRST_LOOK": "false", "MESHLOG_MEMBERS": "m=h:1"},
    )
    assert (etcd.election_ms, etcd.allow_first_look, etcd.members) == (2000, False, (EtcdPeer("m", "h:1"),))


def test_the_variable_that_names_a_cluster_to_the_cli_does_not_move_a_processs_files(tmp_path: Path) -> None:
    path = written(tmp_path, API)
    assert load(ApiSettings, path, {"MESHLOG_DATA_DIR": "/other"}).data_dir == tmp_path / "a/state"


def test_an_optional_table_may_be_absent(tmp_path: Path) -> None:
    path = written(tmp_path, dataclasses.replace(API, http_tls=None))
    assert load(ApiSettings, path, {}).http_tls is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('zone = "z1"', "zone = 1", "'zone' .or MESHLOG_ZONE. must be text"),
        ('id = "x-z1"\n', "", "'id' is missing"),
        ('id = "x-z1"', 'id = "x-z1"\nidd = "y"', "unknown setting 'idd'"),
        ("[kek]\nconfig", "[kek]\nconfigg", "unknown setting 'kek.configg'"),
        ('address = "127.0.0.1:2379"', 'address = "127.0.0.1"', "etcd_endpoints '127.0.0.1' is not host:port"),
        ('role = "api"', 'role = "frontend"', "meshlog serve frontend"),
        ('id = "x-z1"', "id = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_the_field(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = written(tmp_path, API)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SettingsError, match=says):
        load(ApiSettings, path, {})


def test_a_missing_file_and_a_wrong_variable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load(ApiSettings, tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match="MESHLOG_ELECTION_MS"):
        load(EtcdMemberSettings, written(tmp_path, EVERY_ROLE[-1]), {"MESHLOG_ELECTION_MS": "soon"})


def test_addresses_are_host_and_port() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    for wrong in ("host", ":80", "host:", "host:99999", "host:-1"):
        with pytest.raises(SettingsError, match="host:port"):
            split_address(wrong)


def test_limits_are_at_least_one_and_a_variable_changes_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text(dump(API))
    changed = load(ApiSettings, path, {"MESHLOG_LIMITS_REQUESTS_PER_S": "3"})
    assert changed.limits == LimitSettings(requests_per_s=3, connections=99)
    with pytest.raises(SettingsError, match=r"limits\.requests_at_once must be at least 1"):
        load(ApiSettings, path, {"MESHLOG_LIMITS_REQUESTS_AT_ONCE": "0"})
