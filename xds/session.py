"""One ADS stream: who it is for and whether it may be answered yet; both protocols. Pure.

Binding: the first request names the node, which must be the certificate's; later ones must not change it.

Freshness: nothing is sent before a head is confirmed that was current after the stream opened. If that cannot be had, a
proxy that holds config is sent nothing, and an empty one the last good state. Whatever the feed says, a node is never
served anything older than it was served before.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Generic

from identity.node_id import NodeId, parse_node_id
from mesh.errors import BadRequest
from projector.feed.port import NodeUpdate
from projector.snapshot import TYPES, Reach
from xds.actions import (
    Action,
    Close,
    Code,
    Confirm,
    Confirmed,
    Event,
    GraceOver,
    NotConfirmed,
    Received,
    Request,
    Response,
    Updated,
    Watch,
    Written,
)
from xds.freshness import NodeMemory
from xds.pipeline import Pipeline, Stage


class Session(Pipeline[Response], Generic[Request, Response]):
    """`handle` every event; do what the returned actions say, in order."""

    mode: ClassVar[str]

    def __init__(self, identity: NodeId, memory: NodeMemory, nonce_prefix: str) -> None:
        """`identity` comes from the certificate; `nonce_prefix` must differ from that of any other stream."""
        super().__init__(nonce_prefix)
        self.node = identity
        self.memory = memory
        self._node_text = ""
        self._closed = False
        self._latest: NodeUpdate | None = None
        self._confirmed = self._confirming = self._failed = False

    @abstractmethod
    def _receive(self, request: Request) -> list[Action[Response]]:
        """Note what the request says."""

    @property
    def bound(self) -> bool:
        """Whether the first request has come and was in order."""
        return bool(self._node_text)

    def handle(self, event: Event[Request]) -> list[Action[Response]]:
        """Take one event. After a Close nothing more comes out."""
        if self._closed:
            return []
        actions = self._take(event)
        if any(isinstance(action, Close) for action in actions):
            self._closed = True
            return actions
        if self._writing or self._target is None or not self._may_answer():
            return actions
        return actions + self._next(self._target)

    def _take(self, event: Event[Request]) -> list[Action[Response]]:
        match event:
            case Received(request):
                return self._on_request(request)
            case Updated(update):
                return self._on_update(update)
            case Confirmed(position, registry):
                return self._on_confirmed(Reach(position, registry))
            case NotConfirmed():
                return self._on_not_confirmed()
            case Written():
                self._writing = False
            case GraceOver():
                self._grace_over = True
        return []

    # --- binding

    def _on_request(self, request: Request) -> list[Action[Response]]:
        refusal = self._refusal(request)
        if refusal is not None:
            return [refusal]
        if (books := self._types.get(request.type_url)) is not None:
            books.touch()
        if self._node_text:
            return self._receive(request)
        self._node_text = request.node.id
        actions: list[Action[Response]] = [Watch(self.node)]
        actions += self._ask_to_confirm(after_failure=False)
        return actions + self._receive(request)

    def _refusal(self, request: Request) -> Close | None:
        text = request.node.id
        if request.type_url not in TYPES:
            return Close(
                Code.INVALID_ARGUMENT, f"type_url '{request.type_url}' is not served: ask for one of {', '.join(TYPES)}"
            )
        if self._node_text:
            if text in ("", self._node_text):
                return None
            return Close(
                Code.INVALID_ARGUMENT, f"this stream is for node '{self._node_text}' and cannot change to '{text}'"
            )
        if not text:
            return Close(Code.INVALID_ARGUMENT, "the first request of a stream must carry node.id")
        try:
            named = parse_node_id(text, self.node.account)
        except BadRequest as error:
            return Close(Code.INVALID_ARGUMENT, f"node.id: {error.message}")
        if named != self.node:
            return Close(
                Code.PERMISSION_DENIED,
                f"the certificate is for {self.node}, not for node '{text}': use a certificate of that node",
            )
        return None

    # --- freshness

    def _ask_to_confirm(self, after_failure: bool) -> list[Action[Response]]:
        if self._confirming:
            return []
        self._confirming = True
        return [Confirm(after_failure)]

    def _on_confirmed(self, head: Reach) -> list[Action[Response]]:
        if not self._confirming:
            return []
        self._confirming = False
        if not head.covers(self.memory.high_water(self.node)):
            # A confirmed head below what was served: not the log that we know. Say nothing, ask again (I7).
            return self._ask_to_confirm(after_failure=True)
        self._confirmed = True
        return self._adopt(self._latest) if self._latest else []

    def _on_not_confirmed(self) -> list[Action[Response]]:
        if not self._confirming:
            return []
        self._confirming = False
        self._failed = True
        actions = self._ask_to_confirm(after_failure=True)
        latest = self._latest
        if self._target is None and latest is not None and latest.snapshot is not None and self.memory.allows(latest):
            actions += self._adopt(latest)
        return actions

    def _on_update(self, update: NodeUpdate) -> list[Action[Response]]:
        """The feed's news: taken if surely not older than what the node was served, else only when confirmed."""
        self._latest = update
        if not self.memory.allows(update):
            return self._ask_to_confirm(after_failure=False)
        if self._confirmed or (self._failed and update.snapshot is not None):
            return self._adopt(update)
        return []

    def _adopt(self, update: NodeUpdate) -> list[Action[Response]]:
        if not self._may_answer():
            return []
        view = self.memory.served(update)
        if view is None:
            return [
                Close(
                    Code.INVALID_ARGUMENT,
                    f"{self.node.kind} '{self.node.name}' does not exist in mesh '{self.node.mesh}' of account "
                    f"{self.node.account} (as of position {update.position}), or the mesh is no longer shared with the "
                    "account that made it: create it, share the mesh, or correct node.id",
                )
            ]
        self._target = Stage(view, update.position)
        return []

    def _may_answer(self) -> bool:
        return self._confirmed or (self._failed and not self._holds_config)
