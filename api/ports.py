"""What the API needs from the rooms below and beside it, as the smallest shapes that do. Types only.

`projector.replica.Replica`, `eventlog.writer.LogWriter` and the rest fit these by structure; tests and the simulation
hand in others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from api.domain import C, R
from api.key_sightings import KeySightings
from api.outcomes import Ticket
from api.recent import RecentEvents
from api.trail import Attempt
from eventlog.archive.store import ObjectStore
from eventlog.keys.keyring import Keyring
from eventlog.keys.rotation import KeyRotation
from eventlog.quarantine import Quarantined
from eventlog.records import Head, HeadRef, NewRecord, Record
from eventlog.sealing import KeyFinder
from eventlog.writer import Appended, LostRace, SealedAppend
from identity.node_id import NodeId
from mesh.events import Event
from mesh.fold import S
from mesh.position import Position
from mesh.registry.state import RegistryState
from mesh.state import State
from runtime.clock import Clock, Entropy
from runtime.limits import COMMAND_DEADLINE_S, READ_DEADLINE_S
from runtime.settings import LimitSettings


class Replica(Protocol[S]):
    """The fold of a log in this process. `state` and `head_ref` belong together: read both without awaiting."""

    @property
    def state(self) -> S: ...

    @property
    def head_ref(self) -> HeadRef:
        """The head that `state` was folded to; NotReady before there is one."""
        ...

    @property
    def halted(self) -> str | None:
        """Why the fold stopped for good; None while it goes on. A halted replica writes nothing."""
        ...

    @property
    def confirmed_age_s(self) -> float:
        """Seconds since the newest quorum read whose head is folded began; infinite before the first."""
        ...

    async def confirmed(self, timeout_s: float) -> Position:
        """The head by a quorum read begun after this call, once it is folded; NoQuorum, NotReady.

        Calls that wait together share one read.
        """
        ...

    async def wait_for(self, position: Position, timeout_s: float) -> None:
        """Return when `position` is folded; NotReady when it is not in time, or the replica has halted."""
        ...

    def expect(self, head: Head, base: S, events: Sequence[Event], after: S) -> None:
        """Say what the fold of a frame will be that is about to be appended: `events` lead from `base` to `after`."""
        ...

    def advance(self, records: Sequence[Record], head: HeadRef) -> bool:
        """Fold what this process has just committed, without waiting for the watch to bring it.

        False when something before it is still missing.
        """
        ...


class Writer(Protocol):
    """`eventlog.writer.LogWriter`."""

    async def seal(
        self, expected: HeadRef, records: Sequence[NewRecord], previous_time_us: int, wall_us: int
    ) -> SealedAppend: ...

    async def send(self, sealed: SealedAppend) -> Appended | LostRace: ...


class Declined(NamedTuple):
    """Nobody took a batch, and nobody will write anything of it."""


class Peers(Protocol[S, C, R]):
    """The other API servers, as takers of batches."""

    @property
    def any(self) -> bool:
        """Whether one could be asked now."""
        ...

    async def hand_over(self, tickets: Sequence[Ticket[S, C, R]], timeout_s: float) -> Position | Declined:
        """Let a recent winner do these commands. Gives the position up to which the log has all that came of them.

        Unavailable when that is not known: they may yet be written.
        """
        ...


class EventHistory(Protocol):
    """The log, any stretch of it, from wherever it is kept. Numbers go on across epochs along one timeline."""

    async def begins(self) -> Position:
        """The position after which every event up to the head can be read; the origin when nothing is left out."""
        ...

    async def position_at(self, time_us: int, now: State) -> Position:
        """The last position whose time is at or before `time_us`, on the timeline that led to `now`; or the origin.

        NotFound when it is before all that is kept.
        """
        ...

    async def quarantine_of(self, position: Position) -> Quarantined | None:
        """The word of a later record that the one at `position` does not count; None if there is none."""
        ...

    def read(self, after: Position, upto: Position) -> AsyncIterator[Sequence[Event]]:
        """Every event after `after` up to and with `upto`, opened and verified, in order, in batches.

        In place of one that does not open, and is quarantined, comes what stands in for it.
        NotFound when part of it is not kept any more.
        """
        ...


class Heartbeats(Protocol):
    """`cluster.heartbeats.Heartbeats`. Names are account, namespace, service, instance."""

    async def beat(self, names: Mapping[tuple[str, ...], int]) -> None: ...

    async def kept(self) -> Mapping[tuple[str, ...], int]: ...


class StateHistory(Protocol):
    """States of the past that need not be folded anew: checkpoints."""

    async def before(self, position: Position) -> State | None:
        """The newest kept one at `position` or before; None when there is none."""
        ...


class RefusedCallLog(Protocol):
    """`api.refusals.RefusedCalls`."""

    def refused(self, attempt: Attempt, code: str, message: str) -> None:
        """Take note of a refused call; never blocks, never raises."""
        ...


class AuditPorts(NamedTuple):
    """Where refused calls are told, where all servers' are kept, and what opens them."""

    calls: RefusedCallLog
    store: ObjectStore
    keys: KeyFinder


class KeyPorts(NamedTuple):
    """What rotates this log's keys, and the keyring that seals with them."""

    rotation: KeyRotation
    keyring: Keyring


class RegistryPorts(NamedTuple):
    """The registry's log in this process. Until it was read once, `replica` is not ready and gives no head.

    Without `heartbeats` or `history` (tests), who asks for them is told that they are not here.
    """

    replica: Replica[RegistryState]
    writer: Writer
    keys: KeyPorts | None = None
    """What rotates its data keys; None: they are looked after elsewhere (tests, the simulation)."""
    heartbeats: Heartbeats | None = None
    history: EventHistory | None = None


class SignedIdentity(NamedTuple):
    """A proxy's new certificate. PEM; `chain` and `ca` as Envoy wants them in files; `serial` in hex."""

    certificate_pem: str
    chain: str
    ca: str
    serial: str
    not_after_us: int


class ProxySigner(Protocol):
    """The proxies' root with its key."""

    def sign(self, node: NodeId, csr_pem: bytes, now_us: int) -> SignedIdentity:
        """BadRequest when the request cannot be signed."""
        ...


class XdsEndpoint(NamedTuple):
    """An xDS frontend as proxies dial it; `address` is host:port."""

    zone: str
    address: str


MembersSource = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""The live members of the cluster: {role, id, zone, address, level, build}."""


class Readiness(NamedTuple):
    """Whether this server may be sent work, and if not, why."""

    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPorts:
    """Everything that `create_app` wires together."""

    replica: Replica
    writer: Writer
    history: EventHistory
    checkpoints: StateHistory
    signer: ProxySigner
    xds_endpoints: Callable[[], Sequence[XdsEndpoint]]
    clock: Clock
    entropy: Entropy
    region: str
    """The region of every ARN, whatever region a caller's signature names: an ARN must be the same to all."""
    zone: str
    server_id: str
    readiness: Callable[[], Readiness]
    members: MembersSource | None = None
    registry: RegistryPorts | None = None
    """None: this server has no registry (tests, the simulation)."""
    audit: AuditPorts | None = None
    """None: refused calls are kept nowhere, since there is no archive."""
    keys: KeyPorts | None = None
    """None: this server's keys are looked after elsewhere (tests, the simulation)."""
    peers: Peers | None = None
    recent: RecentEvents = field(default_factory=RecentEvents)
    key_sightings: KeySightings = field(default_factory=KeySightings)
    limits: LimitSettings | None = None
    """None: the defaults."""
    command_deadline_s: float = COMMAND_DEADLINE_S
    read_deadline_s: float = READ_DEADLINE_S
