"""A drill proves that the archive restores to the log's own state, and says so when it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cluster.duties import FenceFell
from eventlog.archive.memory import MemoryObjectStore
from eventlog.driver import Fence
from eventlog.drivers.memory import MemoryDriver
from mesh.errors import Damaged
from mesh.fold import MESH_FOLD
from mesh.state import State, state_hash
from projector.drill import (
    ENTRY,
    Drill,
    DrillMetrics,
    DrillResult,
    decode_result,
    due_in_s,
    encode_result,
    last_result,
)
from runtime.limits import DRILL_RETRY_S
from runtime.supervise import Supervisor
from tests.conditions import await_until
from tests.eventlog.logs import ToldClock
from tests.projector.archives import archived, ship
from tests.projector.logs import BOTH, CLOCK, MemoryLog

DAY_S = 86_400.0
RESULT = DrillResult(
    time_us=5_000_000,
    epoch=1,
    position=9,
    ok=True,
    reason="",
    records=9,
    seconds=0.5,
    state_hash="ab",
    by="api-z1",
)


class Held:
    """A replica that stands where it is told."""

    ready = True

    def __init__(self, state: State) -> None:
        self.state = state


async def shop_log(directory: Path) -> MemoryLog:
    log = await MemoryLog.create(directory)
    await log.create_access_key()
    await log.fill_shop()
    return log


def drill(log: MemoryLog, objects: MemoryObjectStore, state: State | None = None) -> Drill:
    return Drill(
        MESH_FOLD,
        objects,
        log.providers(BOTH),
        MemoryDriver(log.store),
        Held(state or log.state),
        clock=CLOCK,
        holder_id="api-z1",
        interval_s=DAY_S,
    )


async def test_a_whole_archive_folds_to_the_logs_own_state(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects = await archived(log)
    before = dict(objects.objects)
    result = await drill(log, objects).once()
    assert (result.ok, result.reason, result.records) == (True, "", log.state.position.position)
    assert (result.position, result.state_hash) == (log.state.position.position, state_hash(log.state))
    assert objects.objects == before, "a drill claims nothing and writes nothing"


async def test_a_damaged_object_fails_the_drill_with_a_sentence(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects = await archived(log)
    name = max((name for name in objects.objects if name.startswith("objects/")), key=lambda n: len(objects.objects[n]))
    objects.objects[name] = objects.objects[name][:-1] + b"\0"
    result = await drill(log, objects).once()
    assert not result.ok
    assert name in result.reason


async def test_another_state_than_the_logs_own_fails_the_drill(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects = await archived(log)
    for other in (replace(log.state, time_us=1), replace(log.state, access_keys=State().access_keys)):
        result = await drill(log, objects, other).once()
        assert not result.ok
        assert "another state" in result.reason


async def test_a_drill_waits_for_what_is_still_on_its_way(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects = MemoryObjectStore()
    async with Supervisor() as tasks:
        running = tasks.start(drill(log, objects).once(), "drill")
        await ship(log.store, log.keyring(BOTH), objects)
        assert (await running).ok


async def test_the_result_is_kept_where_every_server_finds_it_and_is_not_made_twice(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects, driver = await archived(log), MemoryDriver(log.store)
    fence = log.store.grant("drill")
    async with Supervisor() as tasks:
        tasks.start(drill(log, objects).run(fence), "drill")
        await await_until(lambda: ENTRY in log.store.entries, what="the result is written")
    result = await last_result(driver)
    assert result is not None
    assert result.ok
    assert due_in_s(result, CLOCK.now_us(), DAY_S) > DAY_S - 60


async def test_a_holder_that_was_fenced_off_publishes_nothing(tmp_path: Path) -> None:
    log = await shop_log(tmp_path)
    objects = await archived(log)
    log.store.grant("drill")
    with pytest.raises(FenceFell):
        await drill(log, objects).run(Fence("drill", 1))
    assert ENTRY not in log.store.entries


def test_the_next_one_is_due_after_the_interval_and_sooner_after_a_failure() -> None:
    clock = ToldClock()
    last = replace(RESULT, time_us=clock.now_us())
    assert due_in_s(None, clock.now_us(), DAY_S) == 0
    assert due_in_s(last, clock.now_us(), DAY_S) == pytest.approx(DAY_S)
    assert due_in_s(replace(last, ok=False), clock.now_us(), DAY_S) == pytest.approx(DRILL_RETRY_S)
    assert due_in_s(last, clock.now_us() + int(2 * DAY_S * 1e6), DAY_S) == 0


def test_a_failed_drill_can_be_alerted_on() -> None:
    registry = CollectorRegistry()
    metrics = DrillMetrics(registry)
    for ok in (True, False):
        metrics.told(replace(RESULT, ok=ok))
        assert registry.get_sample_value("meshlog_drill_ok") == float(ok)
    assert registry.get_sample_value("meshlog_drill_time_seconds") == 5.0


def test_a_result_is_read_back_and_anything_else_is_damage() -> None:
    assert decode_result(encode_result(RESULT)) == RESULT
    for text in (b"", b"[]", b"{}", b'{"format": 1}', encode_result(RESULT)[:-2]):
        with pytest.raises(Damaged):
            decode_result(text)
