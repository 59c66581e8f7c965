"""Garbage collections are put off for a load, and never for good."""

from __future__ import annotations

import gc

import pytest

from runtime.collector import CollectionPause
from tests.conditions import await_until


async def test_a_pause_ends_when_it_is_told_to() -> None:
    assert gc.isenabled(), "a test before this one has left a pause behind"
    pause = CollectionPause()
    pause.end(much=False)
    assert gc.isenabled()
    pause.begin()
    pause.begin()
    assert not gc.isenabled()
    pause.end(much=False)
    assert gc.isenabled()


async def test_a_pause_that_nobody_ends_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.collector.COLLECTION_PAUSE_MAX_S", 0.0)
    pause = CollectionPause()
    pause.begin()
    await await_until(gc.isenabled)
    pause.end(much=False)
    assert gc.isenabled()


async def test_what_was_loaded_is_not_looked_at_again() -> None:
    pause = CollectionPause()
    pause.begin()
    loaded = [[number] for number in range(1_000)]
    before = gc.get_freeze_count()
    pause.end(much=True)
    try:
        assert gc.get_freeze_count() >= before + len(loaded)
    finally:
        gc.unfreeze()
