"""Who opened a stream: the node that its certificate names, or the one that its signature may be. A shell over `Gate`.

Nothing is answered, and no session begun, before that is known. `node.id` alone is never enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from identity.node_id import NodeId
from identity.proxy_wire import Presented, Refused
from mesh.errors import BadRequest, Unavailable
from runtime.clock import Clock
from runtime.limits import (
    UNVERIFIED_SOURCE_BURST,
    UNVERIFIED_SOURCE_PER_S,
    UNVERIFIED_SOURCES_MAX,
    XDS_FIRST_REQUEST_S,
    XDS_UNVERIFIED_MAX,
)
from runtime.rates import Rates
from xds.actions import Close, Code
from xds.admission import Admission
from xds.credentials import peer_node
from xds.signed import Signing, address_of, close_of, signed_headers
from xds.stream import Context
from xds.wire.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

log = structlog.get_logger(__name__)

RequestType = type[DiscoveryRequest] | type[DeltaDiscoveryRequest]


class Identified(NamedTuple):
    """Who it is. `requests`: all of the stream's, the one that was read to find out among them. `grant`: see Gate."""

    node: NodeId
    requests: AsyncIterator[bytes]
    grant: bytes | None = None


class Identification:
    """For one server. Without `signing`, certificates alone count."""

    def __init__(self, trust_domain: str, signing: Signing | None, clock: Clock) -> None:
        self._trust_domain, self._signing = trust_domain, signing
        # Apart from that of known proxies: strangers must not use up theirs.
        self._admission = Admission(clock, streams_max=XDS_UNVERIFIED_MAX)
        self._failures = Rates(UNVERIFIED_SOURCE_PER_S, UNVERIFIED_SOURCE_BURST, UNVERIFIED_SOURCES_MAX)
        self._clock = clock
        self._verifying = 0

    def by_certificate(self, context: Context) -> NodeId | Close:
        """The node that the caller's certificate names."""
        node = peer_node(context.auth_context(), self._trust_domain)
        if node is not None:
            return node
        log.warning("caller without a node's certificate refused", peer=context.peer())
        uri = f"spiffe://{self._trust_domain}/<account>/mesh/<mesh>/virtualNode|virtualGateway/<name>"
        if self._signing is None:
            return Close(Code.UNAUTHENTICATED, f"the client certificate names no node: its one URI name must be {uri}")
        return Close(
            Code.UNAUTHENTICATED,
            "the stream has no credentials: sign it (SigV4, service 'appmesh', with an access key of Meshlog), or, at "
            f"the port that asks for certificates, show one whose one URI name is {uri}",
        )

    async def identify(
        self, method: str, request_type: RequestType, requests: AsyncIterator[bytes], context: Context
    ) -> Identified | Close:
        """Who opened the stream, or how to end it."""
        headers = signed_headers(context.invocation_metadata() or ())
        node = peer_node(context.auth_context(), self._trust_domain)
        if node is not None or self._signing is None or not headers:
            named = node or self.by_certificate(context)
            return named if isinstance(named, Close) else Identified(named, requests)
        source = address_of(context.peer())
        if self._failures.wait_s(source, self._clock.monotonic_s()) > 0:
            return Close(Code.RESOURCE_EXHAUSTED, "streams of this address had wrong credentials too often: wait")
        if (reason := self._admission.refusal(self._verifying)) is not None:
            return Close(Code.RESOURCE_EXHAUSTED, reason)
        self._verifying += 1
        try:
            return await self._verified(method, request_type, requests, context, headers)
        finally:
            self._verifying -= 1

    async def _verified(
        self,
        method: str,
        request_type: RequestType,
        requests: AsyncIterator[bytes],
        context: Context,
        headers: tuple[tuple[str, str], ...],
    ) -> Identified | Close:
        assert self._signing is not None  # noqa: S101 - asked before
        coming = aiter(requests)
        try:
            async with asyncio.timeout(XDS_FIRST_REQUEST_S):
                first = await anext(coming)
            node = request_type.FromString(first).node.id
        except TimeoutError:
            return Close(Code.DEADLINE_EXCEEDED, f"no request came within {XDS_FIRST_REQUEST_S:g} s")
        except (StopAsyncIteration, DecodeError):
            return Close(Code.INVALID_ARGUMENT, "the request is not a discovery request")
        if not node:
            return Close(Code.INVALID_ARGUMENT, "the first request of a stream must carry node.id")
        presented = Presented(node, method, self._signing.names, headers, address_of(context.peer()))
        try:
            verdict = await self._signing.gate.check(presented)
        except BadRequest as error:
            return Close(Code.INVALID_ARGUMENT, error.message)
        except Unavailable as error:
            return Close(Code.UNAVAILABLE, error.message)
        if isinstance(verdict, Refused):
            log.warning("proxy refused", peer=context.peer(), node=node[:200], status=verdict.status)
            if verdict.status == Code.UNAUTHENTICATED:
                self._failures.take(presented.source_ip, self._clock.monotonic_s())
            return close_of(verdict)
        log.info("proxy verified", peer=context.peer(), node=str(verdict.node), principal=verdict.principal)
        return Identified(verdict.node, _again(first, coming), verdict.grant)


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for request in rest:
        yield request
