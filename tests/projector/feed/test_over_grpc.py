"""The feed over real gRPC with mutual TLS on loopback: clients, servers that die, lag and refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
import pytest

from identity.node_id import NodeId
from projector.feed.client import FeedClient, secure_channels
from projector.feed.port import Confirmation, SnapshotFeed
from projector.feed.server import ROLES_ALLOWED
from projector.feed.wire import (
    METHOD,
    Confirm,
    FrontendHello,
    Heartbeat,
    ProjectorHello,
    SnapshotFrame,
    Subscribe,
    decode_from_projector,
    encode,
)
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import FEED_REQUEST_BYTES_MAX
from runtime.supervise import Supervisor
from tests.conditions import PATIENCE_S, await_until
from tests.projector.feed import certificates
from tests.projector.feed.running import Ear, Projector
from tests.projector.feed.worlds import CART, EDGE, ToldSource, World, at

ZONES = ("a", "b", "c")


@dataclass
class Cluster:
    """Three zones' projectors over one world, and a frontend in zone a."""

    world: World
    projectors: dict[str, Projector]
    client: FeedClient
    sources: dict[str, ToldSource]

    def fold(self) -> None:
        for source in self.sources.values():
            source.fold()

    @property
    def listening(self) -> str | None:
        return self.client.projector[0] if self.client.projector else None


@asynccontextmanager
async def cluster(prepare: Callable[[dict[str, ToldSource]], None] | None = None) -> AsyncIterator[Cluster]:
    world = World()
    world.change(CART, "x", text="1")
    sources = {zone: ToldSource(world) for zone in ZONES}
    for source in sources.values():
        source.fold()
    if prepare is not None:
        prepare(sources)
    async with Supervisor() as tasks:
        projectors = {zone: Projector(zone, sources[zone], tasks) for zone in ZONES}
        for projector in projectors.values():
            await projector.start()
        client = FeedClient(
            zone="a",
            projectors=[(each.zone, each.address) for each in projectors.values()],
            channels=secure_channels(certificates.role("frontend").dialling),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            frontend_id="frontend-a",
            frontend_address="127.0.0.1:7412",
        )
        tasks.start(client.run(), "client")
        yield Cluster(world, projectors, client, sources)
        await tasks.close()
        for projector in projectors.values():
            if projector.server is not None:
                await projector.server.stop()


def is_a_feed(client: FeedClient) -> SnapshotFeed:
    """mypy checks here that the client is what xds asks for."""
    return client


async def test_a_watch_is_told_at_once_and_at_each_change() -> None:
    async with cluster() as c:
        ear = Ear()
        assert not is_a_feed(c.client).ready
        c.client.watch(CART, ear)
        await await_until(lambda: ear.latest == {"x": "x=1"})
        assert c.listening == "a"
        c.world.change(CART, "x", "y", text="2")
        c.fold()
        await await_until(lambda: ear.latest == {"x": "x=2", "y": "y=2"})
        c.world.delete(CART)
        c.fold()
        await await_until(lambda: ear.updates[-1].snapshot is None)
        assert ear.updates[-1].position == at(3)


async def test_a_node_that_nobody_watches_any_more_is_forgotten_by_the_projector() -> None:
    async with cluster() as c:
        one, two = c.client.watch(CART, Ear()), c.client.watch(CART, Ear())
        await await_until(lambda: c.sources["a"].nodes == {CART})
        one.close()
        two.close()
        two.close()
        await await_until(lambda: not c.sources["a"].nodes)


async def test_a_confirm_comes_after_everything_up_to_its_head() -> None:
    async with cluster() as c:
        ear, other = Ear(), Ear()
        c.client.watch(CART, ear)
        c.client.watch(EDGE, other)
        c.world.change(CART, "x", text="2")
        c.world.change(EDGE, "x", text="3")
        answer = await c.client.confirm(60.0)
        assert answer == Confirmation(True, at(3))
        assert ear.latest == {"x": "x=2"}
        assert other.latest == {"x": "x=3"}


async def test_confirms_of_many_share_few_reads() -> None:
    async with cluster() as c:
        await await_until(lambda: c.client.ready)
        before = c.sources["a"].reads
        answers = await asyncio.gather(*(c.client.confirm(60.0) for _ in range(200)))
        assert all(answer.ok for answer in answers)
        assert c.sources["a"].reads - before <= 5


async def test_without_a_quorum_a_confirm_says_no_in_time_and_yes_when_there_is_one_again() -> None:
    async with cluster() as c:
        await await_until(lambda: c.client.ready)
        for source in c.sources.values():
            source.quorum = False
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        assert await c.client.confirm(0.5) == Confirmation(False, at(1))
        assert 0.4 < loop.time() - begun_s < PATIENCE_S
        asking = asyncio.ensure_future(c.client.confirm(60.0))
        await asyncio.sleep(0)
        for source in c.sources.values():
            source.quorum = True
        assert (await asking).ok


async def test_a_killed_projector_is_replaced_and_listeners_hear_nothing_of_it() -> None:
    async with cluster() as c:
        ear = Ear()
        c.client.watch(CART, ear)
        await await_until(lambda: ear.latest == {"x": "x=1"})
        heard = len(ear.updates)
        await c.projectors["a"].kill()
        answer = await c.client.confirm(60.0)
        assert answer.ok
        assert c.listening in ("b", "c")
        assert len(ear.updates) == heard
        c.world.change(CART, "x", text="2")
        c.fold()
        await await_until(lambda: ear.latest == {"x": "x=2"})
        assert all(update.snapshot is not None for update in ear.updates)


async def test_a_confirm_under_way_when_its_projector_dies_is_answered_by_the_next() -> None:
    async with cluster() as c:
        await await_until(lambda: c.client.ready)
        c.sources["a"].quorum = False
        asking = asyncio.ensure_future(c.client.confirm(60.0))
        await await_until(lambda: c.sources["a"].reads > 1)
        await c.projectors["a"].kill()
        assert (await asking).ok


async def test_what_a_lagging_projector_says_is_held_back_until_it_has_caught_up() -> None:
    async with cluster() as c:
        ear = Ear()
        c.client.watch(CART, ear)
        c.world.change(CART, "x", text="2")
        c.world.change(CART, "x", text="3")
        c.sources["a"].fold()
        await await_until(lambda: ear.latest == {"x": "x=3"})
        for zone in ("b", "c"):
            c.sources[zone].quorum = False
        heard = len(ear.updates)
        await c.projectors["a"].kill()
        await await_until(lambda: c.listening in ("b", "c"))
        lagging = c.sources[c.listening or ""]
        await await_until(lambda: CART in lagging.nodes)
        assert (await c.client.confirm(0.4)).ok is False
        lagging.fold(2)
        assert (await c.client.confirm(0.4)).ok is False
        assert len(ear.updates) == heard, "2 is older than what was delivered"
        c.world.change(CART, "x", text="4")
        lagging.fold()
        await await_until(lambda: ear.latest == {"x": "x=4"})


async def test_a_projector_that_confirms_less_than_was_delivered_is_not_believed() -> None:
    async with cluster() as c:
        for zone in ("b", "c"):
            c.sources[zone].folds_to_the_head = False
        ear = Ear()
        c.client.watch(CART, ear)
        c.world.change(CART, "x", text="2")
        c.sources["a"].fold()
        await await_until(lambda: ear.latest == {"x": "x=2"})
        await c.projectors["a"].kill()
        await await_until(lambda: c.listening in ("b", "c"))
        await await_until(lambda: CART in c.sources[c.listening or ""].nodes)
        assert not (await c.client.confirm(0.5)).ok
        c.fold()
        assert (await c.client.confirm(60.0)).ok


async def test_a_frontend_goes_home_without_a_gap() -> None:
    async with cluster() as c:
        ear = Ear()
        c.client.watch(CART, ear)
        await await_until(lambda: ear.latest is not None)
        await c.projectors["a"].kill()
        await await_until(lambda: c.listening in ("b", "c"))
        await c.projectors["a"].start()
        away = c.projectors[c.listening or ""]
        await await_until(lambda: c.listening == "a")
        await await_until(lambda: not away.registry.connected)
        assert c.projectors["a"].registry.connected == {"frontend-a": "a"}
        assert len(ear.updates) == 1


async def test_a_stale_projector_is_left_for_a_fresh_one() -> None:
    async with cluster() as c:
        ear = Ear()
        c.client.watch(CART, ear)
        await await_until(lambda: c.listening == "a")
        c.sources["a"].confirmed_age_s = 60.0
        await await_until(lambda: c.listening in ("b", "c"))
        assert len(ear.updates) == 1
        assert c.client.age_s < 60.0


async def test_a_projector_that_has_folded_nothing_yet_serves_nobody() -> None:
    def newborn(sources: dict[str, ToldSource]) -> None:
        sources["a"].ready = False

    async with cluster(newborn) as c:
        ear = Ear()
        c.client.watch(CART, ear)
        await await_until(lambda: ear.latest == {"x": "x=1"})
        assert c.listening in ("b", "c")


async def test_projectors_are_learned_over_the_feed() -> None:
    async with cluster() as c:
        await await_until(lambda: c.client.ready)
        stranger = ("d", "127.0.0.1:1")
        c.projectors["a"].told_projectors = (stranger,)
        await await_until(lambda: dict([stranger[::-1]]).items() <= c.client.projectors.items())


# --- who may call


async def call(address: str, identity: certificates.Identity, method: str = METHOD) -> grpc.StatusCode:
    """The status of one stream that only says hello."""
    channel = secure_channels(identity.dialling)("a", address)
    try:
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method)()
        try:
            await stream.write(encode(FrontendHello(1, "f", "a", "")))
            if isinstance(await stream.read(), bytes):
                return grpc.StatusCode.OK
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        return await stream.code()
    finally:
        await channel.close()


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (lambda: certificates.role("frontend"), grpc.StatusCode.OK),
        (lambda: certificates.role("projector"), grpc.StatusCode.PERMISSION_DENIED),
        (lambda: certificates.role("api"), grpc.StatusCode.PERMISSION_DENIED),
        (lambda: certificates.role("frontend", "elsewhere.test"), grpc.StatusCode.PERMISSION_DENIED),
        (lambda: certificates.with_uri(None), grpc.StatusCode.PERMISSION_DENIED),
        (
            lambda: certificates.with_uri(
                NodeId("123456789012", "role", "virtualNode", "frontend").spiffe_id(certificates.DOMAIN)
            ),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
        (certificates.stranger, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_only_a_frontend_of_this_cluster_opens_the_feed(
    identity: Callable[[], certificates.Identity], expected: grpc.StatusCode
) -> None:
    async with cluster() as c:
        assert await call(c.projectors["b"].address, identity()) == expected


async def test_every_method_of_the_port_has_a_rule() -> None:
    assert set(ROLES_ALLOWED) == {METHOD}
    async with cluster() as c:
        other = METHOD.replace("Subscribe", "Everything")
        assert await call(c.projectors["b"].address, certificates.role("frontend"), other) == (
            grpc.StatusCode.UNIMPLEMENTED
        )


async def test_a_frontend_does_not_take_another_role_for_a_projector() -> None:
    async with cluster() as c:
        impostor = grpc.aio.server()
        port = impostor.add_secure_port("127.0.0.1:0", certificates.role("frontend").serving())
        await impostor.start()
        assert await call(f"127.0.0.1:{port}", certificates.role("frontend")) == grpc.StatusCode.UNAVAILABLE
        await impostor.stop(None)
        assert c.projectors


@pytest.mark.parametrize(
    "bad",
    [b"nonsense", encode(FrontendHello(0, "f", "a", "")), encode(Confirm(1, 1)), encode(Subscribe(CART, 1))],
)
async def test_a_broken_frontend_is_cut_off_and_the_others_are_not(bad: bytes) -> None:
    async with cluster() as c:
        ear = Ear()
        c.client.watch(CART, ear)
        await await_until(lambda: ear.latest is not None)
        channel = secure_channels(certificates.role("frontend").dialling)("a", c.projectors["a"].address)
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
        await stream.write(bad)
        assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT
        await channel.close()
        assert (await c.client.confirm(60.0)).ok
        assert c.listening == "a"


async def test_an_oversized_frame_is_refused() -> None:
    async with cluster() as c:
        channel = secure_channels(certificates.role("frontend").dialling)("a", c.projectors["a"].address)
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
        with suppress(grpc.aio.AioRpcError):  # the refusal may come while the message is still being sent
            await stream.write(bytes(FEED_REQUEST_BYTES_MAX + 1))
        assert await stream.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
        await channel.close()


async def test_a_frontend_that_does_not_read_costs_no_queue_and_gets_the_newest() -> None:
    async with cluster() as c:
        channel = secure_channels(certificates.role("frontend").dialling)("a", c.projectors["a"].address)
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
        await stream.write(encode(FrontendHello(1, "slow", "a", "")))
        await stream.write(encode(Subscribe(CART, 1)))
        await await_until(lambda: CART in c.sources["a"].nodes)
        for number in range(200):
            c.world.change(CART, "x", text=f"{number} " + "." * 100_000)
            c.sources["a"].fold()
            await asyncio.sleep(0)
        frames: list[SnapshotFrame] = []
        while not frames or frames[-1].position < at(201):
            packed = await stream.read()
            assert isinstance(packed, bytes)
            frame = decode_from_projector(packed)
            assert isinstance(frame, ProjectorHello | SnapshotFrame | Heartbeat)
            if isinstance(frame, SnapshotFrame):
                frames.append(frame)
        assert frames[-1].upserts[0].body.startswith(b"x=199 ")
        assert len(frames) < 150
        stream.cancel()
        await channel.close()
