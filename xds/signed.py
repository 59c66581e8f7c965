"""Proxies that show no certificate but sign their streams, as the stock App Mesh image does (SigV4 in gRPC metadata).

A frontend cannot verify: it holds no keys. It passes what it was shown, and the node.id of the first request, up to an
API server through `Gate`, and is told who the proxy is. While the stream is open it asks whether the credentials still
count; when nobody can say, the stream goes on (I3).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import structlog

from identity.proxy_wire import Granted, Presented, Refused
from mesh.errors import Unavailable
from runtime.clock import Clock
from runtime.limits import GRANTS_ASKED_MAX, GRANTS_ASKED_SIZE_BYTES, GRANTS_EVERY_S, PROXY_NAMES_MAX
from xds.actions import Close, Code

log = structlog.get_logger(__name__)

_SIGNED_NAMES = re.compile(r"SignedHeaders=([^ ,]+)")
_ALWAYS = ("authorization", "date")
_ALWAYS_PREFIX = "x-amz-"
_OF_GRPC = {"content-type": "application/grpc", "te": "trailers"}
"""Headers of every gRPC request that gRPC does not show to a server; an Envoy that signs by its filter signs them."""

End = Callable[[Code, str], None]
"""Ends a stream."""


class Gate(Protocol):
    """API servers, as far as they verify credentials of proxies. Unavailable when none of them answers."""

    async def check(self, presented: Presented) -> Granted | Refused:
        """Who the proxy is."""
        ...

    async def standing(self, grants: Sequence[bytes]) -> Mapping[int, Refused]:
        """Which of the grants count no more, by their place."""
        ...


class Signing(NamedTuple):
    """What a frontend needs for proxies that sign. `names`: the `host` headers that they may have signed."""

    gate: Gate
    names: tuple[str, ...]


def signed_headers(metadata: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """What a call's signature consists of, and what it covers; empty if the caller signed nothing."""
    texts = [(name.lower(), value) for name, value in metadata if isinstance(value, str)]
    authorization = next((value for name, value in texts if name == "authorization"), None)
    if authorization is None:
        return ()
    match = _SIGNED_NAMES.search(authorization)
    named = set(match[1].split(";")) if match else set()
    shown = [(name, value) for name, value in texts if name in (*_ALWAYS, *named) or name.startswith(_ALWAYS_PREFIX)]
    hidden = named.intersection(_OF_GRPC).difference(name for name, _ in shown)
    return (*shown, *((name, _OF_GRPC[name]) for name in sorted(hidden)))


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer (`ipv4:10.0.0.1:5`, `ipv6:%5B::1%5D:5`); '' if there is none."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return ""


def names_signed_for(hosts: Iterable[str], ports: Iterable[int], further: Iterable[str]) -> tuple[str, ...]:
    """The `host` headers that a proxy may have signed: each host with each port, and alone, as gRPC writes it for 443.

    gRPC does not tell a server by which name it was dialled, so every one that the certificate is good for is tried.
    """
    plain = [f"[{host}]" if ":" in host else host for host in hosts if not host.startswith("*.")]
    tried = [*further, *(f"{host}:{port}" for port in ports for host in plain), *plain]
    return tuple(dict.fromkeys(tried))[:PROXY_NAMES_MAX]


class SignedStreams:
    """The open streams of proxies that signed, and the asking after their credentials."""

    def __init__(self, gate: Gate, clock: Clock, every_s: float = GRANTS_EVERY_S) -> None:
        self._gate, self._clock, self._every_s = gate, clock, every_s
        self._streams: dict[int, tuple[bytes, End]] = {}
        self._last_key = 0

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def present(self, grant: bytes, end: End) -> Iterator[None]:
        """Ask after `grant` while the context is open, and call `end` when it counts no more."""
        self._last_key += 1
        key = self._last_key
        self._streams[key] = (grant, end)
        try:
            yield
        finally:
            del self._streams[key]

    async def run(self) -> None:
        """Ask, for ever; to be supervised."""
        told = False
        while True:
            await self._clock.sleep(self._every_s)
            try:
                await self.ask()
                told = False
            except Unavailable as error:
                if not told:  # once, not every few seconds of an outage
                    log.warning("credentials of open streams not asked after", streams=len(self), reason=error.message)
                told = True

    async def ask(self) -> None:
        """Ask once after all of them. Unavailable: nothing was ended."""
        for grants in _portions(dict.fromkeys(grant for grant, _ in self._streams.values())):
            fallen = await self._gate.standing(grants)
            reasons = {grants[place]: refused for place, refused in fallen.items() if 0 <= place < len(grants)}
            for grant, end in list(self._streams.values()):
                if (refused := reasons.get(grant)) is not None:
                    close = close_of(refused)
                    end(close.code, close.message)


def _portions(grants: Iterable[bytes]) -> Iterator[list[bytes]]:
    portion: list[bytes] = []
    size_bytes = 0
    for grant in grants:
        if portion and (len(portion) >= GRANTS_ASKED_MAX or size_bytes + len(grant) > GRANTS_ASKED_SIZE_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(grant)
        size_bytes += len(grant)
    if portion:
        yield portion


def close_of(refused: Refused) -> Close:
    """How to end a stream that an API server refused; a status of a newer build counts as no credentials."""
    known = {code.value for code in Code}
    return Close(Code(refused.status) if refused.status in known else Code.UNAUTHENTICATED, refused.message)
