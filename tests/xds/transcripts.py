"""Conversations with a protocol machine, written as text. One line is one event or one expectation.

    feed 10 | cds A=1 B=1 | lds L=1       the feed tells of the node at position 10: resource A in content 1, ...
    feed 11 unknown                       the feed tells that the mesh has no such node
    confirm 10        unconfirmed         the answer to a wish to have the head confirmed
    grace                                 the grace for removals is over
    >> cds A B                            a request naming A and B (delta: +A -B); `>> cds` names nothing
    >> cds ack     >> cds ack A B         accepts the last response of that type, with unchanged or other names
    >> cds nack A is bad                  refuses it with that error
       options: nonce=TEXT | nonce=stale, version=@10 (SotW: our version at position 10) | version=TEXT,
                has=A:1,B:2 (delta: held at the first request), node=TEXT, `none` (SotW: an empty list of names)
    << cds A=1 B=1 -C                     the next response, exactly (-C: removed)
    << nothing                            and no more
    !! close 3 does not exist             an action other than a response: close, confirm, acked, nacked, settled

Every response is reported written at once. At the end nothing may be left unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity.node_id import NodeId
from mesh.position import Position
from projector.feed.port import NodeUpdate
from projector.snapshot import NodeSnapshot, XdsResource, xds_resource
from xds.actions import (
    Acked,
    Close,
    Confirm,
    Confirmed,
    GraceOver,
    Nacked,
    NotConfirmed,
    Received,
    Send,
    Settled,
    Updated,
    Watch,
    Written,
)
from xds.delta import DeltaSession
from xds.freshness import NodeMemory
from xds.sotw import SotwSession
from xds.view import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, View
from xds.wire.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

NODE = NodeId("123456789012", "m", "virtualNode", "n")
NODE_TEXT = "mesh/m/virtualNode/n"
LONG = {"cds": CLUSTER, "eds": ENDPOINT, "lds": LISTENER, "rds": ROUTE, "sds": SECRET}
SHORT = {long: short for short, long in LONG.items()}


def resource(kind: str, name: str, content: str) -> XdsResource:
    return xds_resource(LONG[kind], name, f"{name}={content}".encode())


def snapshot(position: int, text: str, node: NodeId = NODE) -> NodeSnapshot:
    """`cds A=1 B=1 | lds L=1` as a snapshot."""
    resources: dict[tuple[str, str], XdsResource] = {}
    for part in filter(None, (part.split() for part in text.split("|"))):
        for item in part[1:]:
            name, _, content = item.partition("=")
            made = resource(part[0], name, content)
            resources[made.type_url, name] = made
    return NodeSnapshot(node, Position(1, position), resources)


class _Side:
    """What a client remembers of one type."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.nonces: list[str] = []
        self.version = ""
        """SotW: the last accepted one."""
        self.received = ""


class _Client:
    """The client's end of a conversation; `play` may be called again to go on with it."""

    def __init__(self, session: SotwSession | DeltaSession, identity: NodeId) -> None:
        self.session = session
        self.identity = identity
        self.responses: list[str] = []
        self.others: list[str] = []
        self.sides: dict[str, _Side] = {}
        self.views: dict[str, View] = {}
        self.raw: list[Send[Any]] = []
        self.first = True

    def play(self, text: str) -> None:
        for number, line in enumerate(filter(None, (line.split("#")[0].strip() for line in text.splitlines())), 1):
            verb, _, rest = line.partition(" ")
            try:
                self._line(verb, rest.strip())
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line}\n{error}") from None
        assert not self.responses, f"responses left unread: {self.responses}"

    def _line(self, verb: str, rest: str) -> None:  # noqa: PLR0912 - one case a kind of line
        match verb:
            case "feed":
                at, _, resources = rest.partition(" ")
                known = snapshot(int(at), resources, self.identity) if resources.strip() != "unknown" else None
                if known:
                    self.views[at] = View(known)
                self._do(Updated(NodeUpdate(self.identity, Position(1, int(at)), known)))
            case "confirm":
                self._do(Confirmed(Position(1, int(rest))))
            case "unconfirmed":
                self._do(NotConfirmed())
            case "grace":
                self._do(GraceOver())
            case ">>":
                kind, *tokens = rest.split()
                if "nack" in tokens:
                    detail = rest.partition(" nack")[2].strip()
                    self._request(kind, ["ack"], detail)
                else:
                    self._request(kind, tokens, None)
            case "<<":
                expected = " ".join([rest.split(maxsplit=1)[0], *sorted(rest.split()[1:])])
                if expected == "nothing":
                    assert not self.responses, f"there is more: {self.responses}"
                else:
                    assert self.responses, "there is no response"
                    assert self.responses.pop(0) == expected
            case "!!":
                found = [index for index, other in enumerate(self.others) if _matches(other, rest)]
                assert found, f"not among {self.others}"
                self.others = self.others[found[0] + 1 :]
            case _:
                raise AssertionError("what is this line?")

    def _do(self, event: object) -> None:
        for action in self.session.handle(event):  # type: ignore[arg-type]
            match action:
                case Send():
                    self._read(action)
                case Close(code, message):
                    self.others.append(f"close {code.value} {message}")
                case Confirm():
                    self.others.append("confirm")
                case Acked(type_url, position):
                    self.others.append(f"acked {SHORT[type_url]} {position.position}")
                case Nacked(type_url, position, names, _):
                    self.others.append(f"nacked {SHORT[type_url]} {position.position} {','.join(names)}")
                case Settled(position):
                    self.others.append(f"settled {position.position}")
                case Watch():
                    pass

    def _read(self, action: Send[Any]) -> None:
        response = action.response
        kind = SHORT[action.type_url]
        side = self.sides.setdefault(kind, _Side())
        assert response.type_url == action.type_url
        assert response.nonce not in side.nonces, "a nonce was used twice"
        side.nonces.append(response.nonce)
        self.raw.append(action)
        items = sorted(self._items(response, side))
        assert len(items) == len(set(items)), "one name twice in a response"
        self.responses.append(" ".join([kind, *items]))
        self._do(Written())

    def _items(self, response: object, side: _Side) -> list[str]:
        raise NotImplementedError

    def _request(self, kind: str, tokens: list[str], error: str | None) -> None:
        raise NotImplementedError

    def _node(self, options: Mapping[str, str]) -> str:
        first, self.first = self.first, False
        return options.get("node", NODE_TEXT if first else "")

    def _nonce(self, side: _Side, options: Mapping[str, str], ack: bool) -> str:
        if options.get("nonce") == "stale":
            return side.nonces[-2] if len(side.nonces) > 1 else "stale"
        return options.get("nonce", side.nonces[-1] if ack else "")


def _matches(other: str, expected: str) -> bool:
    """`close 3 some words`: the code exactly, the words somewhere; anything else as it stands."""
    if not expected.startswith("close"):
        return other == expected
    code, _, words = expected.removeprefix("close ").partition(" ")
    return other.startswith(f"close {code} ") and words in other


def _options(tokens: list[str]) -> tuple[list[str], dict[str, str]]:
    options = dict(token.split("=", 1) for token in tokens if "=" in token)
    return [token for token in tokens if "=" not in token and token != "ack"], options


class SotwClient(_Client):
    """Speaks StreamAggregatedResources."""

    def __init__(self, memory: NodeMemory | None = None, identity: NodeId = NODE, prefix: str = "s") -> None:
        super().__init__(SotwSession(identity, NodeMemory() if memory is None else memory, prefix), identity)

    def _items(self, response, side):  # type: ignore[no-untyped-def]
        side.received = response.version_info
        return [item.value.decode() for item in response.resources]

    def _request(self, kind: str, tokens: list[str], error: str | None) -> None:
        side = self.sides.setdefault(kind, _Side())
        names, options = _options(tokens)
        ack = "ack" in tokens
        if names or not ack:
            side.names = [name for name in names if name != "none"]
        if ack and error is None:
            side.version = side.received
        version = options.get("version", side.version if ack else "")
        if version.startswith("@"):
            version = self.views[version[1:]].version(LONG[kind])
        request = DiscoveryRequest(
            type_url=LONG.get(kind, kind),
            resource_names=side.names,
            response_nonce=self._nonce(side, options, ack),
            version_info=version,
        )
        request.node.id = self._node(options)
        if error is not None:
            request.error_detail.code, request.error_detail.message = 13, error
        self._do(Received(request))


class DeltaClient(_Client):
    """Speaks DeltaAggregatedResources."""

    def __init__(self, memory: NodeMemory | None = None, identity: NodeId = NODE, prefix: str = "d") -> None:
        super().__init__(DeltaSession(identity, NodeMemory() if memory is None else memory, prefix), identity)

    def _items(self, response, side):  # type: ignore[no-untyped-def]
        for item in response.resources:
            body = item.resource.value.decode()
            assert body.startswith(f"{item.name}="), "a resource under another's name"
            assert item.version == xds_resource(response.type_url, item.name, item.resource.value).version
        removed = [f"-{name}" for name in response.removed_resources]
        return [item.resource.value.decode() for item in response.resources] + removed

    def _request(self, kind: str, tokens: list[str], error: str | None) -> None:
        side = self.sides.setdefault(kind, _Side())
        names, options = _options(tokens)
        held = dict(item.split(":") for item in filter(None, options.get("has", "").split(",")))
        request = DeltaDiscoveryRequest(
            type_url=LONG.get(kind, kind),
            resource_names_subscribe=[name[1:] for name in names if name.startswith("+")],
            resource_names_unsubscribe=[name[1:] for name in names if name.startswith("-")],
            initial_resource_versions={name: resource(kind, name, content).version for name, content in held.items()},
            response_nonce=self._nonce(side, options, "ack" in tokens),
        )
        request.node.id = self._node(options)
        if error is not None:
            request.error_detail.code, request.error_detail.message = 13, error
        self._do(Received(request))
