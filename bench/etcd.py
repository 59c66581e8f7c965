"""etcd members for a measurement: as production runs them (TLS, client certificates, corruption checks, fsync), in a
directory that the caller removes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import pki
from cluster.etcd import server
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from mesh.errors import TimedOut
from runtime.clock import SystemClock, SystemEntropy
from runtime.ports import LOOPBACK, free_ports
from runtime.settings import EtcdMemberSettings, EtcdPeer, TlsFiles

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class EtcdCluster:
    """Running members. `roles`: a certificate of the API role, under a root of its own."""

    members: tuple[EtcdMember, ...]
    tls: EtcdTls
    roles: TlsFiles
    version: str

    def connection(self, zone: str = "") -> EtcdConnection:
        return EtcdConnection(self.members, zone or self.members[0].zone, self.tls, SystemClock(), SystemEntropy())


@contextmanager
def etcd_members(directory: Path, count: int = 3) -> Iterator[EtcdCluster]:
    """Start `count` members under `directory`; they are gone at the end."""
    binary = server.find_binary()
    version = server.read_version(binary)
    names = [f"etcd-z{number}" for number in range(1, count + 1)]
    addresses = free_addresses(3 * count)
    clients, peers, healths = addresses[::3], addresses[1::3], addresses[2::3]
    root = pki.create_authority(pki.ETCD_ROOT, SystemClock().now_us(), SystemEntropy())
    with ExitStack() as stack:
        for index, name in enumerate(names):
            settings = EtcdMemberSettings(
                id=name,
                zone=f"z{index + 1}",
                data_dir=directory / name / "data",
                listen=clients[index],
                advertise=clients[index],
                health=healths[index],
                pid_file=directory / name / "pid",
                peer_listen=peers[index],
                peer_advertise=peers[index],
                members=tuple(EtcdPeer(*pair) for pair in zip(names, peers, strict=True)),
                cluster_token=str(directory),
                client_tls=_issued(root, pki.etcd_member_leaf(name), directory / name, "client"),
                peer_tls=_issued(root, pki.etcd_peer_leaf(name), directory / name, "peer"),
                log_level="error",
            )
            argv = server.member_argv(binary, version, settings)
            log = stack.enter_context((directory / name / "log").open("wb"))
            process = stack.enter_context(subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory / name))
            stack.callback(process.kill)
        user = _issued(root, pki.etcd_user_leaf("root"), directory, "user")
        roles = pki.create_authority(pki.ROLES_ROOT, SystemClock().now_us(), SystemEntropy())
        cluster = EtcdCluster(
            tuple(EtcdMember(f"z{index + 1}", address) for index, address in enumerate(clients)),
            EtcdTls(user.authority, user.certificate, user.key),
            _issued(roles, pki.role_leaf("api", "bench.local"), directory, "role"),
            ".".join(map(str, version)),
        )
        until_listening(clients)
        yield cluster


def _issued(root: pki.Authority, leaf: pki.Leaf, directory: Path, name: str) -> TlsFiles:
    directory.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(
        certificate=directory / f"{name}.crt", key=directory / f"{name}.key", authority=directory / f"{name}-ca.crt"
    )
    pki.save_issued(pki.issue(root, leaf, SystemClock().now_us(), SystemEntropy()), root, files)
    return files


def free_addresses(count: int) -> list[str]:
    """Loopback host:port, that nobody listens on now."""
    return [f"{LOOPBACK}:{port}" for port in free_ports(LOOPBACK, count, SystemEntropy())]


def until_listening(addresses: Sequence[str]) -> None:
    """Until somebody listens at each; TimedOut otherwise. etcd's first call then waits for a leader by itself."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    for address in addresses:
        host, port = address.split(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1.0).close()
                break
            except OSError:
                if time.monotonic() > deadline_s:
                    raise TimedOut(f"nobody listens at {address} within {START_TIMEOUT_S:g} s") from None
                os.sched_yield()
