"""State of the world: every request lists all names, every response of clusters or listeners is the whole set. Pure.

Requests with a stale nonce are ignored whole: one response per type is outstanding at a time, so the proxy's answer to
that one follows and carries its newest names. Responses of clusters hold what older listeners and routes still use
until those are gone; such a transitional set has a version of its own.
"""

from __future__ import annotations

from typing import ClassVar

from projector.snapshot import XdsResource
from runtime.limits import XDS_RESPONSE_BYTES
from xds.actions import Action, Send
from xds.pipeline import Offer
from xds.session import Session
from xds.typestate import UNSURE, WILDCARD, Outstanding, TypeState
from xds.view import CLUSTER, Named, View, fitting, set_version
from xds.wire.discovery_pb2 import Any, DiscoveryRequest, DiscoveryResponse


class SotwSession(Session[DiscoveryRequest, DiscoveryResponse]):
    """One stream of StreamAggregatedResources."""

    mode: ClassVar[str] = "sotw"
    tells_gone_always = False

    # --- requests

    def _receive(self, request: DiscoveryRequest) -> list[Action[DiscoveryResponse]]:
        books = self._types.get(request.type_url)
        if books is None:
            # Whatever nonce it carries is another stream's (some Envoys leak it), and so is an error.
            books = TypeState(
                request.type_url, empty_handed=not request.version_info, claimed=request.version_info, answer_owed=False
            )
            self._open(books, holds_config=bool(request.version_info))
            self._subscribe(books, request)
            return []
        if request.response_nonce != books.last_nonce and books.last_nonce:
            return []
        actions: list[Action[DiscoveryResponse]] = []
        if books.outstanding is not None:
            actions = self._answer(books, request)
        self._subscribe(books, request)
        return actions

    def _answer(self, books: TypeState, request: DiscoveryRequest) -> list[Action[DiscoveryResponse]]:
        response = books.outstanding
        refused = request.HasField("error_detail")
        actions = self._answered(books, refused, request.error_detail.message)
        if response is None:
            return actions
        if refused:
            self.memory.doubt(self.node, books.type_url, request.version_info)
            self.memory.forget_clusters(self.node, response.version)
        elif books.knows_wildcard:
            books.good = response.resources
            books.held = {name: resource.version for name, resource in response.resources.items()}
            books.touch()
        return actions

    def _subscribe(self, books: TypeState, request: DiscoveryRequest) -> None:
        names = set(request.resource_names)
        wildcard = False
        if books.knows_wildcard:
            wildcard = WILDCARD in names or not (names or books.named_before)
            books.named_before = books.named_before or bool(names)
            names.discard(WILDCARD)
        added, dropped = names - books.names, books.names - names
        books.names -= dropped
        for name in added:
            books.ask(name)
        if wildcard and not books.wildcard:
            books.wildcard = books.answer_owed = True
        elif books.wildcard and not wildcard:
            books.drop_wildcard()
        if not books.wildcard:
            for name in dropped:
                books.forget(name)
        if added and books.knows_wildcard:
            books.answer_owed = True

    def _recognise(self, books: TypeState, view: View) -> None:
        """A wildcard set that the proxy names by our own version is not sent again; one that we remember is at least
        known. (Named resources are always answered.)"""
        claimed, books.claimed = books.claimed, ""
        if not claimed or not books.knows_wildcard or not books.wildcard or books.names:
            return
        known: Named | None = None
        if claimed == view.version(books.type_url):
            known = view.of(books.type_url)
        elif books.type_url == CLUSTER:
            known = self.memory.clusters(self.node, claimed)
        if known is None:
            return
        doubted = self.memory.doubted(self.node, books.type_url, claimed)
        books.good = dict(known)
        books.held = {name: UNSURE if doubted else resource.version for name, resource in known.items()}
        books.touch()
        # A remembered set needs an answer only if it differs, and then changes and removals ask for one themselves.
        books.answer_owed = False

    # --- responses

    def _compose(self, books: TypeState, offer: Offer) -> Send[DiscoveryResponse] | None:
        changes = books.changes(offer.source)
        if books.knows_wildcard:
            return self._compose_full(books, offer, changes)
        if offer.only_owed:
            changes = [resource for resource in changes if resource.name in books.owed]
        if not changes:
            return None
        part = {resource.name: resource for resource in fitting(changes, XDS_RESPONSE_BYTES)}
        books.owed.difference_update(part)
        version = offer.version or set_version(self.node, books.type_url, offer.source.values())
        return self._send(books, Outstanding(self._next_nonce(), offer.position, part, tuple(part), (), version))

    def _compose_full(
        self, books: TypeState, offer: Offer, changes: list[XdsResource]
    ) -> Send[DiscoveryResponse] | None:
        source, removable = offer.source, offer.removable
        if not changes and not removable and not books.answer_owed:
            return None
        content: dict[str, XdsResource] = {}
        for resource in books.wanted(source):
            known_bad = books.refused.get(resource.name) == resource.version and resource.name not in books.owed
            offered = books.good.get(resource.name) if known_bad else resource
            if offered is not None:
                content[resource.name] = offered
        for name in books.held:
            if name not in source and name not in removable and name in books.good:
                content[name] = books.good[name]
        version = set_version(self.node, books.type_url, content.values())
        books.answer_owed = False
        books.owed.clear()
        if books.type_url == CLUSTER:
            self.memory.remember_clusters(self.node, version, content)
        changed, removed = tuple(resource.name for resource in changes), tuple(sorted(removable))
        return self._send(books, Outstanding(self._next_nonce(), offer.position, content, changed, removed, version))

    def _send(self, books: TypeState, content: Outstanding) -> Send[DiscoveryResponse]:
        books.touch()
        books.last_nonce, books.outstanding = content.nonce, content
        response = DiscoveryResponse(
            version_info=content.version,
            type_url=books.type_url,
            nonce=content.nonce,
            resources=[Any(type_url=books.type_url, value=resource.body) for resource in content.resources.values()],
        )
        return Send(response, books.type_url, content.nonce, len(content.resources), len(content.removed))
