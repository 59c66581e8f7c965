"""Who calls, by what this server has folded of the log: HTTP requests and proxies' credentials come through here.

What is refused by a fold that lags is tried once more on a confirmed one: a key or role that another server has just
made must work here. Without a quorum the refusal stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from api.ports import ApiPorts
from api.sessions import session_book
from identity.caller import Caller
from identity.sigv4 import SignedRequest
from identity.verification import DISABLED, INVALID, verify
from mesh.errors import NotAuthenticated, NotReady, Unavailable
from mesh.principals import AccessKey
from runtime.limits import REFUSAL_CONFIRM_S


class Authenticator:
    """Verifies signatures with the keys of this server's state."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports
        self._sessions = session_book(ports)

    async def caller(self, request: SignedRequest, services: Sequence[str]) -> Caller:
        """Who signed it for one of `services`; NotAuthenticated, or NotReady before anything was folded."""
        replica = self._ports.replica
        judged_at = replica.state.position
        try:
            return self._verify(request, services)
        except NotAuthenticated as refusal:
            if refusal.auth_code not in (INVALID, DISABLED):
                raise
            # The same for a key that is unknown and for a signature that is wrong: the time must not tell.
            with suppress(Unavailable):
                await replica.confirmed(REFUSAL_CONFIRM_S)
            if replica.state.position == judged_at:
                raise
        return self._verify(request, services)

    def _verify(self, request: SignedRequest, services: Sequence[str]) -> Caller:
        keys = self._ports.replica.state.access_keys
        if not keys:
            raise NotReady("This server has not read the log yet, and so knows no access key. Try again in a second.")

        def lookup(access_key_id: str) -> AccessKey | None:
            return keys.get(access_key_id)

        return verify(request, lookup, self._ports.clock.now_us(), services, self._sessions)
