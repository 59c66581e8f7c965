"""`ProxyGate` for frontends: two gRPC methods beside the API servers' own, on one port. A shell: it decides nothing.

Frontends' certificates alone may ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import structlog

from api.proxy_credentials import ProxyGate
from identity.proxy_wire import (
    CHECK,
    STANDING,
    decode_check,
    decode_grants,
    encode_fallen,
    encode_verdict,
)
from identity.role_id import ROLE_FRONTEND, role_of
from mesh.errors import BadRequest, MeshlogError
from runtime.logging import where

log = structlog.get_logger(__name__)

ROLES_ALLOWED: Mapping[str, frozenset[str]] = {CHECK: frozenset({ROLE_FRONTEND}), STANDING: frozenset({ROLE_FRONTEND})}
"""Every method, and the roles whose certificates may call it."""

Context = grpc.aio.ServicerContext[bytes, bytes]


class ProxyCredentialsService(grpc.GenericRpcHandler):
    """To be added to the gRPC server of the peer port."""

    def __init__(self, gate: ProxyGate, trust_domain: str) -> None:
        self._gate, self._trust_domain = gate, trust_domain
        self._methods: Mapping[str, Callable[[bytes], Awaitable[bytes]]] = {
            CHECK: self._check,
            STANDING: self._standing,
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpc's routing, bytes in and out; None for what is not served here."""
        method = str(handler_call_details.method)
        if method not in self._methods:
            return None

        async def behaviour(packed: bytes, context: Context) -> bytes:
            return await self._answer(method, packed, context)

        return grpc.unary_unary_rpc_method_handler(behaviour)

    async def _answer(self, method: str, packed: bytes, context: Context) -> bytes:
        uris = [value.decode("utf-8", "replace") for value in context.auth_context().get("peer_spiffe_id", ())]
        if role_of(uris, self._trust_domain) not in ROLES_ALLOWED[method]:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only a frontend's certificate asks about proxies")
        try:
            return await self._methods[method](packed)
        except BadRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        except MeshlogError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        except Exception as error:
            log.error("question about a proxy broke", kind=type(error).__name__, place=where(error))  # noqa: TRY400
            await context.abort(grpc.StatusCode.INTERNAL, "this server failed: ask another one")

    async def _check(self, packed: bytes) -> bytes:
        return encode_verdict(await self._gate.check(decode_check(packed)))

    async def _standing(self, packed: bytes) -> bytes:
        return encode_fallen(await self._gate.standing(decode_grants(packed)))
