"""What a restore leaves behind is named as far as anybody knows it, and its steps survive any interruption."""

from __future__ import annotations

import hashlib
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from eventlog.records import Head
from eventlog.restore import (
    STEPS,
    Journal,
    Kind,
    Step,
    Witness,
    check_target,
    decode_journal,
    encode_journal,
    loss,
    new_epoch,
)
from mesh.errors import Conflict, Damaged, NotFound
from mesh.position import Position

BASE = Head("log", 1, 500, hashlib.sha256(b"500").digest())


def event(position: int, **fields: Any) -> dict[str, Any]:
    return {"position": position, "type": "ResourceUpdated", "actor": "ann", **fields}


def journal(kind: Kind = Kind.CLUSTER) -> Journal:
    return Journal(
        restore_id="r1",
        kind=kind,
        source="file:///archive",
        asked="latest",
        reason="the cellar is under water",
        base=BASE,
        head=BASE._replace(epoch=2),
        loss=loss(BASE.at, Position(1, 500), (), [Witness("api-z1", Position(1, 503), (event(502),))]),
        archive_head=Position(1, 500),
        begun_us=7,
        restricting=({"type": "AccessKeyDisabled", "data": {"access_key_id": "A"}},),
    )


# --- what is lost


def test_after_a_total_loss_only_what_the_archive_had_not_yet_is_missing_and_witnesses_name_it() -> None:
    witnesses = [
        Witness("api-z1", Position(1, 502), (event(501), event(502))),
        Witness("api-z2", Position(1, 503), (event(502), event(503))),
        Witness("frontend-z1", Position(1, 503)),
    ]
    lost = loss(BASE.at, Position(1, 500), (), witnesses)
    assert [(write.document["position"], write.source) for write in lost.writes] == [
        (501, "api-z1"), (502, "api-z1"), (503, "api-z2"),
    ]  # fmt: skip
    assert (lost.size, lost.unnamed, lost.certain) == (3, (), True)


def test_a_write_that_is_known_by_its_position_only_is_counted() -> None:
    witnesses = [Witness("frontend-z1", Position(1, 506)), Witness("api-z1", Position(1, 504), (event(503),))]
    lost = loss(BASE.at, Position(1, 500), (), witnesses)
    assert [write.document["position"] for write in lost.writes] == [503]
    assert (lost.size, lost.unnamed) == (6, ((501, 502), (504, 506)))


def test_without_a_witness_it_is_said_that_nobody_knows() -> None:
    lost = loss(BASE.at, Position(1, 500), (), [])
    assert (lost.size, lost.writes, lost.certain) == (0, (), False)


def test_going_back_lists_what_the_archive_holds_beyond_that_moment() -> None:
    lost = loss(Position(1, 400), Position(1, 402), (event(400), event(401), event(402)), [])
    assert [(write.document["position"], write.source) for write in lost.writes] == [(401, "archive"), (402, "archive")]


def test_who_is_of_another_epoch_knows_nothing_of_this_timeline() -> None:
    lost = loss(BASE.at, Position(1, 500), (), [Witness("clone", Position(2, 900), (event(900),))])
    assert (lost.size, lost.certain) == (0, False)


@given(
    st.integers(0, 20),
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(0, 40), st.sets(st.integers(1, 40))), max_size=3),
)
def test_every_known_position_beyond_the_base_is_named_or_counted_once(
    base: int, archived: int, heard: list[tuple[int, set[int]]]
) -> None:
    head = Position(1, base + archived)
    witnesses = [Witness("w", Position(1, at), [event(number) for number in named]) for at, named in heard]
    lost = loss(Position(1, base), head, [event(n) for n in range(base + 1, head.position + 1)], witnesses)
    named = [write.document["position"] for write in lost.writes]
    counted = [number for first, last in lost.unnamed for number in range(first, last + 1)]
    known = max([head.position, *(at for at, _ in heard)])
    assert sorted(named + counted) == list(range(base + 1, known + 1))
    assert lost.size == len(named) + len(counted)


def test_of_a_lost_write_no_specification_is_told() -> None:
    written = event(501, data={"spec": "planted"}, summary="planted", resource="mesh/m")
    lost = loss(BASE.at, Position(1, 500), (), [Witness("api-z1", Position(1, 501), (written,))])
    assert lost.writes[0].document["resource"] == "mesh/m"
    assert "planted" not in str(lost)


# --- the journal


@pytest.mark.parametrize("kind", Kind)
def test_a_journal_survives_being_written_at_every_step(kind: Kind) -> None:
    now, order = journal(kind), list[Step]()
    while (step := now.next_step) is not None:
        assert decode_journal(encode_journal(now), "restore.json") == now
        now, order = now.after(step), [*order, step]
    assert tuple(order) == STEPS[kind]
    assert decode_journal(encode_journal(now), "restore.json").next_step is None


def test_the_epoch_is_claimed_before_anything_is_touched_and_the_log_is_written_before_a_role_starts() -> None:
    for kind, steps in STEPS.items():
        touched = [step for step in steps if step not in (Step.FILES, Step.CLAIM)]
        assert kind is Kind.CLONE or steps.index(Step.CLAIM) < steps.index(touched[0]), kind
        assert (Step.CLAIM in steps) == (kind is not Kind.CLONE), "a clone has an archive of its own"
        assert steps.index(Step.WRITE) < steps.index(Step.ANNOUNCE) < steps.index(Step.ROLES), kind


def test_a_step_is_done_in_its_turn_only() -> None:
    with pytest.raises(ValueError, match="next step"):
        journal().after(Step.WRITE)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"format": 1}', encode_journal(journal()).replace(b'"cluster"', b'"castle"')]
)
def test_a_damaged_journal_is_refused_by_its_name(text: bytes) -> None:
    with pytest.raises(Damaged, match=r"restore\.json"):
        decode_journal(text, "restore.json")


def test_a_restore_under_way_is_not_led_elsewhere() -> None:
    journal().check_resumes(None)
    journal().check_resumes("latest")
    with pytest.raises(Conflict, match="epoch 2"):
        journal().check_resumes("42")


# --- where to


def test_a_new_epoch_is_one_that_nobody_has_claimed() -> None:
    assert new_epoch(BASE, [1]) == BASE._replace(epoch=2)
    assert new_epoch(BASE, [1, 2, 5]).epoch == 6
    assert new_epoch(BASE, []).epoch == 2


@pytest.mark.parametrize(("position", "sound"), [(9, False), (10, True), (11, True), (500, True), (501, False)])
def test_only_what_the_archive_holds_can_be_restored(position: int, sound: bool) -> None:
    target, first, head = Position(1, position), Position(1, 11), Position(1, 500)
    if sound:
        check_target("x", target, first, head)
        return
    with pytest.raises(NotFound):
        check_target("x", target, first, head)
