"""Which server a request goes to, and what is done when one does not answer: the rules of failing over.

Servers are asked in order of preference, those that failed lately last. A request that reached nobody goes to the next
one, whatever it is. One that may have been carried out goes on only where sending it twice does it once; any other is
answered that this is not known. A probe finds servers that take connections and answer nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from connect.requests import CallerKey, Reply, Request, repeatable, signed, stripped
from connect.upstream import BrokenError, NotSentError, Upstream
from mesh.errors import OutcomeUnknown, Unavailable
from runtime.clock import Clock
from runtime.limits import (
    CONNECT_ATTEMPT_S,
    CONNECT_PATIENCE_S,
    CONNECT_PROBE_EVERY_S,
    CONNECT_PROBE_S,
    CONNECT_ROUND_PAUSE_S,
    CONNECT_THREADS_MAX,
    CONNECT_TOTAL_S,
)

_PROBE = Request("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", (), b"")
_UNAVAILABLE = 503

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long what is waited for; the reasons are in runtime.limits."""

    attempt_s: float = CONNECT_ATTEMPT_S
    total_s: float = CONNECT_TOTAL_S
    nobody_s: float = CONNECT_PATIENCE_S
    probe_s: float = CONNECT_PROBE_S
    probe_every_s: float = CONNECT_PROBE_EVERY_S


class _Failure(NamedTuple):
    """A server that gave no answer, and whether it may have carried the request out."""

    reason: str
    sent: bool


class _Server:
    """A server, and whether it answered when it was last asked."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.healthy = True
        self.lost = asyncio.Event()
        """Set while it is known not to answer: who waits for it need not."""


class Relay:
    """Passes requests on to `upstreams`, in order of preference, signed by `key`."""

    def __init__(
        self, upstreams: Sequence[Upstream], key: CallerKey, clock: Clock, say: Say, patience: Patience = Patience()
    ) -> None:
        self._servers = [_Server(upstream) for upstream in upstreams]
        self._key, self._clock, self._say, self._patience = key, clock, say, patience
        self._threads = ThreadPoolExecutor(CONNECT_THREADS_MAX, thread_name_prefix="connect")

    def close(self) -> None:
        """Close connections; what still waits for a server is left to its time-out."""
        for server in self._servers:
            server.upstream.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, request: Request) -> Reply:
        """The answer of the first server that gives one. Unavailable, OutcomeUnknown."""
        plain, again = stripped(request), repeatable(request)
        began_s = self._clock.monotonic_s()
        while True:
            refused, failures = None, []
            for server in sorted(self._servers, key=lambda each: not each.healthy):
                left_s = max(1.0, self._patience.total_s - (self._clock.monotonic_s() - began_s))
                outcome = await self._attempt(server, plain, min(self._patience.attempt_s, left_s), patient=not again)
                if isinstance(outcome, Reply):
                    if outcome.status != _UNAVAILABLE or not again:
                        return outcome
                    refused = outcome
                    continue
                if outcome.sent and not again:
                    raise OutcomeUnknown(_not_known(server, outcome))
                failures.append(f"{server.upstream.url}: {outcome.reason}")
            if refused is not None:
                return refused
            if self._clock.monotonic_s() - began_s > self._patience.nobody_s:
                raise Unavailable(
                    f"No API server of the cluster answers ({'; '.join(failures)}). See `meshlog status`."
                )
            await self._clock.sleep(CONNECT_ROUND_PAUSE_S)

    def probes(self) -> list[Coroutine[None, None, None]]:
        """One loop for each server, to be supervised: finds one that hangs, and one that is back."""
        return [self._probe(server) for server in self._servers]

    async def _probe(self, server: _Server) -> None:
        while True:
            found = await self._exchange(server, _PROBE, self._patience.probe_s)
            self._heard(server, found.reason if isinstance(found, _Failure) else None)
            await self._clock.sleep(self._patience.probe_every_s)

    async def _attempt(self, server: _Server, request: Request, timeout_s: float, *, patient: bool) -> Reply | _Failure:
        """One server's answer. Who may ask another one does not wait for a server that is known to hang."""
        asked = asyncio.ensure_future(self._exchange(server, request, timeout_s))
        if not patient and server.healthy:
            lost = asyncio.ensure_future(server.lost.wait())
            await asyncio.wait((asked, lost), return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            if not asked.done():
                asked.cancel()
                return _Failure("it answers nobody", sent=True)
        outcome = await asked
        self._heard(server, outcome.reason if isinstance(outcome, _Failure) else None)
        return outcome

    async def _exchange(self, server: _Server, request: Request, timeout_s: float) -> Reply | _Failure:
        work = partial(self._blocking, server.upstream, request, timeout_s)
        try:
            async with asyncio.timeout(timeout_s + 1):  # the socket's own time-out is for one read, not for all
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            return _Failure("no answer in time", sent=True)
        except NotSentError as error:
            return _Failure(str(error), sent=False)
        except BrokenError as error:
            return _Failure(str(error), sent=True)

    def _blocking(self, upstream: Upstream, request: Request, timeout_s: float) -> Reply:
        return upstream.send(signed(request, upstream.url, self._key), timeout_s)

    def _heard(self, server: _Server, failure: str | None) -> None:
        if failure is None and not server.healthy:
            server.healthy = True
            server.lost.clear()
            self._say(f"{server.upstream.url} answers again")
        elif failure is not None and server.healthy:
            server.healthy = False
            server.lost.set()
            others = [each.upstream.url for each in self._servers if each.healthy]
            rest = f"using {others[0]}" if others else "no other server answers either"
            self._say(f"{server.upstream.url} does not answer ({failure}): {rest}")


def _not_known(server: _Server, failure: _Failure) -> str:
    return (
        f"The connection to {server.upstream.url} failed after the request was sent ({failure.reason}). Whether it was "
        "carried out is not known, and it has no clientToken, nor an SDK's id, under which it could safely be sent "
        "again: look, then repeat it."
    )
