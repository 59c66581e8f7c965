"""Who signed this request: what botocore signs is verified; all else is refused, and told as little as may be."""

from __future__ import annotations

import datetime
import hashlib
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.sigv4 import APPMESH, MESHLOG, SignedRequest
from identity.verification import verify
from mesh.errors import NotAuthenticated, error_code
from mesh.principals import AccessKey
from tests.identity.signing import KEY, NOW, NOW_US, mutants, sign, with_header


def lookup(access_key_id: str) -> AccessKey | None:
    return KEY if access_key_id == KEY.access_key_id else None


def refusal(request: SignedRequest, now_us: int = NOW_US) -> tuple[str, str]:
    with pytest.raises(NotAuthenticated) as caught:
        verify(request, lookup, now_us)
    return error_code(caught.value), caught.value.message


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=300)
@given(
    segments=st.lists(names, min_size=1, max_size=5),
    query=st.lists(st.tuples(names, st.text(st.characters(codec="utf-8"), max_size=8)), max_size=4),
    body=st.binary(max_size=64),
    region=st.from_regex(r"[a-z]{2}-[a-z]{4,9}-[1-9]", fullmatch=True),
    extra=st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}", fullmatch=True),
        st.text("abc  \t09,;=", min_size=1, max_size=20).map(str.strip),
        max_size=3,
    ),
)
def test_what_botocore_signs_is_verified(
    segments: list[str], query: list[tuple[str, str]], body: bytes, region: str, extra: dict[str, str]
) -> None:
    target = "/" + "/".join(quote(segment, safe="-._~") for segment in segments)
    if query:
        target += "?" + "&".join(f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}" for name, value in query)
    method = ("GET", "PUT", "DELETE")[len(target) % 3]
    caller = verify(sign(method, target, body, extra, region=region), lookup, NOW_US)
    assert (caller.account, caller.principal, caller.admin, caller.region) == (KEY.account, KEY.principal, True, region)


@pytest.mark.parametrize("name", ["svc.prod.local", "a/b", "100% sure", "ü.local", "~x", "a b+c", "%2F", "(x)!*'"])
def test_names_that_need_percent_encoding_are_verified(name: str) -> None:
    assert verify(sign("GET", f"/v20190125/meshes/m/virtualServices/{quote(name, safe='-._~')}"), lookup, NOW_US).admin


def test_every_byte_of_a_signed_request_counts() -> None:
    request = sign(headers={"x-amz-content-sha256": hashlib.sha256(b'{"meshName":"m"}').hexdigest(), "x-note": "a  b"})
    verify(request, lookup, NOW_US)

    changed = [request._replace(method=method) for method in mutants(request.method)]
    changed += [request._replace(path=path) for path in mutants(request.path)]
    changed += [request._replace(query=query) for query in mutants(request.query)]
    changed += [request._replace(body=body.encode("latin-1")) for body in mutants(request.body.decode())]
    for name, value in request.headers:
        if name in ("authorization", "host", "x-amz-date", "x-amz-content-sha256"):
            changed += [with_header(request, name, mutant) for mutant in mutants(value)]
    changed += [with_header(request, "x-note", note) for note in mutants("a  b") if note.split() != ["a", "b"]]
    for name, _ in request.headers:
        changed.append(with_header(request, name, None))
    assert len(changed) > 4_000
    accepted = []
    for mutant in changed:
        try:
            verify(mutant, lookup, NOW_US)
        except NotAuthenticated:
            continue
        accepted.append(mutant)
    assert accepted == []


def test_an_unknown_key_and_a_wrong_secret_are_told_the_same() -> None:
    unknown = refusal(sign(key=KEY._replace(access_key_id="AKIANOBODYKNOWSTHIS1")))
    wrong = refusal(sign(key=KEY._replace(secret="guess")))
    assert unknown == wrong
    assert unknown[0] == "InvalidSignatureException"


@pytest.mark.parametrize("minutes", [-5, -1, 0, 1, 5])
def test_within_five_minutes_is_in_time(minutes: int) -> None:
    assert verify(sign(at=NOW + datetime.timedelta(minutes=minutes)), lookup, NOW_US).admin


def test_too_old_is_told_with_both_times() -> None:
    code, message = refusal(sign(at=NOW - datetime.timedelta(minutes=5, seconds=1)))
    assert code == "InvalidSignatureException"
    assert message.startswith(
        "Signature expired: 20261122T125959Z is now earlier than 20261122T130000Z (20261122T130500Z - 5 min.)"
    )


def test_too_new_is_refused() -> None:
    code, message = refusal(sign(at=NOW + datetime.timedelta(minutes=5, seconds=1)))
    assert (code, message[:26]) == ("InvalidSignatureException", "Signature not yet current:")


def test_expiry_is_told_only_after_a_right_signature() -> None:
    stale = NOW - datetime.timedelta(days=2)
    assert refusal(sign(at=stale, key=KEY._replace(secret="guess"))) == refusal(sign(key=KEY._replace(secret="guess")))
    assert "expired" not in refusal(sign(at=stale, key=KEY._replace(access_key_id="AKIANOBODYKNOWSTHIS1")))[1]


def test_a_disabled_key_opens_nothing_and_only_its_holder_is_told() -> None:
    disabled = KEY._replace(disabled_us=1)

    def told(request: SignedRequest) -> tuple[str, str]:
        with pytest.raises(NotAuthenticated) as caught:
            verify(request, lambda _: disabled, NOW_US)
        return error_code(caught.value), caught.value.message

    code, message = told(sign())
    assert (code, KEY.access_key_id in message) == ("InvalidClientTokenId", True)
    wrong = sign(key=KEY._replace(secret="guess"))
    assert told(wrong) == refusal(wrong)


def test_no_credentials() -> None:
    assert refusal(with_header(sign(), "authorization", None))[0] == "MissingAuthenticationTokenException"


def test_awss_temporary_credentials_are_told_why_they_cannot_work_and_what_to_do() -> None:
    temporary = KEY._replace(access_key_id="ASIAIOSFODNN7EXAMPLE")
    for request in (sign(token="FwoGZXIvYXdzEXAMPLE"), sign(key=temporary, token="IQoJb3JpZ2lu"), sign(key=temporary)):
        code, message = refusal(request)
        assert code == "UnrecognizedClientException"
        assert "temporary credentials cannot be verified by anybody but AWS" in message
        assert "unset AWS_SESSION_TOKEN" in message
        assert "meshlog connect" in message


def header(credential: str, signed: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential={credential}/aws4_request, SignedHeaders={signed}, Signature={'0' * 64}"


@pytest.mark.parametrize(
    "value",
    [
        "Bearer abc",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AKIA/20261122/r/appmesh/aws4_request, SignedHeaders=host, Signature=short",
        header("AKIAX/appmesh", "host;x-amz-date"),
        header("AKIAX/20261121/r/appmesh", "host;x-amz-date"),
        header("AKIAX/20261122/r/appmesh", "x-amz-date;host"),
        header("AKIAX/20261122/r/appmesh", "host"),
        header("AKIAX/20261122/r/appmesh", "x-amz-date"),
        header("AKIAX/20261122/r/appmesh", "host;x-amz-date;zz"),
        header("AKIAX/20261122/r/s3", "host;x-amz-date"),
    ],
)
def test_malformed_or_incomplete(value: str) -> None:
    assert refusal(with_header(sign(), "authorization", value))[0] == "IncompleteSignatureException"


def test_an_unsigned_amz_header_is_refused() -> None:
    code, message = refusal(with_header(sign(), "x-amz-target", "Elsewhere"))
    assert code == "IncompleteSignatureException"
    assert "x-amz-target" in message


def test_two_of_a_header_that_decides_are_refused() -> None:
    request = sign()
    for name in ("host", "x-amz-date", "authorization"):
        doubled = request._replace(headers=[*request.headers, (name, "x")])
        assert refusal(doubled)[0] == "IncompleteSignatureException"


def test_a_stated_body_hash_must_be_the_bodys() -> None:
    for stated in (hashlib.sha256(b"other").hexdigest(), "UNSIGNED-PAYLOAD"):
        assert refusal(sign(headers={"x-amz-content-sha256": stated}))[0] == "InvalidSignatureException"


def test_only_a_streams_payload_may_go_unsigned() -> None:
    unsigned = sign("POST", "/a.b/C", b"", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert refusal(unsigned)[0] == "InvalidSignatureException"
    assert verify(unsigned._replace(streams=True), lookup, NOW_US).admin
    empty = sign("POST", "/a.b/C", b"", headers={"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()})
    assert verify(empty._replace(streams=True), lookup, NOW_US).admin
    other = sign("POST", "/a.b/C", b"", headers={"x-amz-content-sha256": hashlib.sha256(b"x").hexdigest()})
    assert refusal(other._replace(streams=True))[0] == "InvalidSignatureException"


def test_a_date_header_stands_in_for_x_amz_date() -> None:
    assert verify(sign(headers={"Date": "anything: botocore sets it"}), lookup, NOW_US).admin


def test_dot_segments_are_refused_since_the_signature_folds_them() -> None:
    for path in ("/v20190125/meshes/x/..", "/v20190125//meshes", "/v20190125/./meshes"):
        assert refusal(sign("GET", path))[0] == "IncompleteSignatureException"


def test_the_service_must_be_one_that_the_route_takes() -> None:
    assert verify(sign(service=MESHLOG), lookup, NOW_US, (MESHLOG, APPMESH)).admin
    assert refusal(sign(service=MESHLOG))[0] == "IncompleteSignatureException"
