"""`Gate` over gRPC: API servers, the own zone's first, the next one when one does not answer. A shell.

It keeps one channel to each and remembers who answered last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from identity.proxy_wire import (
    CHECK,
    STANDING,
    Granted,
    Presented,
    Refused,
    decode_fallen,
    decode_verdict,
    encode_check,
    encode_grants,
)
from identity.role_id import ROLE_API
from mesh.errors import BadRequest, Unavailable
from runtime.limits import PROXY_CHECK_BYTES_MAX, PROXY_CHECK_S

log = structlog.get_logger(__name__)

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", PROXY_CHECK_BYTES_MAX),
    ("grpc.max_send_message_length", PROXY_CHECK_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.ssl_target_name_override", f"{ROLE_API}.meshlog"),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Verifiers:
    """The API servers of a cluster. `apis`: (zone, host:port of the peer port). Use from one event loop."""

    def __init__(
        self, zone: str, apis: Sequence[tuple[str, str]], credentials: Callable[[], grpc.ChannelCredentials]
    ) -> None:
        self._order = [address for _, address in sorted(apis, key=lambda api: api[0] != zone)]
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def check(self, presented: Presented) -> Granted | Refused:
        """See `xds.signed.Gate`."""
        return decode_verdict(await self._ask(CHECK, encode_check(presented)))

    async def standing(self, grants: Sequence[bytes]) -> Mapping[int, Refused]:
        """See `xds.signed.Gate`."""
        return decode_fallen(await self._ask(STANDING, encode_grants(list(grants))))

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _ask(self, method: str, message: bytes) -> bytes:
        reason = "no API server is set ('apis' in the frontend's settings)"
        for address in list(self._order):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel(address).unary_unary(method)
            try:
                return await call(message, timeout=PROXY_CHECK_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    raise BadRequest(error.details() or "") from error
                reason = f"{address}: {error.code().name}: {error.details()}"
                log.info("an API server verifies no credentials", address=address, reason=reason)
            # Whoever fails is asked last from now on, on a new channel, with the certificates of then. The old one is
            # not closed: that would cancel the questions that others wait for on it. It goes with the last of them.
            self._order.sort(key=lambda other, failed=address: other == failed)  # type: ignore[misc]
            self._channels.pop(address, None)
        raise Unavailable(f"no API server could verify the proxy's credentials: {reason}")

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.secure_channel(address, self._credentials(), options=_OPTIONS)
        return self._channels[address]
