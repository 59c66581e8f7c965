"""Open-loop HTTP traffic on a fixed schedule, every request logged.

Stage: the witness of I3. Turns (address, rate) into a list of `Sample`s. A request starts when the schedule says so,
whether or not earlier ones were answered, and its latency counts from that moment, so that a stall cannot hide the
requests that it delayed. It must never retry: a request that was not answered with a 2xx is a failed request.

Connections are kept alive for `requests_per_connection` requests, so that both new and long-lived connections are seen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from chaos.upstream import NAME_HEADER

REQUEST_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = REQUEST_TIMEOUT_S + 5.0
NO_STATUS = 0
BODY_KEPT_BYTES = 300
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `at_s` is its scheduled start (monotonic), `late_ms` how late the generator itself sent it,
    `latency_ms` from the scheduled start to the last byte, `status` 0 when there was no answer. `body`: the beginning
    of an answer that is not a 2xx, in which Envoy says why it gave it."""

    at_s: float
    late_ms: float
    latency_ms: float
    status: int
    upstream: str
    error: str
    body: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300 and not self.error


@dataclass(frozen=True)
class TrafficReport:
    """What a run saw. `scheduled` is how many requests the schedule asked for; each has exactly one sample. `began_s`:
    monotonic seconds, as the samples' `at_s`.
    """

    scheduled: int
    seconds: float
    samples: Sequence[Sample] = field(repr=False)
    began_s: float = 0.0

    @property
    def failed(self) -> list[Sample]:
        return [sample for sample in self.samples if not sample.ok]

    def counts(self, since_s: float = float("-inf"), until_s: float = float("inf")) -> Counter[str]:
        """How many requests each upstream answered among those that were due in [since_s, until_s)."""
        return Counter(sample.upstream for sample in self.samples if sample.ok and since_s <= sample.at_s < until_s)

    def failures(self) -> list[str]:
        """A line for each failed request: when it was due since the traffic began, what became of it and how late."""
        return [
            f"due at {sample.at_s - self.began_s:.3f} s, sent {sample.late_ms:.0f} ms late, ended after "
            f"{sample.latency_ms:.0f} ms: status {sample.status} {sample.error} {sample.body}".rstrip()
            for sample in self.failed
        ]

    def explained(self, counters: Mapping[str, int]) -> str:
        """The first failed requests beside what the proxy counted of failures."""
        return "\n".join([*self.failures()[:FAILURES_SHOWN], f"the proxy counted {dict(counters)}"])

    def summary(self) -> dict[str, Any]:
        latencies = [sample.latency_ms for sample in self.samples if sample.ok]
        return {
            "scheduled": self.scheduled,
            "answered": len(self.samples),
            "failed": len(self.failed),
            "seconds": round(self.seconds, 3),
            "rate_per_s": round(len(self.samples) / self.seconds, 1) if self.seconds else 0.0,
            "latency_ms": quantiles(latencies),
            "late_ms": quantiles([sample.late_ms for sample in self.samples]),
            "upstreams": dict(sorted(self.counts().items())),
            "first_failures": self.failures()[:FAILURES_SHOWN],
        }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """n, p50, p99 and max by nearest rank; an empty input has n 0 and no figures."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return {"n": len(ordered), "p50": rank(0.50), "p99": rank(0.99), "max": round(ordered[-1], 3)}


class _Connection:
    """One HTTP/1.1 connection and how many requests it still may carry."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uses_left: int) -> None:
        self.reader = reader
        self.writer = writer
        self.uses_left = uses_left

    async def ask(self, request: bytes) -> tuple[int, str, str]:
        """Send and read one answer with a content-length or chunked body; returns (status, upstream name, body)."""
        self.uses_left -= 1
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        body = b""
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:size]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        if headers.get(b"connection", b"").lower() == b"close":
            self.uses_left = 0
        told = body[:BODY_KEPT_BYTES].decode(errors="replace") if status >= 300 else ""
        return status, headers.get(NAME_HEADER.encode(), b"").decode(), told

    @property
    def reusable(self) -> bool:
        # A peer that said goodbye while the connection was idle is seen here, and not as a failed request.
        return self.uses_left > 0 and not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        self.writer.close()


class Traffic:
    """Runs in a thread with its own event loop: `start()`, then `stop()` for the report. Also a context manager."""

    def __init__(
        self, host: str, port: int, *, rate_per_s: float, path: str = "/", requests_per_connection: int = 20
    ) -> None:
        self._host = host
        self._port = port
        self._interval_s = 1.0 / rate_per_s
        self._requests_per_connection = requests_per_connection
        self._request = f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: meshlog-chaos\r\n\r\n".encode()
        self._idle: list[_Connection] = []
        self._samples: list[Sample] = []
        self._scheduled = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic", daemon=True)
        self._began_s = 0.0

    def start(self) -> Traffic:
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def stop(self) -> TrafficReport:
        """Schedule no more, wait for the answers to what was sent, and report."""
        self._stopping.set()
        self._thread.join(DRAIN_TIMEOUT_S)
        return TrafficReport(self._scheduled, time.monotonic() - self._began_s, self.snapshot(), self._began_s)

    def snapshot(self) -> list[Sample]:
        """What was answered so far, in order of answers; safe from any thread while it runs."""
        return list(self._samples)

    def recent(self, count: int) -> list[Sample]:
        """The newest `count` answers."""
        return self._samples[-count:]

    async def _run(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        due_s = time.monotonic()
        while not self._stopping.is_set():
            now_s = time.monotonic()
            if now_s < due_s:
                await asyncio.sleep(due_s - now_s)
                continue
            self._scheduled += 1
            task = loop.create_task(self._one(due_s))
            pending.add(task)
            task.add_done_callback(pending.discard)
            due_s += self._interval_s
        if pending:
            await asyncio.wait(pending, timeout=REQUEST_TIMEOUT_S + 1.0)
        for connection in self._idle:
            connection.close()

    async def _one(self, due_s: float) -> None:
        sent_s = time.monotonic()
        status, upstream, error, body = NO_STATUS, "", "", ""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                status, upstream, body = await self._exchange()
        except TimeoutError:
            error = f"no answer within {REQUEST_TIMEOUT_S} s"
        except (OSError, asyncio.IncompleteReadError, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        self._samples.append(
            Sample(
                at_s=due_s,
                late_ms=(sent_s - due_s) * 1e3,
                latency_ms=(time.monotonic() - due_s) * 1e3,
                status=status,
                upstream=upstream,
                error=error,
                body=body,
            )
        )

    async def _exchange(self) -> tuple[int, str, str]:
        connection = await self._connection()
        try:
            answer = await connection.ask(self._request)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        reader, writer = await asyncio.open_connection(self._host, self._port)
        return _Connection(reader, writer, self._requests_per_connection)

    def __enter__(self) -> Traffic:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._stopping.is_set():
            self.stop()


def ask_many(host: str, port: int, count: int, *, path: str = "/", rate_per_s: float = 400.0) -> TrafficReport:
    """Exactly `count` requests on the schedule; what a weight check counts."""
    traffic = Traffic(host, port, rate_per_s=rate_per_s, path=path)
    with traffic:
        deadline_s = time.monotonic() + count / rate_per_s + DRAIN_TIMEOUT_S
        while len(traffic.snapshot()) < count and time.monotonic() < deadline_s:
            time.sleep(0.005)
    report = traffic.stop()
    return TrafficReport(min(report.scheduled, count), report.seconds, report.samples[:count], report.began_s)
