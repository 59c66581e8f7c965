"""What the projector's side of the feed is served from: the newest snapshot of any node, and a confirmed head.

`projector/projection.py` implements it over the fold. Protocols only, so that the feed's server (and whoever imports
it) reaches neither the log nor the compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from identity.node_id import NodeId
from mesh.position import Position
from projector.feed.port import Subscription
from projector.snapshot import NodeSnapshot


class SnapshotSource(Protocol):
    """Every method is called in the event loop."""

    @property
    def ready(self) -> bool:
        """True once the log was folded up to a confirmed head for the first time. Before that nothing may be served."""
        ...

    @property
    def position(self) -> Position:
        """What is folded. `current` gives every node as of here."""
        ...

    @property
    def registry(self) -> Position:
        """What of the registry's log is in `current`; NOWHERE where none of it is."""
        ...

    @property
    def confirmed_age_s(self) -> float:
        """Seconds since the beginning of the newest quorum read whose head is folded; infinite before the first."""
        ...

    def subscribe(self, node: NodeId, changed: Callable[[NodeId], None]) -> Subscription:
        """Keep `node` current and call `changed` after each fold that may have changed it, until closed."""
        ...

    def current(self, node: NodeId) -> NodeSnapshot | None:
        """What a subscribed node has at `position`; None when there is no such node.

        NotReady when that is not known (it cannot be compiled, and never could): nothing is then told of the node.
        """
        ...

    async def confirmed(self, timeout_s: float) -> Position:
        """A head found by a quorum read begun after this call, and folded, and the registry's likewise.

        A registry that has stopped is left as it is: the meshes are served without. Raises Unavailable or
        IntegrityError.
        """
        ...


class FrontendRegistry(Protocol):
    """Told which frontends this projector serves, so that members know of them. Must return at once and not raise.

    A frontend that moves is connected to its new projector before it leaves the old one: an implementation that keeps
    `members/frontend/<id>` under its own lease removes that key only while it is still its own.
    """

    def frontend_connected(self, frontend_id: str, zone: str, address: str) -> None: ...

    def frontend_disconnected(self, frontend_id: str) -> None: ...
