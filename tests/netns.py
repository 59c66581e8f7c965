"""Network namespaces for Envoys, without any link to the outside.

Two Envoys in one namespace share port 15001, so each gets a namespace of its own. A namespace here has loopback only;
the ports that an Envoy needs (frontends, upstreams) are carried in by relays: a child process that listens on
127.0.0.1:port *inside* the namespace and connects to the same port of the host through a unix socket. Certificates
are checked by name, so nothing notices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chaos.upstream import dual_stack_socket

REPOSITORY = Path(__file__).resolve().parents[1]
CHUNK_BYTES = 64 * 1024
READY_TIMEOUT_S = 60.0


def available() -> bool:
    """Whether this process may make network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until `source` ends, then pass the end on."""
    try:
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def splice(one: socket.socket, two: socket.socket) -> None:
    """Both directions until both ended."""
    back = threading.Thread(target=pump, args=(two, one), daemon=True)
    back.start()
    pump(one, two)
    back.join()
    one.close()
    two.close()


def serve_relay(listener: socket.socket, connect: tuple[int, Any]) -> None:
    """Splice every accepted connection to a new one of (family, address) `connect`."""
    family, address = connect
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        outward = socket.socket(family, socket.SOCK_STREAM)
        try:
            outward.connect(address)
        except OSError:
            # What is refused behind the relay must be refused in front of it too: a reset says so.
            accepted.close()
            outward.close()
            continue
        threading.Thread(target=splice, args=(accepted, outward), daemon=True).start()


class Namespace:
    """A namespace with loopback up. `carry(port)` makes host 127.0.0.1:port reachable inside at the same address,
    `expose(port)` makes the namespace's own 127.0.0.1:port reachable for the host at the port that it returns, and
    `redirect(address, port)` sends what goes to an address to a local port, as a sidecar's init container does.

    Its name is this process's own: another run on the machine, or what a killed one left behind, is in nobody's way.
    """

    def __init__(self, name: str) -> None:
        self.name = f"{name}-{os.getpid()}"
        self._scratch = tempfile.TemporaryDirectory(prefix="meshlog-netns-")
        self._children: list[subprocess.Popen[bytes]] = []
        self._listeners: list[socket.socket] = []
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)

    @property
    def prefix(self) -> Sequence[str]:
        """What to put before a command line to run it inside."""
        return ("ip", "netns", "exec", self.name)

    def carry(self, port: int) -> None:
        path = Path(self._scratch.name) / f"in-{port}"
        self._relay_here(socket.AF_UNIX, str(path), (socket.AF_INET, ("127.0.0.1", port)))
        self._relay_inside("tcp-to-unix", port, path)

    def redirect(self, address: str, port: int) -> None:
        subprocess.run(["ip", "-n", self.name, "address", "add", f"{address}/32", "dev", "lo"], check=True)
        rule = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", address, "-j", "REDIRECT", "--to-ports", str(port)]
        subprocess.run([*self.prefix, "iptables", *rule], check=True)

    def expose(self, port: int, host: str = "127.0.0.1") -> int:
        path = Path(self._scratch.name) / f"out-{host}-{port}"
        self._relay_inside("unix-to-tcp", port, path, host)
        return self._relay_here(socket.AF_INET, ("127.0.0.1", 0), (socket.AF_UNIX, str(path)))

    def _relay_here(self, family: int, address: Any, connect: tuple[int, Any]) -> int:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(256)
        self._listeners.append(listener)
        threading.Thread(target=serve_relay, args=(listener, connect), daemon=True).start()
        name = listener.getsockname()
        return int(name[1]) if family == socket.AF_INET else 0

    def _relay_inside(self, direction: str, port: int, path: Path, host: str = "127.0.0.1") -> None:
        child = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "tests.netns", direction, str(port), str(path), host],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n", f"the relay of port {port} in {self.name} did not start"

    def close(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            child.kill()
            child.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        self._scratch.cleanup()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _inside(direction: str, port: int, path: str, host: str) -> None:
    """The relay's part inside the namespace; ends when its standard input closes."""
    if direction == "tcp-to-unix":
        # Both families: Envoy asks for `localhost` in IPv6 first. Nothing but loopback can reach it here.
        listener = dual_stack_socket(port)
        connect: tuple[int, Any] = (socket.AF_UNIX, path)
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(256)
        connect = (socket.AF_INET, (host, port))
    threading.Thread(target=serve_relay, args=(listener, connect), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _inside(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
