"""Sessions as an API server keeps them, which is not at all: the keys that seal them, and whether their grounds stand.

A session counts while its key (GetSessionToken) opens, or while its role (AssumeRole) is the one that was assumed.
"""

from __future__ import annotations

from collections.abc import Callable

from api.ports import ApiPorts
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass
from identity.session import Session, open_token
from identity.verification import NoSessions, Sessions
from mesh.errors import MissingKey
from mesh.state import State
from runtime.clock import Clock
from runtime.limits import SESSION_KEY_AGE_S


class SessionKeyring:
    """Sessions are sealed under the log's secrets keys, which open in API servers alone."""

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self._keyring, self._clock = keyring, clock

    def sealing(self) -> tuple[str, bytes]:
        """The newest key that every server has had the time to load, else the oldest one. MissingKey."""
        held = self._keyring.held(KeyClass.SECRETS)
        if not held:
            raise MissingKey("This server holds no data key of class 'secrets', and so can issue no session token")
        since_us = self._clock.now_us() - int(SESSION_KEY_AGE_S * 1e6)
        key = next((key for key in reversed(held) if key.created_us <= since_us), held[0])
        return key.key_id, key.material

    def material(self, key_id: str) -> bytes | None:
        """See `identity.session.SessionKeys`."""
        key = self._keyring.loaded.get(key_id)
        return key.material if key is not None and key.key_class is KeyClass.SECRETS else None


def session_book(ports: ApiPorts) -> Sessions:
    """What a server with these ports knows of sessions; nothing if it was given no keys."""
    if ports.keys is None:
        return NoSessions()
    return SessionBook(SessionKeyring(ports.keys.keyring, ports.clock), lambda: ports.replica.state)


class SessionBook:
    """`identity.verification.Sessions` over the state of this server."""

    def __init__(self, keys: SessionKeyring, state: Callable[[], State]) -> None:
        self._keys, self._state = keys, state

    def opened(self, token: str) -> Session | None:
        return open_token(token, self._keys)

    def problem(self, session: Session) -> str | None:
        state = self._state()
        if session.parent_key_id:
            key = state.access_keys.get(session.parent_key_id)
            stands = key is not None and key.disabled_us is None
            return None if stands else f"the access key {session.parent_key_id}, which it was issued to, is disabled."
        role = state.principals.get(session.identity)
        if role is None or role.created_us != session.role_created_us:
            return f"the role {session.identity}, which it was issued for, is no more."
        return None
