"""Which proxies are connected to this frontend now, for status. In memory; gone with the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from identity.node_id import NodeId
from mesh.position import Position


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a proxy refused last: `names` of that short type (cds, ...), made from the state at `position`."""

    type: str
    names: tuple[str, ...]
    position: Position
    detail: str
    at_us: int


@dataclass(slots=True)
class ConnectedProxy:
    """One stream. Two proxies of one node are two of these."""

    node: NodeId
    mode: str
    peer: str
    since_us: int
    settled: Position | None = None
    """It has acknowledged everything as of here. An event that does not touch its node does not move this."""
    acked: dict[str, Position] = field(default_factory=dict)
    """By short type: the state that its last accepted response was made from."""
    refusal: Refusal | None = None
    """Cleared when it has settled again."""


class ConnectedProxies:
    """The table."""

    def __init__(self) -> None:
        self._proxies: dict[int, ConnectedProxy] = {}
        self._last_key = 0

    def __len__(self) -> int:
        return len(self._proxies)

    def __iter__(self) -> Iterator[ConnectedProxy]:
        """In order of arrival."""
        return iter(list(self._proxies.values()))

    @contextmanager
    def present(self, proxy: ConnectedProxy) -> Iterator[ConnectedProxy]:
        """List `proxy` while the context is open."""
        self._last_key += 1
        key = self._last_key
        self._proxies[key] = proxy
        try:
            yield proxy
        finally:
            del self._proxies[key]
