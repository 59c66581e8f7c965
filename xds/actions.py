"""What goes into a protocol machine and what comes out. Values only; the shell does the rest.

    Received, Updated, Confirmed, NotConfirmed, Written, GraceOver  ->  machine.handle  ->  list of actions

At most one `Send` is unanswered by `Written`: what a slow proxy is sent next is decided when it can be sent, so the
newest state wins and nothing queues.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from identity.node_id import NodeId
from mesh.position import Position
from projector.feed.port import NodeUpdate
from projector.snapshot import NOWHERE
from xds.wire.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

Request = TypeVar("Request", DiscoveryRequest, DeltaDiscoveryRequest)
Response = TypeVar("Response", DiscoveryResponse, DeltaDiscoveryResponse)


class Code(IntEnum):
    """gRPC status codes that a stream is closed with."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# --- events


@dataclass(frozen=True, slots=True)
class Received(Generic[Request]):
    """The proxy sent a request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Updated:
    """The feed told of the node."""

    update: NodeUpdate


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A quorum read begun after `Confirm` found this head, and `Updated` told of everything up to it.

    `registry`: likewise of the registry's log, where it is known.
    """

    position: Position
    registry: Position = NOWHERE


@dataclass(frozen=True, slots=True)
class NotConfirmed:
    """That could not be had in time."""


@dataclass(frozen=True, slots=True)
class Written:
    """The last `Send` is on its way; the next may follow."""


@dataclass(frozen=True, slots=True)
class GraceOver:
    """XDS_REMOVAL_GRACE_S have passed since `Watch`."""


# --- actions


@dataclass(frozen=True, slots=True)
class Watch:
    """The stream is bound: follow this node."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Confirm:
    """Have the head confirmed; answer with Confirmed or NotConfirmed. `after_failure`: pause first."""

    after_failure: bool


@dataclass(frozen=True, slots=True)
class Send(Generic[Response]):
    """Write `response`; `resources` and `removed` are counts, for metrics."""

    response: Response
    type_url: str
    nonce: str
    resources: int
    removed: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream with this status; the machine is dead."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Acked:
    """The proxy accepted a response made from the state at `position`."""

    type_url: str
    position: Position


@dataclass(frozen=True, slots=True)
class Nacked:
    """The proxy refused a response: `names` are those that its `detail` mentions, or all that it could mean."""

    type_url: str
    position: Position
    names: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The proxy has acknowledged everything as of `position`, removals included."""

    position: Position


Event = Received[Request] | Updated | Confirmed | NotConfirmed | Written | GraceOver
Action = Watch | Confirm | Send[Response] | Close | Acked | Nacked | Settled
