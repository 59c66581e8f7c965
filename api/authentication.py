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
from identity.verification import DISABLED, INVALID, caller_in, caller_with, verify
from mesh.errors import NotAuthenticated, NotReady, Unavailable
from runtime.limits import REFUSAL_CONFIRM_S


class Authenticator:
    """Verifies signatures with the keys of this server's state."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports
        self._sessions = session_book(ports)

    async def caller(self, request: SignedRequest, services: Sequence[str]) -> Caller:
        """Who signed it for one of `services`; NotAuthenticated, or NotReady before anything was folded."""
        return await self.caller_of_any((request,), services)

    async def caller_of_any(self, readings: Sequence[SignedRequest], services: Sequence[str]) -> Caller:
        """The same of a request that can be read in several ways, of which one was signed."""
        replica = self._ports.replica
        judged_at = replica.state.position
        try:
            return self._seen(self._verify(readings, services))
        except NotAuthenticated as refusal:
            if refusal.auth_code not in (INVALID, DISABLED):
                raise
            # The same for a key that is unknown and for a signature that is wrong: the time must not tell.
            with suppress(Unavailable):
                await replica.confirmed(REFUSAL_CONFIRM_S)
            if replica.state.position == judged_at:
                raise
        return self._seen(self._verify(readings, services))

    def still(self, access_key_id: str, token: str | None, region: str) -> Caller:
        """Whoever proved before that they hold a key, or the session of a token; NotAuthenticated if it is void now."""
        if token is not None:
            session = self._sessions.opened(token)
            if session is not None and session.access_key_id == access_key_id:
                return caller_in(session, region, self._ports.clock.now_us(), self._sessions)
        elif (key := self._ports.replica.state.access_keys.get(access_key_id)) is not None:
            return self._seen(caller_with(key, region))
        raise NotAuthenticated(f"The access key {access_key_id} is no more.", DISABLED)

    def _seen(self, caller: Caller) -> Caller:
        if caller.session is None:
            self._ports.key_sightings.note(caller.access_key_id, self._ports.clock.now_us())
        return caller

    def _verify(self, readings: Sequence[SignedRequest], services: Sequence[str]) -> Caller:
        keys = self._ports.replica.state.access_keys
        if not keys:
            raise NotReady("This server has not read the log yet, and so knows no access key. Try again in a second.")
        *others, last = readings
        for reading in others:
            try:
                return verify(reading, keys.get, self._ports.clock.now_us(), services, self._sessions)
            except NotAuthenticated as refusal:
                if refusal.auth_code != INVALID:
                    raise
        return verify(last, keys.get, self._ports.clock.now_us(), services, self._sessions)
