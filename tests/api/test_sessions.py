"""Which key seals a session: the newest that every server has had the time to load."""

from __future__ import annotations

import pytest

from api.sessions import SessionKeyring
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from mesh.errors import MissingKey
from runtime.limits import KEYRING_REFRESH_S, SESSION_KEY_AGE_S
from tests.eventlog.logs import ToldClock

SECOND_US = 1_000_000


class Ring:
    """A keyring of these keys."""

    def __init__(self, *keys: DataKey) -> None:
        self.loaded = {key.key_id: key for key in keys}

    def held(self, key_class: KeyClass) -> list[DataKey]:
        return [key for key in self.loaded.values() if key.key_class is key_class]


def secret(number: int, created_s: float) -> DataKey:
    return DataKey(f"secrets-{number}", KeyClass.SECRETS, bytes([number]) * 32, int(created_s * SECOND_US))


def keyring(*keys: DataKey, now_s: float) -> SessionKeyring:
    clock = ToldClock()
    clock.wall_us = int(now_s * SECOND_US)
    return SessionKeyring(Ring(*keys), clock)  # type: ignore[arg-type]


def test_a_key_seals_when_all_servers_have_had_the_time_to_load_it() -> None:
    old, new = secret(1, 100), secret(2, 1000)
    assert keyring(old, new, now_s=1000 + SESSION_KEY_AGE_S - 1).sealing()[0] == "secrets-1"
    assert keyring(old, new, now_s=1000 + SESSION_KEY_AGE_S).sealing()[0] == "secrets-2"
    assert SESSION_KEY_AGE_S > 5 * KEYRING_REFRESH_S


def test_a_new_log_has_but_one_key_and_seals_with_it() -> None:
    assert keyring(secret(1, 100), now_s=100).sealing() == ("secrets-1", b"\x01" * 32)


def test_older_keys_open_and_keys_of_other_classes_do_not() -> None:
    config = DataKey("config-1", KeyClass.CONFIG, b"c" * 32, 0)
    ring = keyring(config, secret(1, 100), secret(2, 1000), now_s=5000)
    assert ring.material("secrets-1") == b"\x01" * 32
    assert ring.material("config-1") is None
    assert ring.material("secrets-3") is None


def test_a_server_without_secrets_keys_says_so() -> None:
    with pytest.raises(MissingKey, match="can issue no session token"):
        keyring(now_s=1).sealing()
