"""Bad input gets AWS's error shape and a message that names what is wrong; nothing is appended; the server stays up."""

from __future__ import annotations

import datetime
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from chaos import checks
from chaos.cluster import Cluster
from tests.e2e.conftest import Connect

MESH = "bad-input"
ROUTE = {
    "httpRoute": {
        "match": {"prefix": "/"},
        "action": {"weightedTargets": [{"virtualNode": "nobody", "weight": 1}]},
    }
}


@pytest.fixture(scope="module")
def client(connect: Connect) -> Any:
    client = connect(parameter_validation=False, retries={"total_max_attempts": 1})
    client.create_mesh(meshName=MESH)
    client.create_virtual_router(
        meshName=MESH,
        virtualRouterName="r",
        spec={"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]},
    )
    return client


@pytest.fixture(autouse=True)
def _nothing_is_appended(client: Any) -> Iterator[None]:
    before = log_position(client)
    yield
    assert log_position(client) == before


def log_position(client: Any) -> str:
    """Where the log ends, as a linearizable read tells; that it answers says that the server is still up."""
    answer = client.describe_mesh(meshName=MESH)
    return str(answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"])


def test_the_guard_of_these_tests_sees_an_event(cluster: Cluster, client: Any) -> None:
    assert checks.position_of(cluster.log()[-1]) == log_position(client)


def refusal(call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    return dict(refused.value.response)


def ask(connect: Connect, method: str, path: str, body: bytes, **changes: Any) -> tuple[int, dict[str, str], bytes]:
    """A request signed with `secret`, dated `shift`, and with `headers` set after signing."""
    secret = changes.get("secret", connect.environment["AWS_SECRET_ACCESS_KEY"])
    url = connect.urls[0] + path
    request = AWSRequest(method=method, url=url, data=body, headers={"content-type": "application/json"})
    signer = SigV4Auth(Credentials(connect.environment["AWS_ACCESS_KEY_ID"], secret), "appmesh", "us-west-2")
    if "shift" in changes:
        signer = _shifted(signer, changes["shift"])
    signer.add_auth(request)
    headers = {**dict(request.headers.items()), **changes.get("headers", {})}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10.0)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _shifted(signer: SigV4Auth, shift: datetime.timedelta) -> SigV4Auth:
    class Shifted(SigV4Auth):  # type: ignore[misc]
        def add_auth(self, request: AWSRequest) -> None:
            stamp = (datetime.datetime.now(datetime.UTC) + shift).strftime("%Y%m%dT%H%M%SZ")
            request.context["timestamp"] = stamp
            self._modify_request_before_signing(request)
            canonical = self.canonical_request(request)
            signature = self.signature(self.string_to_sign(request, canonical), request)
            self._inject_signature_to_request(request, signature)

    return Shifted(signer.credentials, "appmesh", "us-west-2")


def test_the_signing_of_these_tests_is_right(connect: Connect) -> None:
    status, _, body = ask(connect, "GET", f"/v20190125/meshes/{MESH}", b"")
    assert status == 200, body


def test_an_unknown_field_is_named(client: Any, connect: Connect) -> None:
    body = json.dumps({"meshName": "x1", "spec": {"egressFilterr": {"type": "DROP_ALL"}}}).encode()
    status, headers, answer = ask(connect, "PUT", "/v20190125/meshes", body)
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("BadRequestException")
    assert "egressFilterr" in json.loads(answer)["message"]


def test_a_wrong_type_is_named(client: Any, connect: Connect) -> None:
    spec = {"listeners": [{"portMapping": {"port": "eighty", "protocol": "http"}}]}
    body = json.dumps({"virtualNodeName": "n", "spec": spec}).encode()
    status, headers, answer = ask(connect, "PUT", f"/v20190125/meshes/{MESH}/virtualNodes", body)
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("BadRequestException")
    assert "port" in json.loads(answer)["message"]


def test_a_body_that_is_no_json_is_refused(connect: Connect) -> None:
    status, headers, _ = ask(connect, "PUT", "/v20190125/meshes", b"{")
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("BadRequestException")


def test_a_dangling_route_target_is_named(client: Any) -> None:
    answer = refusal(client.create_route, meshName=MESH, virtualRouterName="r", routeName="x", spec=ROUTE)
    assert answer["Error"]["Code"] == "NotFoundException"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert "nobody" in answer["Error"]["Message"]


def test_a_body_of_100_mib_is_refused_before_it_is_read(connect: Connect) -> None:
    """Only the head is sent. The answer must come although not one byte of the body was."""
    parts = urlsplit(connect.urls[0])
    head = (
        f"PUT /v20190125/meshes HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {100 * 1024 * 1024}\r\n\r\n"
    )
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=10.0) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]


def test_a_chunked_body_without_end_is_refused_too(connect: Connect) -> None:
    """No content-length to believe: the bytes themselves are counted."""
    parts = urlsplit(connect.urls[0])
    head = f"PUT /v20190125/meshes HTTP/1.1\r\nhost: {parts.netloc}\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=10.0) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(1600):
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        else:
            pytest.fail(f"{sent} bytes were taken")
    assert sent < 32 * 1024 * 1024


def test_a_wrong_signature_is_refused(connect: Connect) -> None:
    body = json.dumps({"meshName": "x2"}).encode()
    status, headers, _ = ask(connect, "PUT", "/v20190125/meshes", body, secret="not-the-secret")
    assert status == 403
    assert headers["x-amzn-errortype"]


def test_a_changed_body_is_refused(connect: Connect) -> None:
    status, _, _ = ask(
        connect, "PUT", "/v20190125/meshes", b'{"meshName":"x3"}', headers={"x-amz-date": "20200101T000000Z"}
    )
    assert status == 403


def test_an_expired_date_is_refused_and_says_so(connect: Connect) -> None:
    body = json.dumps({"meshName": "x4"}).encode()
    status, headers, answer = ask(connect, "PUT", "/v20190125/meshes", body, shift=datetime.timedelta(hours=-1))
    assert status == 403
    assert headers["x-amzn-errortype"].startswith("InvalidSignatureException")
    assert "expired" in json.loads(answer)["message"].lower()


def test_no_credentials_are_refused_and_say_so(connect: Connect) -> None:
    connection = http.client.HTTPConnection(urlsplit(connect.urls[0]).netloc, timeout=10.0)
    connection.request("PUT", "/v20190125/meshes", b'{"meshName":"x5"}')
    answer = connection.getresponse()
    assert answer.status == 403
    assert (answer.getheader("x-amzn-errortype") or "").startswith("MissingAuthenticationTokenException")
    connection.close()
