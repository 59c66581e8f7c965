"""Which proxies are connected to this frontend now, for status. In memory; gone with the process."""

from __future__ import annotations

from collections import Counter
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

    def crowded(self, proxies_per_node: int) -> list[str]:
        """A sentence for each node that has more proxies here than that. They are served all the same: App Mesh refused
        them, but no frontend knows how many the others have."""
        counts = Counter(str(proxy.node) for proxy in self._proxies.values())
        return [
            f"{node} has {count} proxies connected here, more than the {proxies_per_node} of its quota "
            "(proxies_per_node in this frontend's settings); all are served"
            for node, count in sorted(counts.items())
            if count > proxies_per_node
        ]

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
