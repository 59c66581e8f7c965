"""Temporary credentials: opened by whoever holds the keys, by nobody when changed, and told apart from no others."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import pytest

from identity.session import Session, draw_temporary_key, open_token, seal
from identity.verification import verify
from mesh.errors import NotAuthenticated, error_code
from mesh.principals import AccessKey
from runtime.clock import SystemEntropy
from tests.identity.signing import KEY, NOW_US, mutants, presign, sign, with_header
from tests.identity.test_sigv4 import refusal

ROLE = "arn:aws:iam::123456789012:role/deployer"
SHOWN = "arn:aws:sts::123456789012:assumed-role/deployer/ann"
POLICY = '{"Version": "2012-10-17", "Statement": []}'
ENTROPY = SystemEntropy()


@dataclass
class Keys:
    """Data keys; the last one seals."""

    held: dict[str, bytes] = field(default_factory=lambda: {"secrets-1": b"1" * 32})

    def sealing(self) -> tuple[str, bytes]:
        return list(self.held.items())[-1]

    def material(self, key_id: str) -> bytes | None:
        return self.held.get(key_id)


@dataclass
class Book:
    """Sessions of one cluster."""

    keys: Keys
    why_not: str | None = None

    def opened(self, token: str) -> Session | None:
        return open_token(token, self.keys)

    def problem(self, session: Session) -> str | None:
        return self.why_not


def session(**changes: object) -> Session:
    made = Session(
        *draw_temporary_key(ENTROPY), "123456789012", SHOWN, ROLE, "ann", NOW_US, NOW_US + 900_000_000, policy=POLICY
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def key_of(session: Session) -> AccessKey:
    return KEY._replace(access_key_id=session.access_key_id, secret=session.secret)


def test_a_token_opens_to_the_session_that_it_holds() -> None:
    keys, made = Keys(), session()
    token = seal(made, keys, ENTROPY)
    assert token.isascii()
    assert open_token(token, keys) == made
    assert made.secret not in token
    assert made.secret not in repr(made)


def test_it_opens_after_a_rotation_and_not_without_its_key() -> None:
    keys = Keys()
    token = seal(session(), keys, ENTROPY)
    keys.held["secrets-2"] = b"2" * 32
    assert open_token(token, keys) is not None
    keys.held["secrets-1"] = b"3" * 32
    assert open_token(token, keys) is None
    del keys.held["secrets-1"]
    assert open_token(token, keys) is None


def test_no_changed_token_opens() -> None:
    keys = Keys()
    token = seal(session(), keys, ENTROPY)
    changed = [*mutants(token), token[:-1], token + "A", token + "=", "MLST1", "", "MLST1" + "A" * 20_000]
    changed.append("MLST1" + base64.urlsafe_b64encode(b"\x93\xa1a\xc4\x00\xc4\x00").decode().rstrip("="))
    assert [mutant for mutant in changed if open_token(mutant, keys) is not None] == []


@pytest.mark.parametrize("how", ["header", "presigned"])
def test_who_signs_with_a_session_is_the_role_in_that_session(how: str) -> None:
    book, made = Book(Keys()), session()
    token = seal(made, book.keys, ENTROPY)
    request = sign(key=key_of(made), token=token) if how == "header" else presign(key=key_of(made), token=token)
    caller = verify(request, lambda _: None, NOW_US, sessions=book)
    assert (caller.account, caller.principal, caller.identity) == ("123456789012", SHOWN, ROLE)
    assert (caller.access_key_id, caller.admin) == (made.access_key_id, False)
    assert caller.session is not None
    assert caller.session == ("ann", made.expires_us, POLICY, NOW_US)


def told(request: object, book: Book, now_us: int = NOW_US) -> tuple[str, str]:
    with pytest.raises(NotAuthenticated) as caught:
        verify(request, lambda key_id: KEY if key_id == KEY.access_key_id else None, now_us, sessions=book)  # type: ignore[arg-type]
    return error_code(caught.value), caught.value.message


def test_what_is_wrong_with_a_session_is_told_to_its_holder_only() -> None:
    book, made = Book(Keys()), session()
    token, late_us = seal(made, book.keys, ENTROPY), made.expires_us
    over = sign(key=key_of(session(secret=made.secret, access_key_id=made.access_key_id)), token=token)
    assert told(over, Book(book.keys, "its role is gone."))[0] == "InvalidClientTokenId"
    short = seal(made._replace(expires_us=NOW_US), book.keys, ENTROPY)
    assert told(sign(key=key_of(made), token=short), book)[0] == "ExpiredTokenException"
    unknown = refusal(sign(key=KEY._replace(secret="guess")))
    guess = KEY._replace(access_key_id=made.access_key_id, secret="guess")
    assert told(sign(key=guess, token=short), book) == unknown
    assert told(sign(key=guess, token=token), Book(book.keys, "its role is gone."), late_us) == unknown


def test_a_forged_or_borrowed_token_is_told_as_an_unknown_key_is() -> None:
    book, mine, other = Book(Keys()), session(), session()
    unknown = refusal(sign(key=KEY._replace(secret="guess")))
    elsewhere = seal(mine, Keys({"secrets-1": b"9" * 32}), ENTROPY)
    assert told(sign(key=key_of(mine), token=elsewhere), book) == unknown
    assert told(sign(key=key_of(mine), token="MLST1forged"), book) == unknown
    assert told(sign(key=key_of(mine), token=seal(other, book.keys, ENTROPY)), book) == unknown
    # A long-lived key with somebody's token is not that key's owner either.
    assert told(sign(key=KEY, token=seal(other, book.keys, ENTROPY)), book) == unknown


def test_the_token_is_part_of_what_is_signed() -> None:
    book, made = Book(Keys()), session()
    one, two = seal(made, book.keys, ENTROPY), seal(made, book.keys, ENTROPY)
    request = sign(key=key_of(made), token=one)
    verify(request, lambda _: None, NOW_US, sessions=book)
    assert told(with_header(request, "x-amz-security-token", two), book)[0] == "InvalidSignatureException"
    assert told(with_header(request, "x-amz-security-token", None), book)[0] == "UnrecognizedClientException"


def test_a_temporary_key_without_its_token_is_told_what_is_missing() -> None:
    code, message = told(sign(key=key_of(session())), Book(Keys()))
    assert (code, "AWS_SESSION_TOKEN" in message) == ("UnrecognizedClientException", True)
