"""The write path without HTTP: races, tokens, unknown outcomes and stale servers over one memory store.

Every test looks at the log itself in the end: an acknowledged write is in it exactly once (I1), and nobody was told
something definite that the log does not bear out (I7).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.commands import CommandService, Origin, Outcome
from api.domain import MESH_DOMAIN
from eventlog.driver import AppendTxn
from eventlog.drivers.memory import Fault, MemoryDriver, MemoryStore
from eventlog.follower import AtHand, FollowBatch, Follower
from eventlog.quarantine import Quarantined
from eventlog.reads import HeadConfirmer
from eventlog.records import Head, HeadRef, Record
from eventlog.writer import LogWriter
from mesh.commands import Command, Create, Delete, Update, idempotency_token
from mesh.errors import (
    Conflict,
    MeshlogError,
    NotFound,
    NotReady,
    OutcomeUnknown,
    TimelineMoved,
    TooManyRequests,
    Unavailable,
)
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.kinds import mesh_key
from mesh.position import Position
from mesh.state import State, state_hash
from projector.replica import Replica, event_of
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import COMMAND_QUEUE_MAX
from runtime.supervise import Supervisor
from tests.api.conftest import ACCOUNT, create_log, open_keyring
from tests.conditions import await_until

RACES = 300


class GatedFollower:
    """A follower whose batches wait while `gate` is shut: a server that lags."""

    def __init__(self, inner: Follower) -> None:
        self._inner = inner
        self.gate = asyncio.Event()
        self.gate.set()

    async def follow(
        self, after: Head | None, quarantined: Mapping[Position, Quarantined], at_hand: AtHand
    ) -> AsyncGenerator[FollowBatch, None]:
        async for batch in self._inner.follow(after, quarantined, at_hand):
            await self.gate.wait()
            yield batch

    def quarantines(self, after: Head | None) -> AsyncGenerator[Quarantined | None, None]:
        return self._inner.quarantines(after)


class Writer:
    """One server's write path."""

    def __init__(self, service: CommandService, replica: Replica, follower: GatedFollower) -> None:
        self.service, self.replica, self.follower = service, replica, follower

    async def do(self, command: Command, token: str = "", **members: Any) -> Outcome:
        entropy = SystemEntropy()
        request_id = entropy.uuid()
        name = type(command).__name__
        mark = idempotency_token(ACCOUNT, "arn:p", name, token or request_id, {"command": repr(command), **members})
        return await self.service.submit(command, Origin(ACCOUNT, "arn:p", "10.0.0.1", request_id, name, mark))


class World:
    """Writers over one store."""

    def __init__(self, store: MemoryStore, writers: list[Writer], read: Callable[[], AsyncIterator[Record]]) -> None:
        self.store, self.writers, self._read = store, writers, read

    async def records(self) -> list[Record]:
        """Every record of the log, opened."""
        return [record async for record in self._read()]

    async def log(self) -> list[tuple[str, str]]:
        """(type, mesh) of every record but the admin key."""
        found = [(record.type, record.data or {}) for record in await self.records()]
        return [(kind, data["key"][1]) for kind, data in found if "key" in data]


@asynccontextmanager
async def world(
    directory: Path, writers: int = 1, deadline_s: float = 15.0, append_s: float = 5.0
) -> AsyncIterator[World]:
    clock, entropy = SystemClock(), SystemEntropy()
    store = MemoryStore()
    providers = await create_log(store, directory)
    driver = MemoryDriver(store)
    keyring = await open_keyring(driver, providers)
    async with Supervisor() as supervisor:
        made = []
        for _ in range(writers):
            follower = GatedFollower(Follower(driver, keyring, clock, entropy))
            replica = Replica(MESH_FOLD, follower, HeadConfirmer(driver), clock)
            log_writer = LogWriter(driver, keyring, clock, entropy, deadline_s=append_s)
            service = CommandService(MESH_DOMAIN, replica, log_writer, clock, entropy, deadline_s=deadline_s)
            supervisor.start(replica.run(), "replica")
            supervisor.start(service.run(), "commands")
            made.append(Writer(service, replica, follower))
        await await_until(lambda: all(writer.replica.ready for writer in made), what="the replicas have caught up")

        async def read() -> AsyncIterator[Record]:
            async for batch in Follower(driver, keyring, clock, entropy).follow():
                for record in batch.records:
                    yield record
                if batch.caught_up:
                    return

        yield World(store, made, read)


def create(mesh: str, **spec: Any) -> Create:
    return Create(mesh_key(ACCOUNT, mesh), spec)


def made_and_deleted(races: int) -> list[tuple[str, str]]:
    """What the log has after so many races for a mesh: an account may have fifteen, so each goes before the next."""
    return [(event, f"m{race}") for race in range(races) for event in ("ResourceCreated", "ResourceDeleted")]


async def settled(*calls: Any) -> list[Any]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_of_two_servers_that_create_one_name_one_wins_and_one_is_told_conflict(tmp_path: Path) -> None:
    async with world(tmp_path, writers=2) as it:
        left, right = it.writers
        for race in range(RACES):
            answers = await settled(left.do(create(f"m{race}")), right.do(create(f"m{race}")))
            assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "Outcome"], answers
            await left.do(Delete(mesh_key(ACCOUNT, f"m{race}")))
        assert await it.log() == made_and_deleted(RACES)


async def test_one_token_at_two_servers_is_one_event_and_one_answer(tmp_path: Path) -> None:
    async with world(tmp_path, writers=2) as it:
        left, right = it.writers
        for race in range(RACES):
            command = create(f"m{race}")
            answers = await settled(left.do(command, token="t" + str(race)), right.do(command, token="t" + str(race)))
            assert all(isinstance(answer, Outcome) for answer in answers), answers
            assert len({answer.position for answer in answers}) == 1
            assert answers[0].resource == answers[1].resource
            assert sorted(answer.replayed for answer in answers) == [False, True]
            await left.do(Delete(mesh_key(ACCOUNT, f"m{race}")))
        assert await it.log() == made_and_deleted(RACES)


async def test_many_writers_of_one_resource_lose_no_update(tmp_path: Path) -> None:
    async with world(tmp_path, writers=3) as it:
        await it.writers[0].do(create("m"))
        key = mesh_key(ACCOUNT, "m")
        calls = [writer.do(Update(key, {})) for writer in it.writers for _ in range(30)]
        answers = await settled(*calls)
        versions = sorted(answer.resource.version for answer in answers)
        assert versions == list(range(2, 92))
        for writer in it.writers:
            await writer.replica.wait_for(max(answer.position for answer in answers), 5.0)
        # What the writers took for folded before they sent it is what the log folds to (I4).
        folded = State()
        for record in await it.records():
            folded = evolve(folded, event_of(record))
        assert {state_hash(writer.replica.state) for writer in it.writers} == {state_hash(folded)}


async def test_commands_that_arrive_together_are_one_frame_and_each_knows_its_own_position(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        frames = len(it.store.frames)
        answers = await asyncio.gather(*(writer.do(create(f"m{number}")) for number in range(15)))
        assert len(it.store.frames) == frames + 1
        records = {record.position: record for record in await it.records()}
        assert len({answer.position for answer in answers}) == 15
        for number, answer in enumerate(answers):
            assert (records[answer.position].data or {})["key"][1] == f"m{number}"


async def test_an_idle_server_commits_at_once_and_what_piles_up_meanwhile_is_the_next_frame(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        sent: list[int] = []
        others: list[asyncio.Future[Outcome]] = []

        def note(txn: AppendTxn) -> Fault:
            if not sent:  # while the first is on its way, more arrive
                others.extend(asyncio.ensure_future(writer.do(create(f"m{number}"))) for number in range(5))
            sent.append(txn.head.position - txn.expected.head.position)
            return Fault.NONE

        it.store.fault_of = note
        await writer.do(create("first"))
        await asyncio.gather(*others)
        assert sent == [1, 5]


async def test_one_command_that_cannot_be_written_takes_no_other_along(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        await writer.do(create("m"))
        big = Update(mesh_key(ACCOUNT, "m"), {"egressFilter": {"type": 2**70}})  # no integer of msgpack
        answers = await settled(writer.do(create("a")), writer.do(big), writer.do(create("b")))
        assert [type(answer).__name__ for answer in answers] == ["Outcome", "BadRequest", "Outcome"]


async def test_a_token_with_another_body_is_a_conflict(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        await writer.do(create("m"), token="t")
        with pytest.raises(Conflict, match="clientToken"):
            await writer.do(create("other"), token="t")
        assert await it.log() == [("ResourceCreated", "m")]


async def test_a_repeated_token_gets_the_first_answer_although_the_resource_has_changed_since(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        key, first = mesh_key(ACCOUNT, "m"), await writer.do(create("m"), token="t")
        await writer.do(Update(key, {"egressFilter": {"type": "ALLOW_ALL"}}))
        again = await writer.do(create("m"), token="t")
        assert again == first._replace(replayed=True, decided=None)
        await writer.do(Delete(key))
        assert await writer.do(create("m"), token="t") == again


async def test_a_lagging_server_rejects_only_what_the_confirmed_log_rejects(tmp_path: Path) -> None:
    """Its own state says NotFound; the log has the mesh by then, and so the delete is done."""
    async with world(tmp_path, writers=2) as it:
        fast, slow = it.writers
        slow.follower.gate.clear()
        await fast.do(create("m"))
        deletion = asyncio.ensure_future(slow.do(Delete(mesh_key(ACCOUNT, "m"))))
        await asyncio.wait([deletion], timeout=0.2)
        assert not deletion.done(), "answered from a state that was never confirmed"
        slow.follower.gate.set()
        outcome = await deletion
        assert outcome.resource is not None
        assert [kind for kind, _ in await it.log()] == ["ResourceCreated", "ResourceDeleted"]


async def test_a_lagging_server_does_not_take_a_freed_name_for_taken(tmp_path: Path) -> None:
    async with world(tmp_path, writers=2) as it:
        fast, slow = it.writers
        await fast.do(create("m"))
        await await_until(lambda: slow.replica.position == fast.replica.position)
        slow.follower.gate.clear()
        await fast.do(Delete(mesh_key(ACCOUNT, "m")))
        creation = asyncio.ensure_future(slow.do(create("m")))
        await asyncio.wait([creation], timeout=0.2)
        assert not creation.done()
        slow.follower.gate.set()
        assert (await creation).resource is not None


async def test_a_write_is_answered_without_waiting_for_the_watch(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        writer.follower.gate.clear()
        outcome = await asyncio.wait_for(writer.do(create("m")), timeout=5.0)
        assert outcome.resource is not None
        assert (outcome.position, outcome.resource.changed_at) == (writer.replica.position, outcome.position)


async def test_without_a_quorum_nothing_is_rejected_and_nothing_is_written(tmp_path: Path) -> None:
    async with world(tmp_path, deadline_s=0.4, append_s=0.1) as it:
        (writer,) = it.writers
        it.store.reachable = False
        with pytest.raises(Unavailable):
            await writer.do(Delete(mesh_key(ACCOUNT, "absent")))
        with pytest.raises(OutcomeUnknown, match="same clientToken"):
            await writer.do(create("m"), token="t")
        it.store.reachable = True
        with pytest.raises(NotFound):
            await writer.do(Delete(mesh_key(ACCOUNT, "absent")))
        await writer.do(create("m"), token="t")
        assert await it.log() == [("ResourceCreated", "m")]


async def test_a_delete_whose_answer_was_lost_is_not_told_that_there_is_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, append_s=0.05) as it:
        (writer,) = it.writers
        await writer.do(create("m"))
        faults = iter([Fault.LANDED])
        it.store.fault_of = lambda _txn: next(faults, Fault.NONE)
        outcome = await writer.do(Delete(mesh_key(ACCOUNT, "m")))
        assert outcome.resource is not None
        assert [kind for kind, _ in await it.log()] == ["ResourceCreated", "ResourceDeleted"]


async def test_a_full_queue_says_so_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, deadline_s=0.5) as it:
        (writer,) = it.writers
        it.store.reachable = False
        answers = await settled(*(writer.do(create(f"m{number}")) for number in range(COMMAND_QUEUE_MAX + 10)))
        refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
        assert 0 < len(refused) <= 10
        assert all(isinstance(answer, MeshlogError) for answer in answers)


async def test_a_bug_in_one_command_does_not_stop_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        (writer,) = it.writers
        with pytest.raises(KeyError):
            await writer.do("no command at all")  # type: ignore[arg-type]
        assert (await writer.do(create("m"))).written


FAULTS = st.sampled_from([Fault.NONE, Fault.LOST, Fault.LANDED, Fault.LATE, Fault.REFUSED])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(faults=st.lists(FAULTS, max_size=14), deliveries=st.lists(st.booleans(), max_size=14))
def test_whatever_becomes_of_the_answers_each_token_is_one_event(
    tmp_path: Path, faults: list[Fault], deliveries: list[bool]
) -> None:
    """Three calls at two servers, each repeated with its token as an SDK does, while answers are lost and come late."""

    async def scenario() -> None:
        async with world(tmp_path, writers=2, deadline_s=0.5, append_s=0.03) as it:
            left, right = it.writers
            fate, late = iter(faults), iter(deliveries)

            def fault_of(txn: AppendTxn) -> Fault:
                if next(late, False):
                    it.store.deliver()
                return next(fate, Fault.NONE)

            it.store.fault_of = fault_of

            async def persist(command: Command, token: str, *servers: Writer) -> Outcome:
                for attempt in range(40):
                    try:
                        return await servers[attempt % len(servers)].do(command, token=token)
                    except Unavailable:
                        continue
                raise AssertionError("never answered")

            answers = await asyncio.gather(
                persist(create("a"), "ta", left, right),
                persist(create("a"), "ta", right, left),
                persist(create("b"), "tb", right),
            )
            it.store.deliver()
            assert answers[0].position == answers[1].position
            assert answers[0].resource == answers[1].resource
            assert sorted(await it.log()) == [("ResourceCreated", "a"), ("ResourceCreated", "b")]

    asyncio.run(scenario())


async def test_settling_ends_with_the_server(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(world(tmp_path, append_s=5.0))
        it.store.reachable = False
        creation = asyncio.ensure_future(it.writers[0].do(create("m")))
        await asyncio.wait([creation], timeout=0.1)
        await stack.aclose()
        with pytest.raises(OutcomeUnknown, match="stopping"):
            await creation


async def test_a_write_that_landed_late_before_its_own_second_attempt_is_never_told_as_not_written(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, deadline_s=2.0, append_s=0.3) as it:
        (server,) = it.writers
        first: list[bytes] = []

        def fault(txn: AppendTxn) -> Fault:
            if not first:
                first.append(txn.frame)
            if txn.frame == first[0]:
                return Fault.LATE
            server.follower.gate.clear()  # this server does not see what lands
            it.store.deliver()  # the lost Txn lands now, in front of the second attempt
            return Fault.NONE

        it.store.fault_of = fault
        with pytest.raises(OutcomeUnknown) as told:
            await server.do(create("m"), token="t")
        assert "nothing was written" not in told.value.message.lower()
        assert len(await it.log()) == 1


async def test_a_halted_server_writes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, deadline_s=2.0, append_s=0.3) as it:
        (server,) = it.writers
        foreign = server.replica.head_ref.head._replace(hash=bytes(32))
        with pytest.raises(TimelineMoved):
            server.replica.advance((), HeadRef(foreign, 99))
        with pytest.raises(NotReady, match="two different records"):
            await server.do(create("m"))
        assert await it.log() == []
