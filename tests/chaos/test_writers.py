"""The writer against a stand-in API server: an answer is believed, silence and 5xx are retried with the same token."""

from __future__ import annotations

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chaos.cluster import appmesh_client
from chaos.writers import ACKED, REFUSED, UNKNOWN, Write, Writer
from runtime.ports import free_port
from tests.conditions import eventually

ENVIRONMENT = {"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}


class StandIn:
    """Answers each PUT with the next of `script` (HTTP statuses, or 0 for a cut connection), then with 200 for ever."""

    def __init__(self, script: list[int]) -> None:
        self.script = iter([*script])
        self.tokens: list[str] = []
        self.positions = itertools.count(1)
        self.versions: dict[str, int] = defaultdict(int)
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            self.tokens.append(body["clientToken"])
            status = next(self.script, 200)
            name = body.get("routeName") or handler.path.rpartition("/")[2]
            if status == 200:
                self.versions[name] += 1
            position = next(self.positions)
        if status == 0:
            handler.close_connection = True
            return
        payload: dict[str, Any] = {"message": "no"}
        if status == 200:
            payload = {"routeName": name, "metadata": {"version": self.versions[name], "uid": f"uid-{name}"}}
        data = json.dumps(payload).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(data)))
        handler.send_header("x-meshlog-position", f"1.{position}")
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def stand_in(*script: int) -> Iterator[tuple[StandIn, str]]:
    state = StandIn(list(script))

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def writes_of(url: str, count: int, give_up_s: float = 10.0) -> list[Write]:
    clients = {"only": appmesh_client(url, ENVIRONMENT)}
    writer = Writer("w", clients, mesh="m", router="r", target="t", seed=3, pause_s=0.0, give_up_s=give_up_s).start()
    eventually(lambda: len(writer.snapshot()) >= count, what=f"{count} writes")
    return writer.stop()[:count]


def test_an_answer_is_an_acknowledgement_with_its_position_and_version() -> None:
    with stand_in() as (_, url):
        writes = writes_of(url, 3)
    assert [write.outcome for write in writes] == [ACKED] * 3
    assert [write.position for write in writes] == ["1.1", "1.2", "1.3"]
    assert writes[0].verb == "create"
    assert writes[0].uid == f"uid-{writes[0].resource}"


def test_a_5xx_and_a_cut_connection_are_retried_with_the_same_token() -> None:
    with stand_in(503, 0, 200) as (state, url):
        writes = writes_of(url, 2)
    assert [write.attempts for write in writes] == [3, 1]
    assert len(set(state.tokens[:3])) == 1
    assert state.tokens[3] != state.tokens[0]
    assert writes[0].outcome == ACKED


def test_a_4xx_is_a_refusal_and_not_retried() -> None:
    with stand_in(409) as (state, url):
        writes = writes_of(url, 2)
    assert [write.outcome for write in writes] == [REFUSED, ACKED]
    assert state.tokens[0] != state.tokens[1]


def test_a_call_that_never_gets_an_answer_is_unknown_and_not_failed() -> None:
    with stand_in(*[503] * 1000) as (_, url):
        writes = writes_of(url, 1, give_up_s=0.5)
    assert [write.outcome for write in writes] == [UNKNOWN]
    assert writes[0].attempts > 1


def test_a_server_that_is_down_is_retried_elsewhere_and_not_an_error() -> None:
    with stand_in() as (_, url):
        clients = {
            "down": appmesh_client(f"http://127.0.0.1:{free_port()}", ENVIRONMENT),
            "up": appmesh_client(url, ENVIRONMENT),
        }
        writer = Writer("w", clients, mesh="m", router="r", target="t", seed=3, pause_s=0.0).start()
        eventually(lambda: len(writer.snapshot()) >= 8, what="eight writes")
        writes = writer.stop()
    assert {write.outcome for write in writes} == {ACKED}
    assert any(write.attempts == 2 for write in writes)
