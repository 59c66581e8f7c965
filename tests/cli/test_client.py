"""The CLI's HTTP: signed so that the server believes it, at whichever server answers, errors with their exit codes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli.client import APPMESH, MESHLOG, ApiClient, Target, find_target, pages, segment, sign
from cli.credentials import AdminCredentials
from cli.history import read_events
from cli.layout import Layout
from cli.resources import ResourceReader, find_kind
from identity.sigv4 import SignedRequest
from identity.verification import verify
from mesh.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    MeshlogError,
    NotAuthenticated,
    NotFound,
    ResourceInUse,
    SettingsError,
    Unavailable,
)
from mesh.principals import AccessKey
from runtime.clock import SystemClock

KEY = AdminCredentials("MLOGAAAABBBBCCCCDDDD", "secret", "123456789012", "eu-west-1")


class Seen(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Server:
    """An API server that answers what a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen], tuple[int, Any]]
        self.says(200, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                outer.seen.append(seen)
                status, document = outer.answer(seen)
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                if isinstance(document, dict) and "__type" in document:
                    self.send_header("x-amzn-errortype", document["__type"])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _do  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def says(self, status: int, document: Any) -> None:
        """Answer everything with this."""
        self.answer = lambda _: (status, document)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def client(*urls: str) -> ApiClient:
    return ApiClient(Target(urls, KEY))


@pytest.mark.parametrize("query", [None, {"mesh": "a b/β", "after": "1.2"}])
def test_what_is_signed_is_what_the_server_verifies(server: Server, query: dict[str, str] | None) -> None:
    with client(server.url) as api:
        api.get("/meshlog/v1/events", query)
        api.post("/meshlog/v1/rollback", {"mesh": "β"})
    known = AccessKey(
        access_key_id=KEY.access_key_id, secret=KEY.secret_access_key, account=KEY.account_id, principal="p", admin=True
    )
    for seen in server.seen:
        path, _, raw_query = seen.target.partition("?")
        request = SignedRequest(seen.method, path, raw_query, list(seen.headers.items()), seen.body)
        verified = verify(request, {KEY.access_key_id: known}.get, SystemClock().now_us(), [MESHLOG])
        assert verified.region == "eu-west-1"


def test_the_service_is_the_one_whose_api_it_is() -> None:
    for service in (APPMESH, MESHLOG):
        headers = sign("GET", "http://127.0.0.1:1/x", b"", KEY, service)
        assert f"/eu-west-1/{service}/aws4_request" in headers["Authorization"]


def test_a_dead_server_is_passed_over(server: Server, dead_url: str) -> None:
    server.says(200, {"events": [], "next": None})
    with client(dead_url, server.url) as api:
        assert api.get("/meshlog/v1/events")["events"] == []
        api.post("/meshlog/v1/rollback", {})
    assert len(server.seen) == 2


def test_a_read_is_asked_elsewhere_when_a_server_is_not_ready(server: Server) -> None:
    second = Server()
    try:
        server.says(503, {"message": "folding", "__type": "ServiceUnavailableException"})
        second.says(200, {"ok": 1})
        with client(server.url, second.url) as api:
            assert api.get("/x") == {"ok": 1}
    finally:
        second.close()


def test_a_change_is_not_sent_twice_unless_it_carries_a_token(server: Server) -> None:
    second = Server()
    try:
        server.says(503, {"message": "unknown outcome", "__type": "ServiceUnavailableException"})
        with client(server.url, second.url) as api:
            with pytest.raises(Unavailable, match="unknown outcome"):
                api.post("/x", {})
            assert second.seen == []
            api.post("/x", {"clientToken": "t"}, repeatable=True)
            assert len(second.seen) == 1
    finally:
        second.close()


def test_nobody_anywhere_is_one_clear_error(dead_url: str) -> None:
    with client(dead_url, dead_url) as api, pytest.raises(Unavailable, match="meshlog status") as raised:
        api.get("/x")
    assert raised.value.exit_code == 7


@pytest.mark.parametrize(
    ("status", "code", "error", "exit_code"),
    [
        (400, "BadRequestException", BadRequest, 1),
        (403, "ForbiddenException", Forbidden, 1),
        (403, "InvalidSignatureException", NotAuthenticated, 1),
        (404, "NotFoundException", NotFound, 4),
        (409, "ConflictException", Conflict, 5),
        (409, "ResourceInUseException", ResourceInUse, 5),
        (503, "ServiceUnavailableException", Unavailable, 7),
        (500, "InternalServerErrorException", MeshlogError, 1),
        (302, "", MeshlogError, 1),
    ],
)
def test_a_refusal_keeps_its_message_and_its_exit_code(
    server: Server, status: int, code: str, error: type[MeshlogError], exit_code: int
) -> None:
    server.says(status, {"message": "spec.x: is wrong", "__type": code})
    with client(server.url) as api, pytest.raises(error, match=r"spec\.x: is wrong") as raised:
        api.get("/x")
    assert type(raised.value) is error
    assert raised.value.exit_code == exit_code


def test_an_answer_that_is_not_json_says_who_gave_it(server: Server) -> None:
    server.says(500, b"<html>")
    with client(server.url) as api, pytest.raises(MeshlogError, match="answered HTTP 500"):
        api.get("/x")


def test_history_is_read_to_its_end(server: Server) -> None:
    def answer(seen: Seen) -> tuple[int, Any]:
        after = int(seen.target.partition("after=1.")[2] or 0)
        more = after + 2 < 5
        return 200, {"events": [{"position": after + n} for n in (1, 2)], "next": f"1.{after + 2}" if more else None}

    server.answer = answer
    with client(server.url) as api:
        events = list(read_events(api, {"mesh": "shop"}))
        assert [event["position"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert all("mesh=shop" in seen.target for seen in server.seen)


def test_pages_stop_at_the_last() -> None:
    assert pages(lambda token: ([token], {None: "a", "a": "b"}.get(token))) == [None, "a", "b"]


def test_names_are_one_segment_of_a_path(server: Server) -> None:
    assert segment("a/b c%β") == "a%2Fb%20c%25%CE%B2"
    with client(server.url) as api:
        ResourceReader(api, "m/1").describe(find_kind("vs"), None, "api.local")
    assert server.seen[0].target == "/v20190125/meshes/m%2F1/virtualServices/api.local"


@pytest.mark.parametrize(
    ("text", "name"),
    [("vn", "virtualNode"), ("virtual-nodes", "virtualNode"), ("VirtualService", "virtualService"),
     ("vr", "virtualRouter"), ("vg", "virtualGateway"), ("gr", "gatewayRoute"), ("routes", "route"),
     ("meshes", "mesh")],
)  # fmt: skip
def test_kinds_go_by_several_names(text: str, name: str) -> None:
    assert find_kind(text).name == name


def test_routes_are_found_under_all_routers(server: Server) -> None:
    def answer(seen: Seen) -> tuple[int, Any]:
        path = seen.target.partition("?")[0].removeprefix("/v20190125/meshes/m")
        found: dict[str, Any] = {
            "/virtualRouters": {"virtualRouters": [{"virtualRouterName": "r1"}, {"virtualRouterName": "r2"}]},
            "/virtualRouter/r1/routes": {"routes": [{"routeName": "a", "virtualRouterName": "r1"}]},
            "/virtualRouter/r2/routes": {"routes": [{"routeName": n, "virtualRouterName": "r2"} for n in ("a", "b")]},
            "/virtualRouter/r2/routes/b": {"routeName": "b", "spec": {}},
        }
        return 200, found[path]

    server.answer = answer
    with client(server.url) as api:
        reader = ResourceReader(api, "m")
        assert [ref["routeName"] for ref in reader.all(find_kind("route"), None, whole=False)] == ["a", "a", "b"]
        assert reader.describe(find_kind("route"), None, "b")["spec"] == {}
        with pytest.raises(SettingsError, match=r"r1, r2 all have a route 'a': choose with --router"):
            reader.describe(find_kind("route"), None, "a")


def test_an_endpoint_elsewhere_is_used_with_the_callers_key(tmp_path: Path) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "s", "MESHLOG_ENDPOINT": "http://far:1/"}
    target = find_target(Layout(tmp_path), environ)
    assert (target.urls, target.key.access_key_id) == (["http://far:1"], "AK")
    assert find_target(Layout(tmp_path), environ, endpoint="http://other:2").urls == ["http://other:2"]
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        find_target(Layout(tmp_path), {"MESHLOG_ENDPOINT": "http://far:1"})
