"""One appender under test, a process of its own: rounds in on stdin as JSON lines, figures out on stdout.

    meshlog   the API server's write path without HTTP: CommandService, Replica, LogWriter, EtcdDriver, hand-over
    raw       the yardstick: the same Txn (two compares, two puts) of opaque bytes through the same etcd client, with
              the same group commit (whatever waits goes into the next Txn), and nothing decided, sealed or folded

Callers are closed loops: each sends its next command when it has its last answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.commands import CommandService, Origin
from api.domain import MESH_DOMAIN
from api.outcomes import Ticket
from api.peers import Peers, PeerServer
from api.ports import Declined
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection, TlsFiles
from eventlog.driver import AppendResult, AppendTxn, Committed, HeadMoved
from eventlog.drivers.etcd import EtcdDriver
from eventlog.follower import Follower
from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.reads import HeadConfirmer
from eventlog.records import Head, HeadRef, KeyClass, genesis_head
from eventlog.writer import LogWriter
from mesh.commands import Command, Create, Update, idempotency_token
from mesh.errors import Unavailable
from mesh.fold import MESH_FOLD
from mesh.kinds import ResourceKey, mesh_key
from mesh.position import Position
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.collector import collect_as_a_server
from runtime.limits import GROUP_COMMANDS_MAX, THREAD_SWITCH_S
from runtime.logging import configure_logging
from runtime.settings import TlsFiles as RoleTls
from runtime.supervise import Supervisor
from runtime.tls import channel_credentials, server_credentials

ACCOUNT, PRINCIPAL, DOMAIN = "123456789012", "arn:aws:iam::123456789012:user/bench", "bench.local"
READY_S = 30.0


@dataclass
class Sent:
    """What went over the driver in a round."""

    events: int = 0
    frames: int = 0
    frame_bytes: int = 0
    lost: int = 0
    txn_s: list[float] = field(default_factory=list)


class CountingDriver(EtcdDriver):
    """An EtcdDriver that counts what it appends. Records in a frame are the difference of the two heads."""

    sent = Sent()

    async def append(self, txn: AppendTxn) -> AppendResult:
        began_s = time.perf_counter()
        result = await super().append(txn)
        self.sent.txn_s.append(time.perf_counter() - began_s)
        if isinstance(result, Committed):
            self.sent.events += txn.head.position - txn.expected.head.position
            self.sent.frames += 1
            self.sent.frame_bytes += len(txn.frame)
        else:
            self.sent.lost += isinstance(result, HeadMoved)
        return result


Do = Callable[[int, int], Awaitable[None]]
"""The n-th call of a caller."""


async def closed_loops(do: Do, callers: int, seconds: float) -> tuple[list[float], int]:
    """Latencies of the calls that were answered, and how many were told 503."""
    latencies: list[float] = []
    unavailable = 0
    end_s = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal unavailable
        call = 0
        while (began_s := time.perf_counter()) < end_s:
            try:
                await do(number, call)
                latencies.append(time.perf_counter() - began_s)
            except Unavailable:
                unavailable += 1
            call += 1

    await asyncio.gather(*map(caller, range(callers)))
    return latencies, unavailable


def node_spec(name: str, number: int) -> dict[str, Any]:
    """A virtual node's, small and usual."""
    port = {"port": 1024 + number % 50_000, "protocol": "http"}
    hostname = f"{name}.service.example.internal"
    return {"listeners": [{"portMapping": port}], "serviceDiscovery": {"dns": {"hostname": hostname}}}


class CountingPeers(Peers):
    """Peers that count what was taken off this appender's hands."""

    taken = 0

    async def hand_over(self, tickets: Sequence[Ticket], timeout_s: float) -> Position | Declined:
        answer = await super().hand_over(tickets, timeout_s)
        self.taken += 0 if isinstance(answer, Declined) else len(tickets)
        return answer


class Meshlog:
    """The write path of one API server."""

    def __init__(self, name: str, service: CommandService, replica: Replica, peers: CountingPeers) -> None:
        self._name, self._service, self._replica, self._peers = name, service, replica, peers
        self._mesh = f"bench-{name}"  # one each: a mesh has room for 200 virtual nodes
        self._round = 0
        self.acknowledged = 0

    async def prepare(self, round_: dict[str, Any]) -> None:
        """A resource for each caller."""
        self._round += 1
        mesh = mesh_key(ACCOUNT, self._mesh)
        if mesh not in self._replica.state.resources:
            await self._submit(Create(mesh, {}), "mesh")
        spec = self._spec(0)
        # As the API's edge hands commands in: it has checked their specs.
        missing = [key for key in map(self._key, range(round_["callers"])) if key not in self._replica.state.resources]
        await asyncio.gather(*(self._submit(Create(key, spec, checked=True), key.name) for key in missing))

    @property
    def handed_over(self) -> int:
        """Commands that others have done for this one."""
        return self._peers.taken

    async def call(self, caller: int, number: int) -> None:
        command = Update(self._key(caller), self._spec(number), checked=True)
        await self._submit(command, f"{self._round}-{caller}-{number}")

    def _key(self, caller: int) -> ResourceKey:
        return ResourceKey(ACCOUNT, self._mesh, "virtualNode", "", f"{self._name}-{caller}")

    def _spec(self, number: int) -> dict[str, Any]:
        return node_spec(self._name, number)

    async def _submit(self, command: Command, token: str) -> None:
        request_id = f"{self._name}-{token}"
        mark = idempotency_token(ACCOUNT, PRINCIPAL, "op", request_id, {})
        await self._service.submit(command, Origin(ACCOUNT, PRINCIPAL, "127.0.0.1", request_id, "op", mark))
        self.acknowledged += 1


class Raw:
    """The yardstick."""

    def __init__(self, driver: CountingDriver) -> None:
        self._driver = driver
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._head: HeadRef | None = None
        self._event_bytes = 0
        self.acknowledged = self.handed_over = 0

    async def prepare(self, round_: dict[str, Any]) -> None:
        self._event_bytes = round_["event_bytes"]
        await self._driver.create(genesis_head("raw"), {})
        self._head = await self._driver.read_head()

    async def call(self, caller: int, number: int) -> None:  # noqa: ARG002 - one shape for both
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        await done

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:GROUP_COMMANDS_MAX], self._waiting[GROUP_COMMANDS_MAX:]
            if not self._waiting:
                self._wake.clear()
            if batch:
                await self._commit(len(batch))
            for done in batch:
                done.set_result(None)

    async def _commit(self, events: int) -> None:
        while True:
            assert self._head is not None
            head = self._head.head
            fresh = Head(head.log_id, head.epoch, head.position + events, SystemEntropy().token_bytes(32))
            result = await self._driver.append(AppendTxn(self._head, bytes(events * self._event_bytes), fresh))
            if isinstance(result, Committed):
                self._head = HeadRef(fresh, result.mod_revision)
                return
            self._head = result.current if isinstance(result, HeadMoved) else await self._driver.read_head()


async def meshlog(
    stack: AsyncExitStack, supervisor: Supervisor, driver: CountingDriver, told: dict[str, Any]
) -> Meshlog:
    """Build the write path; returns when the log is folded."""
    clock, entropy = SystemClock(), SystemEntropy()
    keyring = Keyring(driver, file_keys(Path(told["keks"])))
    head = await driver.read_head()
    assert head is not None
    await keyring.load(head.head.log_id)
    replica = Replica(MESH_FOLD, Follower(driver, keyring, clock, entropy), HeadConfirmer(driver), clock)
    files = RoleTls(**{name: Path(path) for name, path in told["role_tls"].items()})
    peers = CountingPeers(lambda: channel_credentials(files), clock)
    await peers.know(told["peers"])
    service = CommandService(
        MESH_DOMAIN, replica, LogWriter(driver, keyring, clock, entropy), clock, entropy, peers=peers
    )
    taker = PeerServer(service, DOMAIN)
    await taker.start(told["peer"], server_credentials(files))
    stack.push_async_callback(taker.stop, 0)
    stack.push_async_callback(peers.close)
    supervisor.start(replica.run(), "replica")
    supervisor.start(service.run(), "commands")
    async with asyncio.timeout(READY_S):
        while not replica.ready:
            await clock.sleep(0.01)
    return Meshlog(told["name"], service, replica, peers)


def file_keys(directory: Path) -> dict[KeyClass, KeyProvider]:
    """The key files that `create_keys` made."""
    return {
        each: FileKeyProvider(directory / each.value, each, SystemEntropy())
        for each in {each.wrapped_by for each in KeyClass}
    }


def create_keys(directory: Path) -> dict[KeyClass, KeyProvider]:
    """Key files for a log of the bench's own."""
    directory.mkdir(parents=True, exist_ok=True)
    for each in {each.wrapped_by for each in KeyClass}:
        create_key_file(directory / each.value, each, SystemEntropy())
    return file_keys(directory)


async def run_round(tester: Meshlog | Raw, driver: CountingDriver, round_: dict[str, Any]) -> dict[str, Any]:
    """One round's figures. Waits for the parent's word between preparing and measuring."""
    await tester.prepare(round_)
    tell({"prepared": True})
    await heard()
    gc.collect()
    sent = driver.sent = Sent()
    handed_over = tester.handed_over
    began_s, cpu_s = time.perf_counter(), time.process_time()
    latencies, unavailable = await closed_loops(tester.call, round_["callers"], round_["seconds"])
    took_s = time.perf_counter() - began_s
    return {
        "took_s": took_s,
        "cpu_s": time.process_time() - cpu_s,
        "latencies_s": latencies,
        "unavailable": unavailable,
        "txn_s": sent.txn_s,
        "events": sent.events,
        "frames": sent.frames,
        "frame_bytes": sent.frame_bytes,
        "lost": sent.lost,
        "acknowledged": tester.acknowledged,
        "handed_over": tester.handed_over - handed_over,
    }


async def work(told: dict[str, Any]) -> None:
    """Serve rounds until the parent closes stdin."""
    members = [EtcdMember(*pair) for pair in told["members"]]
    tls = TlsFiles(*map(Path, told["tls"]))
    connection = EtcdConnection(members, told["zone"], tls, SystemClock(), SystemEntropy())
    driver = CountingDriver(connection, told["prefix"])
    async with AsyncExitStack() as stack:
        stack.callback(connection.close)
        supervisor = await stack.enter_async_context(Supervisor())
        tester: Meshlog | Raw
        if told["kind"] == "raw":
            tester = Raw(driver)
            supervisor.start(tester.run(), "raw")
        else:
            tester = await meshlog(stack, supervisor, driver, told)
        tell({"ready": True})
        while round_ := await heard():
            tell(await run_round(tester, driver, round_))


async def heard() -> Any:
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def tell(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    configure_logging("bench", "", "error")
    sys.setswitchinterval(THREAD_SWITCH_S)
    collect_as_a_server()
    asyncio.run(work(json.loads(sys.argv[1])))
