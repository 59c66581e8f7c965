"""The traffic generator against a plain upstream: each request is logged once, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack

from chaos.traffic import Traffic, ask_many, quantiles
from chaos.upstream import UpstreamProcess
from runtime.ports import free_port
from tests.conditions import PATIENCE_S, eventually


def test_every_request_is_answered_and_names_its_upstream() -> None:
    with UpstreamProcess("blue") as upstream:
        report = ask_many("127.0.0.1", upstream.port, 200)
    assert report.scheduled == len(report.samples) == 200
    assert report.failed == []
    assert report.counts() == {"blue": 200}


def test_an_upstream_answers_both_address_families() -> None:
    with UpstreamProcess("blue") as upstream:
        assert not ask_many("127.0.0.1", upstream.port, 5).failed
        if socket.has_dualstack_ipv6():
            assert not ask_many("::1", upstream.port, 5).failed


def test_the_schedule_does_not_wait_for_answers() -> None:
    """A server that accepts and stays silent delays no later request: the loop is open."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        traffic = Traffic("127.0.0.1", silent.getsockname()[1], rate_per_s=200.0).start()
        eventually(lambda: traffic._scheduled >= 50, what="fifty scheduled requests")
        assert traffic.snapshot() == []
    assert traffic.stop().failed, "nobody is there any more"


def test_a_refused_connection_is_a_failed_request() -> None:
    report = ask_many("127.0.0.1", free_port(), 10)
    assert len(report.failed) == 10
    assert all("Refused" in sample.error or "Errno 111" in sample.error for sample in report.failed)


def test_an_upstream_that_dies_is_seen_from_that_moment_on() -> None:
    upstream = UpstreamProcess("blue")
    traffic = Traffic("127.0.0.1", upstream.port, rate_per_s=200.0).start()
    eventually(lambda: len(traffic.snapshot()) > 20, what="traffic")
    killed_s = time.monotonic()
    upstream.stop()
    eventually(lambda: any(not sample.ok for sample in traffic.snapshot()), what="a failed request")
    report = traffic.stop()
    assert report.scheduled == len(report.samples)
    assert all(sample.ok for sample in report.samples if sample.at_s + sample.latency_ms / 1e3 < killed_s)
    assert not [sample for sample in report.samples if sample.ok and sample.at_s > killed_s + 1.0]


def test_a_stalled_upstream_drops_no_connection() -> None:
    """What waits while it is stopped is answered when it goes on; a queue of 100 would turn the others away."""
    with UpstreamProcess("blue") as upstream, ExitStack() as held:
        os.kill(upstream.pid, signal.SIGSTOP)
        waiting = [
            held.enter_context(socket.create_connection(("127.0.0.1", upstream.port), timeout=PATIENCE_S))
            for _ in range(400)
        ]
        for connection in waiting:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        os.kill(upstream.pid, signal.SIGCONT)
        assert all(connection.recv(4096).startswith(b"HTTP/1.1 200 OK") for connection in waiting)


def test_a_failed_request_keeps_what_is_known_of_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 18\r\n\r\nconnection timeout"
        thread = threading.Thread(target=serve_once, args=(listener, answer))
        thread.start()
        report = ask_many("127.0.0.1", listener.getsockname()[1], 1, rate_per_s=1.0)
        thread.join(PATIENCE_S)
    (line,) = report.failures()
    assert line.startswith("due at 0.0")
    assert line.endswith("status 503  connection timeout")
    assert report.summary()["first_failures"] == [line]


def serve_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def test_a_cut_body_is_a_failed_request_though_the_status_is_200() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
        thread = threading.Thread(target=serve_once, args=(listener, answer))
        thread.start()
        report = ask_many("127.0.0.1", listener.getsockname()[1], 1, rate_per_s=1.0)
        thread.join(PATIENCE_S)
    assert [sample.ok for sample in report.samples] == [False]


def test_a_chunked_answer_is_read_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-upstream: c\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        thread = threading.Thread(target=serve_once, args=(listener, answer))
        thread.start()
        report = ask_many("127.0.0.1", listener.getsockname()[1], 1, rate_per_s=1.0)
        thread.join(PATIENCE_S)
    assert [(sample.ok, sample.upstream) for sample in report.samples] == [(True, "c")]


def test_an_upstream_process_ends_when_its_parent_lets_go() -> None:
    upstream = UpstreamProcess("blue")
    assert upstream._process.stdin is not None
    upstream._process.stdin.close()
    assert upstream._process.wait(PATIENCE_S) == 0
    upstream.stop()


def test_quantiles_are_ranks_and_tell_their_n() -> None:
    assert quantiles([]) == {"n": 0}
    assert quantiles([float(value) for value in range(1, 101)]) == {"n": 100, "p50": 51.0, "p99": 100.0, "max": 100.0}
