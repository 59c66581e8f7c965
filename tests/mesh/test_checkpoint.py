"""A state that went through a checkpoint is the state that it was, to the last field, and folds on as it would have."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings

from mesh.checkpoint import from_documents, to_documents
from mesh.commands import (
    AttachPolicy,
    Command,
    Create,
    CreateAccessKey,
    CreatePrincipal,
    Delete,
    DetachPolicy,
    DisableAccessKey,
    PutInlinePolicy,
    PutPolicy,
    RaiseLevel,
    RecordKeyUse,
    Rollback,
    TagResource,
    Update,
)
from mesh.errors import Damaged, MeshlogError
from mesh.events import LEVEL
from mesh.evolve import evolve
from mesh.position import Position
from mesh.state import State, computed_fingerprint, state_hash
from tests.mesh.pki_worlds import PKI_COMMANDS, issued, rooted
from tests.mesh.worlds import ACCOUNT, MESH, World, key, node_spec, route_spec, shop, token


def through(state: State, *, secrets: bool = True) -> State:
    """The state as its checkpoint gives it back, over the bytes that it is written as."""
    documents = to_documents(state)
    config, closed = (msgpack.unpackb(msgpack.packb(document)) for document in documents)
    return from_documents(config, closed if secrets else None)


def assert_same(found: State, wanted: State) -> None:
    assert state_hash(found) == state_hash(wanted)
    for field in dataclasses.fields(State):
        assert getattr(found, field.name) == getattr(wanted, field.name), field.name
    assert [list(found.resources[key].spec) for key in sorted(found.resources)] == [
        list(wanted.resources[key].spec) for key in sorted(wanted.resources)
    ], "the order of members is the caller's"


ROLE, POLICY = f"arn:aws:iam::{ACCOUNT}:role/deploy", f"arn:aws:iam::{ACCOUNT}:policy/p"


def document(number: int) -> str:
    return json.dumps({"Statement": {"Effect": "Allow", "Action": f"appmesh:Describe{number}", "Resource": "*"}})


NODES = [key("virtualNode", name) for name in ("cart-v1", "cart-v2", "stock", "mail")]
ROUTES = [key("route", name, parent="cart") for name in ("all", "beta")]


def history(seed: int, steps: int) -> World:
    """Creations, changes, deletions and rollbacks at random, all with tokens of which some repeat, and access keys."""
    draw, world = random.Random(seed), shop()  # noqa: S311
    for number in range(steps):
        node, route = draw.choice(NODES), draw.choice(ROUTES)
        spec = draw.choice([node_spec(draw.randint(1, 9)), {"backends": [], **node_spec(7)}])
        weights = {draw.choice(NODES).name: draw.randint(1, 100)}
        then = draw.choice(world.states)
        command: Command = draw.choice(
            (
                Create(node, spec, {"a": "x"}),
                Create(route, route_spec(weights), {}),
                Update(node, spec),
                Update(route, route_spec(weights)),
                Delete(node),
                Delete(route),
                TagResource(node, {"b": str(number)}),
                Rollback(ACCOUNT, MESH.mesh, then, allow_mesh_deletion=True),
                CreateAccessKey(f"AKIA{number}", "a secret", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/{number}", True),
                RaiseLevel(LEVEL),
                CreatePrincipal(ROLE, '{"Version": "2012-10-17", "Statement": []}'),
                PutPolicy(POLICY, document(number % 3)),
                AttachPolicy(ROLE, POLICY),
                DetachPolicy(ROLE, POLICY),
                PutInlinePolicy(ROLE, f"p{number % 3}", document(number % 5)),
                RecordKeyUse(number, (f"AKIA{draw.randint(0, number)}",)),
                DisableAccessKey(f"AKIA{draw.randint(0, number)}", ACCOUNT),
                draw.choice(PKI_COMMANDS),
            )
        )
        with contextlib.suppress(MeshlogError):
            world.do(command, draw.choice([None, token(f"token {draw.randint(0, 2 * steps)}")]))
    return world


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_folding_all_equals_folding_a_checkpoint_and_the_tail_at_every_cut(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.state.TOKENS_KEPT", 6)
    monkeypatch.setattr("mesh.state.TOMBSTONES_KEPT", 2)
    world = history(seed, 40)
    assert world.state.tokens
    for cut, state in enumerate(world.states):
        opened = through(state)
        assert_same(opened, state)
        for event in world.events[cut:]:
            opened = evolve(opened, event)
        assert_same(opened, world.state)


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_checkpoint_of_a_checkpoint_is_the_same_document(seed: int) -> None:
    state = history(seed, 30).state
    assert to_documents(through(state)) == to_documents(state)


def test_without_the_secrets_it_is_the_state_of_a_role_that_opens_none() -> None:
    world = shop()
    world.do(CreateAccessKey("AKIA1", "a secret", ACCOUNT, "arn:aws:iam::1:user/ann", True))
    closed = through(world.state, secrets=False)
    assert not closed.access_keys
    assert state_hash(closed) == state_hash(world.state)
    assert b"a secret" not in msgpack.packb(to_documents(world.state).config)


def test_keys_of_authorities_are_secrets_and_those_of_certificates_are_not() -> None:
    """Projectors hand certificates to proxies; nobody but an API server issues any."""
    world = shop()
    world.do(rooted())
    world.do(issued())
    config = msgpack.packb(to_documents(world.state).config)
    assert b"the key of root 1" not in config
    assert b"the key of a certificate" in config
    assert through(world.state).authority_keys == world.state.authority_keys != {}
    closed = through(world.state, secrets=False)
    assert not closed.authority_keys
    assert state_hash(closed) == state_hash(world.state)


def test_a_kept_answer_comes_back_when_it_is_asked_for() -> None:
    world, again = shop(), token("again")
    world.do(Create(key("virtualNode", "late"), node_spec(1), {}), again)
    made = world.at(key("virtualNode", "late"))
    for port in (2, 3):
        world.update(made.key, node_spec(port))
    replay = evolve(through(world.states[-2]), world.events[-1]).tokens[again.digest]
    assert replay.outcome == made
    assert replay == world.state.tokens[again.digest]


def _edited(state: State, index: int, change: Any) -> list[Any]:
    config: list[Any] = list(to_documents(state).config)
    config[index] = change(config[index])
    return config


RESOURCES, CHANGED, DELETED, TOKENS = 6, 7, 8, 9


def test_a_state_that_does_not_add_up_is_damage() -> None:
    world = shop()
    world.do(Create(key("virtualNode", "late"), node_spec(1), {}), token("t"))
    world.delete(key("gatewayRoute", "cart", parent="edge"))
    for index in (RESOURCES, CHANGED, DELETED, TOKENS):
        with pytest.raises(Damaged, match="does not add up"):
            from_documents(_edited(world.state, index, lambda items: items[1:]), None)
    with pytest.raises(Damaged, match="does not add up"):
        from_documents(_edited(world.state, 5, lambda digest: digest[:-1] + bytes((digest[-1] ^ 1,))), None)


def test_what_is_no_document_is_damage_and_a_newer_format_says_so() -> None:
    config = to_documents(shop().state).config
    wrongs: tuple[Any, ...] = (
        None,
        [],
        {},
        7,
        config[:-1],
        [2, *config[1:]],
        [3, *config[1:]],
        [*config, {}],
        [1, "x", *config[2:]],
    )
    for wrong in wrongs:
        with pytest.raises(Damaged, match="newer build"):
            from_documents(wrong, None)
    with pytest.raises(Damaged):
        from_documents(config, [1, [{"access_key_id": "AKIA", "unknown": 1}]])


def test_the_origin_is_a_state_too() -> None:
    assert_same(through(State()), State())
    assert through(State()).position == Position(1, 0)
    assert computed_fingerprint(through(shop().state)) == shop().state.fingerprint
    assert MESH in through(shop().state).resources


def test_a_restored_timeline_keeps_where_it_comes_from() -> None:
    state = dataclasses.replace(shop().state, lineage=(Position(1, 5), Position(2, 7)), position=Position(3, 9))
    assert_same(through(state), state)
