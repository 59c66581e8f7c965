"""Incremental xDS: requests say what is wanted more or less, responses what changed, with a version per resource.

Subscriptions count whatever the nonce says; the nonce only tells which response is accepted or refused. Every name that
is subscribed is answered, with the resource or with its removal, and stays subscribed either way. Pure.
"""

from __future__ import annotations

from typing import ClassVar

from mesh.position import Position
from projector.snapshot import XdsResource
from runtime.limits import XDS_RESPONSE_BYTES
from xds.actions import Action, Send
from xds.pipeline import Offer
from xds.session import Session
from xds.typestate import WILDCARD, Outstanding, TypeState
from xds.view import View, fitting
from xds.wire.discovery_pb2 import Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource


class DeltaSession(Session[DeltaDiscoveryRequest, DeltaDiscoveryResponse]):
    """One stream of DeltaAggregatedResources."""

    mode: ClassVar[str] = "delta"
    tells_gone_always = True

    # --- requests

    def _receive(self, request: DeltaDiscoveryRequest) -> list[Action[DeltaDiscoveryResponse]]:
        books = self._types.get(request.type_url)
        actions: list[Action[DeltaDiscoveryResponse]] = []
        if books is None:
            books = self._first(request)
        elif books.outstanding is not None and request.response_nonce == books.outstanding.nonce:
            actions = self._answered(books, request.HasField("error_detail"), request.error_detail.message)
        for name in request.resource_names_unsubscribe:
            self._unsubscribe(books, name)
        for name in request.resource_names_subscribe:
            self._subscribe(books, name)
        return actions

    def _first(self, request: DeltaDiscoveryRequest) -> TypeState:
        held = dict(request.initial_resource_versions)
        books = TypeState(request.type_url, empty_handed=not held, held=held)
        if books.knows_wildcard and not request.resource_names_subscribe:
            books.wildcard = True
            # One that holds nothing waits for a first answer even if there is nothing for it.
            books.answer_owed = not held
        self._open(books, holds_config=bool(held))
        return books

    def _subscribe(self, books: TypeState, name: str) -> None:
        books.named_before = True
        if name != WILDCARD or not books.knows_wildcard:
            books.ask(name)
        elif not books.wildcard:
            books.wildcard = True
            books.answer_owed = not books.held

    def _unsubscribe(self, books: TypeState, name: str) -> None:
        if name == WILDCARD and books.knows_wildcard:
            books.drop_wildcard()
            return
        books.names.discard(name)
        if books.wildcard:
            # The proxy may have dropped what the wildcard still gives it, so it must hear of it again.
            books.owed.add(name)
        else:
            books.forget(name)

    def _recognise(self, books: TypeState, view: View) -> None:
        """The first request listed versions: nothing to guess."""

    # --- responses

    def _compose(self, books: TypeState, offer: Offer) -> Send[DeltaDiscoveryResponse] | None:
        source = offer.source
        changes = books.changes(source)
        if offer.only_owed:
            changes = [resource for resource in changes if resource.name in books.owed]
        missing = {
            name for name in books.owed if name not in source and name not in offer.later and name not in books.held
        }
        removed = sorted(missing | offer.removable)
        if not changes and not removed and not books.answer_owed:
            return None
        return self._send(books, offer.position, fitting(changes, XDS_RESPONSE_BYTES), tuple(removed))

    def _send(
        self, books: TypeState, position: Position, resources: list[XdsResource], removed: tuple[str, ...]
    ) -> Send[DeltaDiscoveryResponse]:
        books.touch()
        books.answer_owed = False
        books.owed -= {resource.name for resource in resources}
        books.owed.difference_update(removed)
        books.last_nonce = self._next_nonce()
        books.outstanding = Outstanding(
            nonce=books.last_nonce,
            position=position,
            resources={resource.name: resource for resource in resources},
            changed=tuple(resource.name for resource in resources),
            removed=removed,
        )
        response = DeltaDiscoveryResponse(
            system_version_info=str(position),
            type_url=books.type_url,
            nonce=books.last_nonce,
            removed_resources=removed,
            resources=[
                Resource(
                    name=resource.name,
                    version=resource.version,
                    resource=Any(type_url=books.type_url, value=resource.body),
                )
                for resource in resources
            ],
        )
        return Send(response, books.type_url, books.last_nonce, len(resources), len(removed))
