"""A proxy as the protocol describes it and Envoy behaves, for random interleavings: it applies responses, asks for what
they refer to, warms changed clusters, refuses bad content but applies the rest of a refused response.

Contents are text: a listener's is `version:ROUTE`, a route's `version:CLUSTER,CLUSTER`, a cluster's `e…` when it wants
endpoints; a `!` makes any of them bad.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tests.xds.transcripts import LONG, NODE_TEXT, SHORT
from xds.wire.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse

FULL_SETS = ("cds", "lds")


class BrokenError(AssertionError):
    """The proxy uses something that it lacks, or a response broke the protocol."""


def _split(body: bytes) -> tuple[str, str]:
    name, _, content = body.decode().partition("=")
    return name, content


class ModelProxy:
    """State, and the requests that it has to send. `answer_cds` releases a held-back ACK of clusters."""

    def __init__(self, mode: str) -> None:
        self.delta = mode == "delta"
        self.state: dict[str, dict[str, str]] = {kind: {} for kind in ("cds", "eds", "lds", "rds")}
        self.versions: dict[str, dict[str, str]] = {kind: {} for kind in self.state}
        self.accepted: dict[str, str] = dict.fromkeys(self.state, "")
        self.active: dict[str, str] = {}
        """The content of each listener that takes traffic: the newest whose route is there."""
        self.warming: set[str] = set()
        self.unusable: set[str] = set()
        """Clusters that it refused and never had: an empty proxy is given what is left."""
        self.excused: set[str] = set()
        """Clusters that lack endpoints by their own doing: refused them, did not wait, or still run in an old form."""
        self.started: set[str] = set()
        self.unreported: set[tuple[str, str]] = set()
        self.leaked: set[tuple[str, str]] = set()
        """Applied from a refused delta response and still under the old version (or none) when the stream broke: no
        server can know of these."""
        self.connect()

    # --- connection

    def connect(self) -> None:
        """A new stream: everything is asked for again, clusters first."""
        self.leaked |= self.unreported
        self.outbox: deque[Any] = deque()
        self.nonce: dict[str, str] = dict.fromkeys(self.state, "")
        self.names: dict[str, set[str]] = {kind: set() for kind in self.state}
        self.open: set[str] = set()
        self.held_back: Any = None
        self.unsent_node = True
        for kind in ("cds", "eds", "lds", "rds"):
            if kind in self.started or kind == "cds":
                self._first(kind)

    def _first(self, kind: str) -> None:
        self.started.add(kind)
        self.open.add(kind)
        wanted = self._wanted(kind)
        self.names[kind] = wanted
        if self.delta:
            request: Any = DeltaDiscoveryRequest(
                resource_names_subscribe=sorted(wanted), initial_resource_versions=self.versions[kind]
            )
        else:
            request = DiscoveryRequest(resource_names=sorted(wanted), version_info=self.accepted[kind])
        self._push(kind, request)

    def _push(self, kind: str, request: Any) -> None:
        request.type_url = LONG[kind]
        if self.unsent_node:
            request.node.id = NODE_TEXT
            self.unsent_node = False
        self.outbox.append(request)

    # --- what it wants

    def _wanted(self, kind: str) -> set[str]:
        if kind == "eds":
            return {name for name, content in self.state["cds"].items() if content.startswith("e")}
        if kind == "rds":
            listeners = [*self.state["lds"].values(), *self.active.values()]
            return {content.split(":")[1] for content in listeners}
        return set()

    def _resubscribe(self, kind: str) -> None:
        wanted = self._wanted(kind)
        for name in set(self.state[kind]) - wanted:
            self.state[kind].pop(name)
            self.versions[kind].pop(name, None)
        if kind not in self.started and wanted:
            self._first(kind)
        elif kind in self.started and wanted != self.names[kind]:
            before, self.names[kind] = self.names[kind], wanted
            if self.delta:
                request: Any = DeltaDiscoveryRequest(
                    resource_names_subscribe=sorted(wanted - before), resource_names_unsubscribe=sorted(before - wanted)
                )
            else:
                request = DiscoveryRequest(
                    resource_names=sorted(wanted), version_info=self.accepted[kind], response_nonce=self.nonce[kind]
                )
            self._push(kind, request)

    # --- responses

    def receive(self, response: Any) -> None:
        """Apply a response; what it leads to is in the outbox."""
        kind = SHORT[response.type_url]
        if kind not in self.open:
            raise BrokenError(f"{kind} was never asked for")
        self.nonce[kind] = response.nonce
        bad = self._apply_delta(kind, response) if self.delta else self._apply_sotw(kind, response)
        answer = self._answer(kind, response, bad)
        # Envoy asks for what a response refers to before it accepts that response.
        if kind == "cds":
            self.warming &= set(self.state["cds"])
            self._resubscribe("eds")
            if "lds" not in self.started:
                self._first("lds")
        elif kind == "lds":
            self._resubscribe("rds")
        elif kind == "eds":
            self.warming -= set(self.fresh_names)
        self._settle_listeners()
        if kind == "cds" and self.warming and not bad:
            self.held_back = answer
        else:
            self._send_answer(kind, answer)
        if self.held_back is not None and not self.warming:
            self.answer_cds()
        self.check()

    def answer_cds(self) -> None:
        """Clusters are warm (or took too long)."""
        self.excused |= self.warming
        if self.held_back is not None:
            answer, self.held_back = self.held_back, None
            self._send_answer("cds", answer)

    def _answer(self, kind: str, response: Any, bad: list[str]) -> Any:
        if self.delta:
            answer: Any = DeltaDiscoveryRequest(response_nonce=response.nonce)
        else:
            if not bad:
                self.accepted[kind] = response.version_info
            answer = DiscoveryRequest(response_nonce=response.nonce, version_info=self.accepted[kind])
        if bad:
            answer.error_detail.code = 13
            answer.error_detail.message = f"Error adding/updating {', '.join(f'{name}: no' for name in bad)}"
        return answer

    def _send_answer(self, kind: str, answer: Any) -> None:
        if not self.delta:
            answer.resource_names[:] = sorted(self.names[kind])
        self._push(kind, answer)

    def _apply_sotw(self, kind: str, response: DiscoveryResponse) -> list[str]:
        items = dict(_split(item.value) for item in response.resources)
        if len(items) != len(response.resources):
            raise BrokenError("a name twice in one response")
        removed = set(self.state[kind]) - set(items) if kind in FULL_SETS else set()
        return self._apply(kind, items, removed)

    def _apply_delta(self, kind: str, response: DeltaDiscoveryResponse) -> list[str]:
        items = dict(_split(item.resource.value) for item in response.resources)
        if len(items) != len(response.resources):
            raise BrokenError("a name twice in one response")
        bad = self._apply(kind, items, set(response.removed_resources))
        names = {(kind, name) for name in (*items, *response.removed_resources)}
        if bad:
            self.unreported |= names
        else:
            self.unreported -= names
            self.leaked -= names
            self.versions[kind].update({item.name: item.version for item in response.resources})
            for name in response.removed_resources:
                self.versions[kind].pop(name, None)
        return bad

    def _apply(self, kind: str, items: dict[str, str], removed: set[str]) -> list[str]:
        state = self.state[kind]
        self.fresh_names = list(items)
        for name, content in items.items():
            if kind == "cds" and "!" in content and name not in state:
                self.unusable.add(name)
            if kind == "eds" and "!" in content:
                self.excused.add(name)
            if "!" in content or (kind in ("eds", "rds") and name not in self.names[kind]):
                continue
            if kind == "cds" and content.startswith("e") and state.get(name) != content:
                self.warming.add(name)
                if name in state:
                    self.excused.add(name)
            state[name] = content
            if kind == "cds" and name in self.unusable:
                self.unusable.discard(name)
                self.excused.add(name)  # routes refer to it since before it could be used
            if kind == "eds":
                self.excused.discard(name)
        if kind != "rds":  # a proxy goes on with a route that vanished, as long as a listener uses it
            for name in removed:
                state.pop(name, None)
        return sorted(name for name, content in items.items() if "!" in content)

    def _settle_listeners(self) -> None:
        for name in set(self.active) - set(self.state["lds"]):
            del self.active[name]
        for name, content in self.state["lds"].items():
            if content.split(":")[1] in self.state["rds"]:
                self.active[name] = content
        if "rds" in self.started:
            self._resubscribe("rds")

    def check(self) -> None:
        """What takes traffic must have what it refers to."""
        for listener, content in self.active.items():
            if ("lds", listener) in self.leaked or ("rds", content.split(":")[1]) in self.leaked:
                continue
            route = self.state["rds"].get(content.split(":")[1])
            if route is None:
                raise BrokenError(f"listener {listener} lost its route")
            for cluster in filter(None, route.split(":")[1].split(",")):
                if cluster not in self.state["cds"] and cluster not in self.unusable:
                    raise BrokenError(
                        f"listener {listener} routes to {cluster}, which is not there: {self.state['cds']}"
                    )
                wants_endpoints = self.state["cds"].get(cluster, "").startswith("e")
                if wants_endpoints and cluster not in self.state["eds"] and cluster not in self.excused:
                    raise BrokenError(f"listener {listener} routes to {cluster}, which has no endpoints")
