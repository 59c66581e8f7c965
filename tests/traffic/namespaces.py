"""Network namespaces as pods on one bridge: each with addresses of both families, and App Mesh's redirection.

The bridge stands in a namespace of its own (the outside world of the mesh), so nothing of this touches the host's
interfaces. A thread that has `entered` a namespace makes its sockets there, whoever uses them later: applications and
clients of every pod are parts of the test's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

OUTSIDE_V4, OUTSIDE_V6 = "10.201.0.1", "fd00:c0de::1"
EXTERNAL_V4 = tuple(f"10.201.1.{number}" for number in range(1, 9))
EXTERNAL_V6 = tuple(f"fd00:c0de::1:{number}" for number in range(1, 9))
"""Addresses of the outside world, for servers without a sidecar."""
VIRTUAL_V4, VIRTUAL_V6 = "10.201.255.1", "fd00:c0de::ffff:1"
"""What virtual services' host names would resolve to: nobody's addresses, since the sidecar looks at the port alone."""

PROXY_ID = 1337
"""Connections of this user or group are the proxy's own, and pass by the redirection."""
INGRESS_PORT, EGRESS_PORT = 15000, 15001
IGNORED_PORT, IGNORED_V4 = 22, "169.254.169.254"

_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
_PREFIX = "mtraffic"
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class NetNamespace:
    """A named network namespace of this process."""

    def __init__(self, name: str) -> None:
        self.name = f"{_PREFIX}{os.getpid()}{name}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.name, *arguments)

    def execute(self, *command: str) -> None:
        run("ip", "netns", "exec", self.name, *command)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens meanwhile belongs to the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            inside = os.open(_NAMESPACES / self.name, os.O_RDONLY)
            try:
                _enter(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def connect(self, host: str, port: int, timeout_s: float = 60.0) -> socket.socket:
        """A TCP connection from within."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.entered():
            connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect((host, port))
        except BaseException:
            connection.close()
            raise
        return connection

    def listen(self, host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket on `port` of one address, or of every one of a family, that does not block."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.entered():
            opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, port))
        if kind == socket.SOCK_STREAM:
            opened.listen(512)
        opened.setblocking(False)
        return opened

    def close(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """The bridge, and the outside world at it."""

    def __init__(self) -> None:
        self.outside = NetNamespace("out")
        self.pods: list[Pod] = []
        self.outside.ip("link", "add", "br0", "type", "bridge")
        for address in (f"{OUTSIDE_V4}/16", *(f"{each}/16" for each in EXTERNAL_V4)):
            self.outside.ip("address", "add", address, "dev", "br0")
        for address in (f"{OUTSIDE_V6}/64", *(f"{each}/64" for each in EXTERNAL_V6)):
            self.outside.ip("-6", "address", "add", address, "dev", "br0", "nodad")
        self.outside.ip("link", "set", "br0", "up")

    def pod(self, name: str) -> Pod:
        pod = Pod(self, name, len(self.pods) + 10)
        self.pods.append(pod)
        return pod

    def close(self) -> None:
        for pod in self.pods:
            pod.close()
        self.outside.close()


class Pod(NetNamespace):
    """A namespace with an interface on the bridge; `v4` and `v6` are its addresses."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        super().__init__(name)
        self.v4, self.v6 = f"10.201.0.{number}", f"fd00:c0de::{number}"
        self._outside = network.outside
        far = f"p{number}"
        network.outside.ip("link", "add", far, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        network.outside.ip("link", "set", far, "master", "br0", "up")
        self.ip("address", "add", f"{self.v4}/16", "dev", "eth0")
        self.ip("-6", "address", "add", f"{self.v6}/64", "dev", "eth0", "nodad")
        self.ip("link", "set", "eth0", "up")
        self.ip("route", "add", "default", "via", OUTSIDE_V4)
        self.ip("-6", "route", "add", "default", "via", OUTSIDE_V6)

    def redirect(self, app_ports: Sequence[int]) -> None:
        """As App Mesh's init container: connections to `app_ports` go to the proxy, and all that the application opens,
        but for what is local, ignored, or the proxy's own.
        """
        for tables in ("iptables", "ip6tables"):
            rules = [
                *(("-m", "owner", owner, str(PROXY_ID), "-j", "RETURN") for owner in ("--uid-owner", "--gid-owner")),
                ("-m", "multiport", "--dports", str(IGNORED_PORT), "-j", "RETURN"),
                *((("-d", IGNORED_V4, "-j", "RETURN"),) if tables == "iptables" else ()),
                ("-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", "REDIRECT", "--to-ports", str(EGRESS_PORT)),
            ]
            for rule in rules:
                self.execute(tables, "-w", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", *rule)
            ports = ",".join(map(str, app_ports))
            inbound = ("-m", "addrtype", "!", "--src-type", "LOCAL", "-j", "REDIRECT", "--to-ports", str(INGRESS_PORT))
            match = ("-m", "multiport", "--dports", ports)
            self.execute(tables, "-w", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", *match, *inbound)

    def prefix(self) -> tuple[str, ...]:
        """What to put before a command line to run it here as the proxy, and end it with this process."""
        proxy = ("setpriv", "--regid", str(PROXY_ID), "--clear-groups", "--pdeathsig", "KILL")
        return ("ip", "netns", "exec", self.name, *proxy)


def remove_left_behind() -> None:
    """Namespaces of test processes that were killed."""
    for path in _NAMESPACES.glob(f"{_PREFIX}[0-9]*"):
        owner = "".join(character for character in path.name.removeprefix(_PREFIX) if character.isdigit())
        if not Path(f"/proc/{owner}").exists():
            subprocess.run(["ip", "netns", "delete", path.name], check=False, capture_output=True)
