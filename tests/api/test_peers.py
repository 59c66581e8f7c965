"""Batches that change hands, over real gRPC with mutual TLS: whatever becomes of the taker, each token is one event.

The asker's own appends always lose here, so what it is asked for gets into the log through the taker or not at all,
until a test lets it win.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from api.commands import CommandService, Origin, Outcome
from api.domain import MESH_DOMAIN
from api.peer_wire import METHOD, HandedBatch, HandedCommand, encode_batch
from api.peers import ROLES_ALLOWED, Peers, PeerServer
from eventlog.drivers.memory import Fault, MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.reads import HeadConfirmer
from eventlog.records import HeadRef, NewRecord, Record
from eventlog.writer import Appended, LogWriter, LostRace, SealedAppend
from mesh.commands import Command, Create, Delete, IssueProxyIdentity, Update, idempotency_token
from mesh.errors import BadRequest, Conflict, NotFound, OutcomeUnknown, Unavailable
from mesh.fold import MESH_FOLD
from mesh.kinds import ResourceKey, mesh_key
from projector.replica import Replica
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import HAND_OVER_AFTER_LOSSES
from runtime.supervise import Supervisor
from tests.api.conftest import ACCOUNT, create_log, open_keyring
from tests.conditions import await_until
from tests.projector.feed import certificates

PRINCIPAL = "arn:aws:iam::123456789012:user/ann"


class LosingWriter:
    """Somebody else is always first, as long as `loses`."""

    def __init__(self, inner: LogWriter, driver: MemoryDriver) -> None:
        self._inner, self._driver = inner, driver
        self.loses = False
        self.lost = 0
        self.appended = 0

    async def seal(
        self, expected: HeadRef, records: Sequence[NewRecord], previous_time_us: int, wall_us: int
    ) -> SealedAppend:
        return await self._inner.seal(expected, records, previous_time_us, wall_us)

    async def send(self, sealed: SealedAppend) -> Appended | LostRace:
        if self.loses:
            head = await self._driver.read_head()
            assert head is not None
            self.lost += 1
            return LostRace(head)
        self.appended += 1
        return await self._inner.send(sealed)


@dataclass
class Server:
    service: CommandService
    replica: Replica
    writer: LosingWriter
    peers: Peers
    taker: PeerServer
    port: int

    async def do(self, command: Command, token: str, within_s: float | None = None) -> Outcome:
        name = type(command).__name__
        mark = idempotency_token(ACCOUNT, PRINCIPAL, name, token, {"command": repr(command)})
        origin = Origin(ACCOUNT, PRINCIPAL, "192.0.2.7", f"rq-{token}", name, mark)
        return await self.service.submit(command, origin, within_s=within_s)


@dataclass
class Pair:
    """The asker loses; the taker has just won."""

    store: MemoryStore
    asker: Server
    taker: Server
    supervisor: Supervisor

    async def log(self) -> list[Record]:
        found: list[Record] = []
        keyring = self.asker.writer._inner._keyring
        async for batch in Follower(MemoryDriver(self.store), keyring, SystemClock(), SystemEntropy()).follow():
            found += batch.records
            if batch.caught_up:
                break
        return [record for record in found if record.data and "key" in record.data]


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    clock, entropy = SystemClock(), SystemEntropy()
    store = MemoryStore()
    providers = await create_log(store, directory)
    servers = []
    async with Supervisor() as supervisor:
        for _ in range(2):
            driver = MemoryDriver(store)
            keyring = await open_keyring(driver, providers)
            replica = Replica(MESH_FOLD, Follower(driver, keyring, clock, entropy), HeadConfirmer(driver), clock)
            writer = LosingWriter(LogWriter(driver, keyring, clock, entropy, deadline_s=0.2), driver)
            peers = Peers(certificates.role("api").dialling, clock)
            service = CommandService(MESH_DOMAIN, replica, writer, clock, entropy, deadline_s=5.0, peers=peers)
            taker = PeerServer(service, certificates.DOMAIN)
            port = await taker.start("127.0.0.1:0", certificates.role("api").serving())
            supervisor.start(replica.run(), "replica")
            supervisor.start(service.run(), "commands")
            servers.append(Server(service, replica, writer, peers, taker, port))
        asker, taker_ = servers
        try:
            await await_until(lambda: all(server.replica.ready for server in servers))
            await taker_.do(Create(mesh_key(ACCOUNT, "first"), {}), "first")
            await asker.peers.know([f"127.0.0.1:{taker_.port}"])
            asker.writer.loses = True
            yield Pair(store, asker, taker_, supervisor)
        finally:
            await supervisor.close()
            for server in servers:
                await server.peers.close()
                await server.taker.stop(0)


def create(name: str) -> Create:
    return Create(mesh_key(ACCOUNT, name), {})


async def test_a_server_that_keeps_losing_has_its_commands_done_by_the_winner(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        asked = [it.asker.do(create(f"m{number}"), f"t{number}") for number in range(12)]
        outcomes = await asyncio.gather(*asked)
        assert it.asker.writer.appended == 0
        for number, outcome in enumerate(outcomes):
            assert outcome.resource is not None
            assert (outcome.resource.key.name, outcome.resource.changed_at) == (f"m{number}", outcome.position)
        records = (await it.log())[1:]
        assert sorted(record.request_id for record in records) == sorted(f"rq-t{number}" for number in range(12))
        assert {(record.account, record.actor, record.source_ip) for record in records} == {
            (ACCOUNT, PRINCIPAL, "192.0.2.7")
        }


async def test_a_rejection_is_the_askers_own_and_true_of_the_log(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        kept, gone, taken = await asyncio.gather(
            it.asker.do(create("m"), "t1"),
            it.asker.do(Delete(mesh_key(ACCOUNT, "absent")), "t2"),
            it.asker.do(create("first"), "t3"),
            return_exceptions=True,
        )
        assert isinstance(kept, Outcome)
        assert isinstance(gone, NotFound)
        assert isinstance(taken, Conflict)


async def test_what_cannot_travel_stays_and_takes_nobody_along(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        impossible = Update(mesh_key(ACCOUNT, "first"), {"egressFilter": {"type": 2**70}}, checked=True)
        key = IssueProxyIdentity(ResourceKey(ACCOUNT, "first", "virtualNode", "", "x"), "ab", 1)
        commands: list[Command] = [create("m"), impossible, key]
        asked = [it.asker.do(command, f"t{number}") for number, command in enumerate(commands)]
        made, bad, stays = (asyncio.ensure_future(one) for one in asked)
        assert (await made).resource is not None
        with pytest.raises(BadRequest):
            await bad
        assert not stays.done()
        it.asker.writer.loses = False
        assert (await stays).written


async def test_one_token_at_both_servers_is_one_event(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        for number in range(10):
            here, there = await asyncio.gather(
                *(server.do(create(f"m{number}"), f"t{number}") for server in (it.asker, it.taker))
            )
            assert (here.position, here.resource) == (there.position, there.resource)
        assert len(await it.log()) == 11


@pytest.mark.parametrize("role", ["frontend", "projector", "etcd"])
async def test_only_api_servers_hand_over(tmp_path: Path, role: str) -> None:
    assert ROLES_ALLOWED[METHOD] == {"api"}
    async with pair(tmp_path) as it:
        await refused(it.taker.port, certificates.role(role))
        assert len(await it.log()) == 1


async def test_an_api_server_of_another_trust_domain_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        await refused(it.taker.port, certificates.role("api", "elsewhere.test"))


async def refused(port: int, identity: certificates.Identity) -> None:
    options = [("grpc.ssl_target_name_override", "api.meshlog")]
    mark = idempotency_token(ACCOUNT, PRINCIPAL, "op", "t", {})
    batch = HandedBatch((HandedCommand(create("m"), Origin(ACCOUNT, PRINCIPAL, "", "rq", "op", mark)),), 1.0)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", identity.dialling(), options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call(encode_batch(batch), timeout=5.0)
    assert told.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_dead_taker_delays_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        await it.taker.taker.stop(0)
        asked = asyncio.ensure_future(it.asker.do(create("m"), "t"))
        await await_until(lambda: not it.asker.peers.any, what="the dead taker is not asked any more")
        it.asker.writer.loses = False
        assert (await asked).written
        with pytest.raises(NotFound):  # and nothing is in doubt
            await it.asker.do(Delete(mesh_key(ACCOUNT, "absent")), "t2")


async def test_a_taker_that_loses_itself_declines(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        it.taker.writer.loses = True
        losing = asyncio.ensure_future(it.taker.do(create("other"), "t0"))
        await await_until(lambda: not it.taker.service.winning)
        declined = it.asker.writer.lost + HAND_OVER_AFTER_LOSSES + 1
        asked = asyncio.ensure_future(it.asker.do(create("m"), "t"))
        await await_until(
            lambda: it.asker.writer.lost >= declined,
            what="the asker was declined, and tries itself",
        )
        assert not asked.done()
        it.asker.writer.loses = it.taker.writer.loses = False
        assert (await asked).written
        assert (await losing).written


async def test_what_a_taker_may_yet_write_is_refused_to_nobody_and_written_once(tmp_path: Path) -> None:
    """The taker's store answers it nothing: it works on the batch until its time is over, and lands it later."""
    async with pair(tmp_path) as it:
        it.store.fault_of = lambda _: Fault.LATE
        with pytest.raises(OutcomeUnknown, match="same clientToken"):
            await it.asker.do(create("m"), "t", within_s=2.5)
        it.store.fault_of = lambda _: Fault.NONE
        it.store.deliver()
        it.asker.writer.loses = False
        assert (await it.asker.do(create("m"), "t")).resource is not None
        assert [record.request_id for record in await it.log()] == ["rq-first", "rq-t"]


async def test_a_taker_that_ends_meanwhile_leaves_it_to_the_token(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        it.store.fault_of = lambda _: Fault.LATE
        asked = asyncio.ensure_future(it.asker.do(create("m"), "t"))
        await await_until(lambda: bool(it.store.in_flight), what="the taker appends")
        await it.taker.taker.stop(0)
        it.asker.writer.loses = False
        it.store.fault_of = lambda _: Fault.NONE
        it.store.deliver()
        assert (await asked).resource is not None
        assert [record.request_id for record in await it.log()] == ["rq-first", "rq-t"]


async def test_without_anybody_to_take_it_a_loser_says_what_it_knows(tmp_path: Path) -> None:
    async with pair(tmp_path) as it:
        await it.asker.peers.know([])
        with pytest.raises(Unavailable, match=r"(?i)nothing was written"):
            await it.asker.do(create("m"), "t", within_s=1.0)
        assert len(await it.log()) == 1
