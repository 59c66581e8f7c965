"""Signing keys: one name for all API servers, nothing for other roles, and no forgery passes."""

from __future__ import annotations

import pytest

from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass
from eventlog.signing import check_signer, known_signers, signing_key, verify
from mesh.errors import Damaged, MissingKey
from tests.eventlog.logs import BOTH, CONFIG_ONLY, MemoryLog, SeededEntropy, make_memory_log

MESSAGE = b"a manifest"


@pytest.fixture
async def made() -> MemoryLog:
    return await make_memory_log()


def keyring_of(made: MemoryLog, *, secrets: bool = True) -> Keyring:
    return Keyring(made.log.driver, BOTH if secrets else CONFIG_ONLY)


async def test_every_api_server_signs_with_one_named_key(made: MemoryLog) -> None:
    log = made.log
    first = await signing_key(log.driver, keyring_of(made), log.head.head.log_id, log.clock, log.entropy)
    second = await signing_key(log.driver, keyring_of(made), log.head.head.log_id, log.clock, SeededEntropy("b"))
    assert first.name.startswith("signing-")
    assert (first.name, first.public) == (second.name, second.public)
    verify(first.public, second.sign(MESSAGE), MESSAGE)


async def test_a_log_from_before_signing_gets_a_key_on_first_need(made: MemoryLog) -> None:
    log, store = made.log, made.store
    for name in [name for name in store.entries if name.startswith("datakey/signing-")]:
        del store.entries[name]
    keyring = keyring_of(made)
    drawn = await signing_key(log.driver, keyring, log.head.head.log_id, log.clock, SeededEntropy("later"))
    again = await signing_key(log.driver, keyring_of(made), log.head.head.log_id, log.clock, SeededEntropy("b"))
    assert drawn.public == again.public
    assert known_signers(keyring) == {drawn.name: drawn.public}


async def test_a_role_without_secrets_cannot_sign(made: MemoryLog) -> None:
    log, store = made.log, made.store
    projector = keyring_of(made, secrets=False)
    await projector.load(log.head.head.log_id)
    assert known_signers(projector) is None
    assert projector.held(KeyClass.SIGNING) == []
    for name in [name for name in store.entries if name.startswith("datakey/signing-")]:
        del store.entries[name]
    with pytest.raises(MissingKey, match="'secrets'"):
        await signing_key(log.driver, projector, log.head.head.log_id, log.clock, SeededEntropy("never"))


async def test_changed_bytes_other_keys_and_strange_names_are_damage(made: MemoryLog) -> None:
    log = made.log
    key = await signing_key(log.driver, keyring_of(made), log.head.head.log_id, log.clock, log.entropy)
    signature = key.sign(MESSAGE)
    for index in range(len(signature)):
        changed = bytearray(signature)
        changed[index] ^= 1
        with pytest.raises(Damaged):
            verify(key.public, bytes(changed), MESSAGE)
    with pytest.raises(Damaged):
        verify(key.public, signature, MESSAGE + b".")
    with pytest.raises(Damaged):
        verify(b"short", signature, MESSAGE)
    check_signer(key.name, key.public, None)
    check_signer(key.name, key.public, {key.name: key.public})
    for trusted in ({}, {key.name: bytes(32)}, {"other": key.public}):
        with pytest.raises(Damaged, match=key.name):
            check_signer(key.name, key.public, trusted)


async def test_the_private_half_is_not_shown(made: MemoryLog) -> None:
    log = made.log
    key = await signing_key(log.driver, keyring_of(made), log.head.head.log_id, log.clock, log.entropy)
    assert repr(key) == f"SigningKey({key.name})"
