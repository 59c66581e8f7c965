"""A cluster's directory: complete, private, the same when made again, and true for each process."""

from __future__ import annotations

import dataclasses
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from cli.credentials import AdminCredentials
from cli.layout import ROLE_ORDER, ClusterFile, Layout
from cli.main import main
from cli.plan import Listener, Plan, plan_of, process_id, with_peer_ports
from cli.provision import Provisioner
from cli.serve_upkeep import maintenance_files
from cluster import pki
from mesh.errors import SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.ports import LOWEST, RANGE_VARIABLE, free_ports, usable_range
from runtime.settings import ROLES, ApiSettings, Endpoint, EtcdMemberSettings, FrontendSettings, ProjectorSettings
from runtime.settings_file import load
from runtime.tls import ServerCertificate

ACCOUNT = "123456789012"
ENTROPY = SystemEntropy()
DAY_US = 24 * 3600 * 1_000_000


class At:
    """A clock that stands some days from now."""

    def __init__(self, days: int = 0) -> None:
        self._us = SystemClock().now_us() + days * DAY_US

    def now_us(self) -> int:
        return self._us

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        raise AssertionError("provisioning waits for nothing")


def plan(zones: tuple[str, ...] = ("z1", "z2")) -> Plan:
    listeners = {}
    port = 20_000
    for zone in zones:
        for role in ROLE_ORDER:
            listeners[zone, role] = Listener(
                listen_host="127.0.0.1",
                host="127.0.0.1",
                port=port,
                health_port=port + 1,
                peer_port=port + 2 if role == "etcd" else 0,
            )
            port += 3
    return Plan(account_id=ACCOUNT, region="eu-west-1", zones=zones, listeners=listeners, local=True)


def made(directory: Path, days: int = 0, zones: tuple[str, ...] = ("z1", "z2")) -> tuple[ClusterFile, AdminCredentials]:
    return Provisioner(Layout(directory), plan(zones), At(days), ENTROPY).write()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_process_has_settings_that_load_and_files_that_are_there(tmp_path: Path) -> None:
    cluster, _ = made(tmp_path)
    assert [(process.role, process.zone) for process in cluster.processes] == [
        (role, zone) for zone in ("z1", "z2") for role in ROLE_ORDER
    ]
    for process in cluster.processes:
        settings = load(ROLES[process.role], tmp_path / process.config, {})
        assert (settings.id, settings.advertise) == (process.id, process.address)
    api = load(ApiSettings, tmp_path / "zones/z1/api.toml", {})
    projector = load(ProjectorSettings, tmp_path / "zones/z2/projector.toml", {})
    frontend = load(FrontendSettings, tmp_path / "zones/z1/frontend.toml", {})
    assert [endpoint.zone for endpoint in api.etcd_endpoints] == ["z1", "z2"]
    assert api.frontends == tuple(Endpoint(one.zone, one.address) for one in cluster.of_role("frontend"))
    assert frontend.projectors == projector.projectors == cluster.endpoints("projector")
    assert api.kek.secrets is not None
    keks = (api.kek.secrets[0].path, projector.kek.config[0].path)
    for path in (api.proxy_authority.key, *keks, frontend.proxy_authority_certificate):
        assert path is not None
        assert path.is_file()


def test_each_role_is_given_no_more_than_it_needs(tmp_path: Path) -> None:
    made(tmp_path, zones=("z1",))
    given = {role: {path.name for path in (tmp_path / "zones/z1" / role).iterdir()} for role in ROLE_ORDER}
    assert "secrets.kek" in given["api"]
    assert "secrets.kek" not in given["projector"]
    assert "proxies-ca.key" in given["api"]
    for role in ("projector", "frontend", "etcd"):
        assert not {name for name in given[role] if name.endswith("ca.key")}
    assert not {name for name in given["frontend"] if "kek" in name or "etcd" in name}


def test_what_is_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    made(tmp_path)
    secret = [
        path for path in tmp_path.rglob("*") if path.suffix in (".key", ".kek") or path.name == "credentials.json"
    ]
    assert len(secret) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o022 == 0
    text = b"".join(data for name, data in contents(tmp_path).items() if name.endswith((".toml", "cluster.json")))
    assert json.loads((tmp_path / "credentials.json").read_text())["secret_access_key"].encode() not in text


def test_made_again_nothing_changes(tmp_path: Path) -> None:
    first = made(tmp_path)
    before = contents(tmp_path)
    assert made(tmp_path) == first
    assert contents(tmp_path) == before


def test_made_again_a_missing_file_comes_back_under_the_same_root(tmp_path: Path) -> None:
    made(tmp_path)
    before = contents(tmp_path)
    for name in ("zones/z1/api/role.key", "zones/z2/frontend.toml", "zones/z1/projector/config.kek"):
        (tmp_path / name).unlink()
    made(tmp_path)
    after = contents(tmp_path)
    assert set(after) == set(before)
    renewed = {name for name in after if after[name] != before[name]}
    assert renewed == {"zones/z1/api/role.key", "zones/z1/api/role.crt"}


def test_certificates_are_renewed_before_they_expire_and_roots_are_kept(tmp_path: Path) -> None:
    made(tmp_path)
    before = contents(tmp_path)
    made(tmp_path, days=300)
    after = contents(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert "zones/z1/frontend/role.crt" in changed
    assert not {name for name in changed if "ca." in name or "kek" in name or name == "credentials.json"}
    old, new = (x509.load_pem_x509_certificate(found["zones/z1/api/role.crt"]) for found in (before, after))
    assert new.not_valid_after_utc > old.not_valid_after_utc


def test_settings_that_an_operator_changed_are_kept(tmp_path: Path) -> None:
    made(tmp_path)
    path = tmp_path / "zones/z1/api.toml"
    path.write_text(path.read_text().replace('log_level = "info"', 'log_level = "debug"'))
    made(tmp_path)
    assert load(ApiSettings, path, {}).log_level == "debug"


def test_a_directory_of_an_earlier_build_gets_the_ports_that_it_lacks(tmp_path: Path) -> None:
    made(tmp_path)
    path = tmp_path / "zones/z1/api.toml"
    path.write_text(path.read_text().replace('log_level = "info"', 'log_level = "debug"') + "\n# an operator's note\n")
    assert load(ApiSettings, path, {}).peer_listen is None
    for ports in (range(30_001, 30_005), range(30_005, 30_009)):  # what is there is kept
        cluster, _ = Provisioner(Layout(tmp_path), with_peer_ports(plan(), ports), At(), ENTROPY).write()
        api = load(ApiSettings, path, {})
        assert (api.peer_listen, api.peer_advertise) == ("127.0.0.1:30001", "127.0.0.1:30001")
        assert load(ApiSettings, tmp_path / "zones/z2/api.toml", {}).peer_listen == "127.0.0.1:30003"
        frontend = load(FrontendSettings, tmp_path / "zones/z1/frontend.toml", {})
        assert (frontend.signed_listen, frontend.signed_advertise) == ("127.0.0.1:30002", "127.0.0.1:30002")
        assert frontend.apis == (Endpoint("z1", "127.0.0.1:30001"), Endpoint("z2", "127.0.0.1:30003"))
        assert [each.signed for each in cluster.of_role("frontend")] == ["127.0.0.1:30002", "127.0.0.1:30004"]
    assert api.log_level == "debug"
    assert path.read_text().endswith("# an operator's note\n")


def test_a_cluster_on_one_machine_is_archived_in_its_directory_unless_told_elsewhere(tmp_path: Path) -> None:
    def archives(directory: Path) -> list[str | None]:
        return [load(ApiSettings, directory / f"zones/{zone}/api.toml", {}).archive for zone in ("z1", "z2")]

    made(tmp_path / "a b")
    assert archives(tmp_path / "a b") == [f"file://{tmp_path}/a%20b/archive"] * 2
    elsewhere = "s3://bucket/cluster?endpoint=http://127.0.0.1:9000&region=eu-west-1"
    Provisioner(Layout(tmp_path / "s3"), dataclasses.replace(plan(), archive=elsewhere), At(0), ENTROPY).write()
    assert archives(tmp_path / "s3") == [elsewhere] * 2
    Provisioner(Layout(tmp_path / "hosts"), dataclasses.replace(plan(), local=False), At(0), ENTROPY).write()
    assert archives(tmp_path / "hosts") == [None, None]


def test_a_directory_of_an_earlier_build_gets_an_archive(tmp_path: Path) -> None:
    made(tmp_path)
    path = tmp_path / "zones/z1/api.toml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("archive = ")))
    made(tmp_path)
    assert load(ApiSettings, path, {}).archive == f"file://{tmp_path}/archive"


def test_the_plan_of_a_directory_is_the_one_that_made_it(tmp_path: Path) -> None:
    cluster, _ = made(tmp_path)
    etcd = {zone: load(EtcdMemberSettings, tmp_path / f"zones/{zone}/etcd.toml", {}) for zone in cluster.zones}
    assert plan_of(cluster, etcd) == plan()
    assert Layout(tmp_path).load() == cluster


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "zones": 1, "processes": []}']
)
def test_a_damaged_cluster_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(SettingsError):
        Layout(tmp_path).load()


def test_a_secret_does_not_show_in_a_traceback(tmp_path: Path) -> None:
    _, admin = made(tmp_path)
    assert admin.secret_access_key not in repr(admin)
    assert len(admin.access_key_id) == 20
    assert len(admin.secret_access_key) == 40
    assert admin.secret_access_key.isalnum()


def test_init_makes_a_directory_for_each_host(tmp_path: Path) -> None:
    data_dir = tmp_path / "d"
    arguments = ["init", "--account-id", ACCOUNT, "--listen-host", "0.0.0.0", "--data-dir", str(data_dir)]
    assert main([*arguments, "--zone", "eu-a={role}-a.example", "--zone", "eu-b=10.0.0.2"]) == 0
    api = load(ApiSettings, data_dir / "zones/eu-a/api.toml", {})
    assert (api.listen, api.advertise, api.health) == ("0.0.0.0:7411", "api-a.example:7411", "0.0.0.0:7414")
    assert (api.peer_listen, api.peer_advertise) == ("0.0.0.0:7418", "api-a.example:7418")
    frontend = load(FrontendSettings, data_dir / "zones/eu-b/frontend.toml", {})
    assert (frontend.signed_listen, frontend.signed_advertise) == ("0.0.0.0:7419", "10.0.0.2:7419")
    assert frontend.apis == (Endpoint("eu-a", "api-a.example:7418"), Endpoint("eu-b", "10.0.0.2:7418"))
    assert api.etcd_endpoints == (Endpoint("eu-a", "etcd-a.example:2379"), Endpoint("eu-b", "10.0.0.2:2379"))
    etcd = load(EtcdMemberSettings, data_dir / "zones/eu-b/etcd.toml", {})
    assert not etcd.allow_first_look
    assert etcd.binary is None
    assert {peer.address for peer in etcd.members} == {"etcd-a.example:2380", "10.0.0.2:2380"}
    certificate = x509.load_pem_x509_certificate((data_dir / "zones/eu-a/api/role.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"api.meshlog", "api-a.example"} <= set(names.get_values_for_type(x509.DNSName))
    assert main([*arguments, "--zone", "z=h"]) == 5, "a cluster is never made over another"
    # Copied as it is to its host, a zone's directory is complete.
    (data_dir / "zones/eu-a").rename(tmp_path / "elsewhere")
    moved = load(ApiSettings, tmp_path / "elsewhere/api.toml", {})
    assert moved.role_tls.certificate == tmp_path / "elsewhere/api/role.crt"
    kek = moved.kek.config[0].path
    for path in (moved.role_tls.key, moved.etcd_tls.authority, kek, moved.proxy_authority.key):
        assert path is not None
        assert path.is_file()


def test_process_ids_name_role_and_zone() -> None:
    assert process_id("api", "z1") == "api-z1"


def test_ports_are_free_distinct_and_not_those_of_outgoing_connections() -> None:
    ports = free_ports("127.0.0.1", 30, ENTROPY)
    assert len(set(ports)) == 30
    low, high = usable_range()
    assert low >= LOWEST
    assert all(low <= port < high for port in ports)
    first, last = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first > LOWEST + 1000:
        assert not [port for port in ports if first <= port <= last]


def test_ports_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, "31000-31009")
    assert usable_range() == (31_000, 31_010)
    assert set(free_ports("127.0.0.1", 3, ENTROPY)) < set(range(31_000, 31_010))
    with pytest.raises(SettingsError, match="fewer than 11 free ports"):
        free_ports("127.0.0.1", 11, ENTROPY)


def test_ports_of_envoys_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, "14990-15009")
    assert {15_000, 15_001}.isdisjoint(free_ports("127.0.0.9", 18, ENTROPY))


@pytest.mark.parametrize("written", ["31000", "a-b", "31009-31000", "80-90", "31000-70000"])
def test_a_range_of_ports_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, written)
    with pytest.raises(SettingsError, match="write two ports"):
        usable_range()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(SettingsError, match="not an address of this machine"):
        free_ports("192.0.2.1", 1, ENTROPY)


def test_under_a_new_root_of_etcd_every_certificate_of_the_old_one_is_made_anew_and_no_other(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.crt")}
    for path in (layout.authority("etcd").certificate, layout.authority("etcd").key):
        path.unlink()
    made(tmp_path)
    root = layout.authority("etcd").certificate.read_bytes()
    changed = {path.relative_to(tmp_path) for path, was in before.items() if path.read_bytes() != was}
    of_etcd = {path for path in changed if "etcd" in str(path)}
    assert changed == of_etcd
    assert {"admin/etcd.crt", "zones/z1/etcd/peer.crt", "zones/z2/api/etcd-client.crt"} <= {
        str(path) for path in changed
    }
    for path in changed:
        if not path.name.endswith("-ca.crt"):
            leaf = x509.load_pem_x509_certificate((tmp_path / path).read_bytes())
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(root))


def test_a_cluster_token_is_kept(tmp_path: Path) -> None:
    named = dataclasses.replace(plan(), cluster_token="meshlog-restored-2")
    cluster, _ = Provisioner(Layout(tmp_path), named, At(), ENTROPY).write()
    etcd = {p.zone: load(EtcdMemberSettings, tmp_path / p.config, {}) for p in cluster.of_role("etcd")}
    assert plan_of(cluster, etcd) == named


def test_an_etcd_members_quota_is_the_operators_to_set(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    Provisioner(layout, plan(), At(), ENTROPY).write()
    path = layout.config("z1", "etcd")
    made = load(EtcdMemberSettings, path, {})
    path.write_text(path.read_text().replace(f"quota_bytes = {made.quota_bytes}", "quota_bytes = 33554432"))
    Provisioner(layout, plan(), At(), ENTROPY).write()
    assert load(EtcdMemberSettings, path, {}).quota_bytes == 33_554_432
    assert load(EtcdMemberSettings, layout.config("z2", "etcd"), {}).quota_bytes == made.quota_bytes


def test_directories_of_before_get_the_certificate_for_maintenance(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    Provisioner(layout, plan(), At(), ENTROPY).write()
    path, directory = layout.config("z1", "api"), layout.role("z1", "api")
    text = path.read_text()
    before, table, after = text.partition("\n[maintenance_tls]\n")
    assert table
    path.write_text(before + after.partition("\n\n")[2])
    for file in directory.glob("etcd-maintenance*"):
        file.unlink()
    assert load(ApiSettings, path, {}).maintenance_tls is None
    assert maintenance_files(load(ApiSettings, path, {})) is None
    Provisioner(layout, plan(), At(), ENTROPY).write()
    found = maintenance_files(load(ApiSettings, path, {}))
    assert found is not None
    assert x509.load_pem_x509_certificate(found.certificate.read_bytes()).subject.rfc4514_string() == "CN=maintenance"
    for role in ("projector", "frontend", "etcd"):
        assert not list(layout.role("z1", role).glob("etcd-maintenance*")), role


def test_a_cluster_may_begin_with_keys_that_are_kept_elsewhere(tmp_path: Path) -> None:
    data_dir, vault = tmp_path / "d", "vault:https://vault.example:8200/transit/meshlog?token_file=/run/token"
    arguments = ["init", "--account-id", ACCOUNT, "--data-dir", str(data_dir), "--zone", "a=10.0.0.1"]
    assert main([*arguments, "--key-provider", "secrets=vault:http://vault.example/transit/x"]) == 2, "in plain text"
    assert main([*arguments, "--key-provider", "signing=aws-kms:k"]) == 2, "wrapped as secrets are"
    assert main([*arguments, "--key-provider", f"secrets={vault}"]) == 0
    api = load(ApiSettings, data_dir / "zones/a/api.toml", {})
    assert api.kek.secrets is not None
    assert [str(source) for source in api.kek.secrets] == [vault]
    assert (data_dir / "keys/config.kek").exists()
    assert not list(data_dir.rglob("secrets.kek"))


def test_a_lost_key_file_is_never_replaced_by_another_key(tmp_path: Path) -> None:
    made(tmp_path)
    copy = (tmp_path / "zones/z1/api/config.kek").read_bytes()
    (tmp_path / "keys/config.kek").unlink()
    (tmp_path / "zones/z2/projector/config.kek").unlink()
    made(tmp_path)
    assert not (tmp_path / "keys/config.kek").exists()
    assert not (tmp_path / "zones/z2/projector/config.kek").exists()
    assert (tmp_path / "zones/z1/api/config.kek").read_bytes() == copy


def test_a_replaced_etcd_member_stays_one_that_joined_until_the_cluster_is_another(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    Provisioner(layout, plan(), At(), ENTROPY).write()
    path = layout.config("z1", "etcd")
    path.write_text(path.read_text().replace('initial_state = "new"', 'initial_state = "existing"'))
    Provisioner(layout, plan(), At(), ENTROPY).write()
    assert load(EtcdMemberSettings, path, {}).initial_state == "existing"
    assert load(EtcdMemberSettings, layout.config("z2", "etcd"), {}).initial_state == "new"
    Provisioner(layout, dataclasses.replace(plan(), cluster_token="restored-2"), At(), ENTROPY).write()
    assert load(EtcdMemberSettings, path, {}).initial_state == "new"


def test_https_has_a_root_of_its_own_and_every_name_that_callers_use(tmp_path: Path) -> None:
    wanted = dataclasses.replace(plan(), https=True, https_names=("appmesh.eu-west-1.amazonaws.com", "10.9.8.7"))
    cluster, _ = Provisioner(Layout(tmp_path), wanted, At(0), ENTROPY).write()
    assert {process.scheme for process in cluster.of_role("api")} == {"https"}
    files = load(ApiSettings, tmp_path / "zones/z1/api.toml", {}).http_tls
    assert files is not None
    assert files.authority.read_bytes() == Layout(tmp_path).http_authority.read_bytes()
    before = files.certificate.read_bytes()
    named = {"appmesh.eu-west-1.amazonaws.com", "10.9.8.7", "127.0.0.1", "localhost"}
    assert named <= set(pki.hosts_of(before))
    assert ServerCertificate(files).context.minimum_version is ssl.TLSVersion.TLSv1_2

    etcd = {zone: load(EtcdMemberSettings, tmp_path / f"zones/{zone}/etcd.toml", {}) for zone in cluster.zones}
    again = plan_of(cluster, etcd)
    assert again.https
    Provisioner(Layout(tmp_path), again, At(390), ENTROPY).write()
    assert files.certificate.read_bytes() != before, "renewed"
    assert named <= set(pki.hosts_of(files.certificate.read_bytes())), "for the same names"


def test_without_https_there_is_neither_root_nor_certificate(tmp_path: Path) -> None:
    cluster, _ = made(tmp_path)
    assert {process.scheme for process in cluster.of_role("api")} == {"http"}
    assert load(ApiSettings, tmp_path / "zones/z1/api.toml", {}).http_tls is None
    assert not Layout(tmp_path).http_authority.exists()
