"""Free TCP ports for processes that are started later, outside the range that the kernel uses for outgoing connections.

A port from that range could be taken by any connection while its process is down, and then the process would not come
back. Looking is not holding: a port can be lost between here and its use, and the process then says so. Two that look
at the same time do not take each other's if MESHLOG_PORTS gives each a range of its own.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from mesh.errors import SettingsError
from runtime.clock import Entropy, SystemEntropy

LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 10_000, 32_000
ENVOYS = frozenset((15_000, 15_001))
"""Where App Mesh's Envoys listen, whatever a mesh says: not free even while none runs."""
RANGE_VARIABLE = "MESHLOG_PORTS"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(host: str, count: int, entropy: Entropy) -> list[int]:
    """`count` ports on `host` on which nobody listens now, from a random place on; SettingsError if there are none."""
    low, high = usable_range()
    size = high - low
    begin = int(entropy.jitter() * size)
    found: list[int] = []
    with ExitStack() as held:
        for step in range(size):
            port = low + (begin + step) % size
            if port not in ENVOYS and _holds(host, port, held):
                found.append(port)
            if len(found) == count:
                return found
    raise SettingsError(
        f"fewer than {count} free ports on {host} between {low} and {high}: choose another --listen-host"
    )


def free_port(entropy: Entropy | None = None) -> int:
    """One port that is free on loopback now."""
    return free_ports(LOOPBACK, 1, entropy or SystemEntropy())[0]


def usable_range() -> tuple[int, int]:
    """MESHLOG_PORTS (`FIRST-LAST`) if it is set; else ports below the kernel's own range, or above it where there is no
    room below. The second number is one beyond the last port.
    """
    if chosen := os.environ.get(RANGE_VARIABLE):
        return _parsed(chosen)
    try:
        first, last = (int(word) for word in _RANGE_FILE.read_text().split())
    except (OSError, ValueError):
        first, last = HIGHEST, 60_999
    if first - LOWEST >= HIGHEST - LOWEST or first > LOWEST + 1000:
        return LOWEST, min(first, HIGHEST)
    return (last + 1, 65_535) if last < 64_000 else (LOWEST, HIGHEST)


def _parsed(chosen: str) -> tuple[int, int]:
    first, _, last = chosen.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65_535):
        raise SettingsError(f"{RANGE_VARIABLE} is {chosen!r}: write two ports from 1024 on, for example 10000-19999")
    return int(first), int(last) + 1


def _holds(host: str, port: int, held: ExitStack) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = held.enter_context(socket.socket(family))
    try:
        probe.bind((host, port))
    except PermissionError:
        return False
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == 99:  # EADDRNOTAVAIL
            raise SettingsError(f"'{host}' is not an address of this machine: write for example 127.0.0.1") from error
        return False
    return True
