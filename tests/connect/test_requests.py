"""What is passed on is what was asked for, under our signature: the server's own verifier is the judge."""

from __future__ import annotations

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from connect.requests import CallerKey, Request, host_of, passed_on, repeatable, service_of, signed, stripped
from identity.sigv4 import SignedRequest
from identity.verification import verify
from mesh.principals import AccessKey
from runtime.clock import SystemClock

KEY = CallerKey("MLOGAAAABBBBCCCCDDDD", "our/secret+key", "eu-west-1")
KNOWN = AccessKey(
    access_key_id=KEY.access_key_id, secret=KEY.secret_access_key, account="1" * 12, principal="p", admin=True
)
URL = "http://127.0.0.1:7411"


def aws_call(method: str, target: str, body: bytes = b"", *, presigned: bool = False) -> Request:
    """As an SDK sends it, signed by temporary credentials of AWS."""
    made = AWSRequest(method, "http://127.0.0.1:7410" + target, data=body, headers={"Content-Type": "application/json"})
    credentials = Credentials("ASIAOFAWS", "theirs", "their session token")
    (SigV4QueryAuth if presigned else SigV4Auth)(credentials, "appmesh", "us-west-2").add_auth(made)
    sent = made.prepare()
    headers = [(name.lower(), value) for name, value in sent.headers.items()]
    extra = [("host", "127.0.0.1:7410"), ("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("user-agent", "boto3")]
    return Request(method, sent.url.removeprefix("http://127.0.0.1:7410"), [*headers, *extra], body)


def accepted(request: Request) -> str:
    """The region that the server takes it to be signed for."""
    path, _, query = request.target.partition("?")
    wire = SignedRequest(request.method, path, query, list(request.headers), request.body)
    service = service_of(request)
    return verify(wire, {KEY.access_key_id: KNOWN}.get, SystemClock().now_us(), [service]).region


@pytest.mark.parametrize("presigned", [False, True])
def test_a_call_signed_by_anybody_is_one_signed_by_us(presigned: bool) -> None:
    before = aws_call("GET", "/v20190125/meshes/a%2Fb%20c?meshOwner=123456789012&limit=5", presigned=presigned)
    after = signed(stripped(before), URL, KEY)
    assert accepted(after) == "eu-west-1"
    assert after.target == "/v20190125/meshes/a%2Fb%20c?meshOwner=123456789012&limit=5"
    names = [name for name, _ in after.headers]
    assert len(set(names)) == len(names)
    text = str(after)
    assert "ASIAOFAWS" not in text
    assert "session token" not in text
    assert dict(after.headers)["user-agent"] == "boto3"
    assert dict(after.headers)["host"] == "127.0.0.1:7411"
    assert not {"connection", "x-hop"} & set(names)


SEGMENTS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#%."), min_size=1)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#%"))
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).map(lambda name: f"x-amz-z{name}")
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)


@settings(max_examples=60)
@given(
    st.sampled_from(["GET", "PUT", "DELETE", "POST"]),
    st.lists(SEGMENTS, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["limit", "nextToken", "a"]), VALUES, max_size=3),
    st.dictionaries(st.sampled_from(["accept", "x-odd"]), TEXT, max_size=2)
    | st.dictionaries(NAMES, st.from_regex(r"[ -~]{0,20}", fullmatch=True), max_size=3),
    st.binary(max_size=50),
)
def test_whatever_a_caller_sends_the_server_accepts(
    method: str,
    segments: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
) -> None:
    target = (
        "/v20190125/" + "/".join(segments) + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
    )
    request = Request(method, target, list(headers.items()), body)
    after = signed(stripped(request), URL, KEY)
    assert accepted(after) == "eu-west-1"
    assert (after.method, after.target, after.body) == (method, target, body)
    assert headers.items() <= dict(after.headers).items()


def test_a_session_of_ours_signs_with_its_token() -> None:
    after = signed(Request("GET", "/", (), b""), URL, CallerKey("ASIA", "s", "eu-west-1", "our token"))
    assert dict(after.headers)["x-amz-security-token"] == "our token"


@pytest.mark.parametrize(
    ("method", "target", "body", "again"),
    [
        ("GET", "/v20190125/meshes", b"", True),
        ("PUT", "/v20190125/meshes", b'{"meshName": "m", "clientToken": "t"}', True),
        ("PUT", "/v20190125/meshes", b'{"meshName": "m"}', False),
        ("PUT", "/v20190125/meshes", b'{"meshName": "m", "clientToken": ""}', False),
        ("PUT", "/v20190125/meshes", b'{"meshName": "m", "clientToken": 1}', False),
        ("PUT", "/v20190125/meshes", b'["clientToken"]', False),
        ("PUT", "/v20190125/meshes", b"\xff", False),
        ("PUT", "/v20190125/meshes", b"[" * 100_000, False),
        ("PUT", "/v20190125/tag?resourceArn=a", b'{"tags": []}', False),
        ("DELETE", "/v20190125/meshes/m", b"", False),
        ("POST", "/", b"Action=AssumeRole", True),
        ("POST", "/meshlog/v1/rollback", b'{"mesh": "m"}', False),
        ("POST", "/meshlog/v1/rollback", b'{"mesh": "m", "clientToken": "t"}', True),
    ],
)
def test_what_may_be_sent_twice(method: str, target: str, body: bytes, again: bool) -> None:
    assert repeatable(Request(method, target, (), body)) is again


def test_what_an_sdk_names_may_be_sent_twice_where_the_api_takes_the_name_for_a_token() -> None:
    named = [("amz-sdk-invocation-id", "051f7d65-97a1-48ea-bcbe-996636554e4a")]
    assert repeatable(Request("DELETE", "/v20190125/meshes/m", named, b""))
    assert not repeatable(Request("POST", "/meshlog/v1/keys/rotate", named, b"{}"))
    assert (
        dict(signed(stripped(Request("DELETE", "/v20190125/meshes/m", named, b"")), URL, KEY).headers).items()
        >= dict(named).items()
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://10.0.0.1:7411", "10.0.0.1:7411"),
        ("https://api.example", "api.example"),
        ("https://api.example:443", "api.example"),
        ("http://api.example:443", "api.example:443"),
        ("http://[::1]:7411", "[::1]:7411"),
    ],
)
def test_a_host_is_written_as_it_is_signed(url: str, host: str) -> None:
    assert host_of(url) == host
    assert accepted(signed(Request("GET", "/v20190125/meshes", (), b""), url, KEY)) == "eu-west-1"


def test_an_answer_s_headers_are_the_server_s_but_those_of_its_connection() -> None:
    given_headers = [("X-Amzn-RequestId", "1"), ("Connection", "close"), ("Content-Length", "5"), ("Date", "now")]
    assert passed_on(given_headers) == [(b"x-amzn-requestid", b"1"), (b"date", b"now")]
