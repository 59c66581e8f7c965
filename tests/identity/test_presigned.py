"""Presigned URLs: verified as botocore makes them, for as long as they say, and not one character changed."""

from __future__ import annotations

import datetime
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.sigv4 import STS, SignedRequest, without_signature
from identity.verification import verify
from mesh.errors import NotAuthenticated, error_code
from tests.identity.signing import KEY, NOW, NOW_US, mutants, presign, sign
from tests.identity.test_sigv4 import lookup, refusal

values = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=150)
@given(query=st.dictionaries(values, values, max_size=4))
def test_what_botocore_presigns_is_verified_and_the_call_is_what_it_was(query: dict[str, str]) -> None:
    said = "&".join(f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}" for name, value in query.items())
    request = presign("/v20190125/meshes" + (f"?{said}" if said else ""))
    assert verify(request, lookup, NOW_US).principal == KEY.principal
    assert without_signature(request).query == said


def test_every_character_of_a_presigned_url_counts() -> None:
    request = presign()
    verify(request, lookup, NOW_US)
    changed = [request._replace(query=query) for query in mutants(request.query)]
    changed += [request._replace(path=path) for path in mutants(request.path)]
    changed += [request._replace(headers=[("host", host)]) for host in mutants(request.headers[0][1])]
    changed += [request._replace(method="PUT"), request._replace(body=b"{}")]
    pairs = request.query.split("&")
    changed += [request._replace(query="&".join(pairs[:at] + pairs[at + 1 :])) for at in range(len(pairs))]
    changed += [request._replace(query="&".join([*pairs, pair])) for pair in pairs]
    accepted = []
    for mutant in changed:
        try:
            verify(mutant, lookup, NOW_US)
        except NotAuthenticated:
            continue
        accepted.append(mutant)
    assert accepted == []
    assert len(changed) > 3_000


@pytest.mark.parametrize("lives_s", [1, 60, 3600, 604_800])
def test_it_holds_for_as_long_as_it_says(lives_s: int) -> None:
    made = NOW - datetime.timedelta(seconds=lives_s)
    assert verify(presign(at=made, lives_s=lives_s), lookup, NOW_US).admin
    code, message = refusal(presign(at=made - datetime.timedelta(seconds=1), lives_s=lives_s))
    assert (code, message[:18]) == ("InvalidSignatureException", "Signature expired:")


def test_expiry_is_told_only_after_a_right_signature() -> None:
    stale = NOW - datetime.timedelta(days=2)
    assert refusal(presign(at=stale, key=KEY._replace(secret="guess"))) == refusal(
        sign(key=KEY._replace(secret="guess"))
    )


def test_the_skew_window_bounds_its_future_too() -> None:
    assert verify(presign(at=NOW + datetime.timedelta(minutes=5)), lookup, NOW_US).admin
    code, message = refusal(presign(at=NOW + datetime.timedelta(minutes=5, seconds=1)))
    assert (code, message[:26]) == ("InvalidSignatureException", "Signature not yet current:")


@pytest.mark.parametrize("lives_s", [0, -1, 604_801])
def test_a_life_beyond_seven_days_is_refused(lives_s: int) -> None:
    code, message = refusal(presign(lives_s=lives_s))
    assert (code, "X-Amz-Expires" in message) == ("IncompleteSignatureException", True)


def test_a_request_signed_twice_is_refused() -> None:
    both = sign("GET", f"{presign().path}?{presign().query}", b"")
    assert refusal(both)[0] == "IncompleteSignatureException"


@pytest.mark.parametrize("left_out", ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature"])
def test_what_is_missing_is_named(left_out: str) -> None:
    request = presign()
    query = "&".join(pair for pair in request.query.split("&") if not pair.startswith(left_out))
    code, message = refusal(request._replace(query=query))
    assert (code, left_out in message) == ("IncompleteSignatureException", True)


def test_sts_in_a_url() -> None:
    request: SignedRequest = presign("/?Action=GetCallerIdentity&Version=2011-06-15", service=STS)
    assert verify(request, lookup, NOW_US, (STS,)).principal == KEY.principal
    with pytest.raises(NotAuthenticated) as caught:
        verify(request, lookup, NOW_US)
    assert error_code(caught.value) == "IncompleteSignatureException"
