"""The compiler that remembers, and its memo: never different from one that has seen nothing, whatever happens.

What would make it different is built in as mutants, and found.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from identity.node_id import NodeId
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.changes import changed_keys
from projector.envoy.compiler import Compiler
from projector.envoy.parts import Address, Part, Parts
from projector.envoy.view import Sources, View
from tests.projector.envoy.meshes import (
    ACCOUNT,
    RENDERER,
    Log,
    by_node,
    by_router,
    canary,
    gateway,
    gateway_id,
    key,
    listener,
    node,
    node_id,
    router,
)
from tests.projector.envoy.test_compiler import NODES, ROUTERS, SERVICES, bodies, changes

ALL = [gateway_id(), *(node_id(name) for name in NODES)]
Change = tuple[Any, dict[str, Any] | None]
_TRUST = {"tls": {"validation": {"trust": {"file": {"certificateChain": "/ca"}}}}}


def events() -> st.SearchStrategy[list[Change]]:
    """Creations, updates and (None) deletions, of what is there or not; policies and TCP among them."""

    def policied(backends: list[str], policy: dict[str, Any] | None, protocol: str) -> dict[str, Any]:
        spec = node(listener(8080, protocol), backends=tuple(backends))
        if policy is not None and spec["backends"]:
            spec["backends"][0]["virtualService"]["clientPolicy"] = policy
        return spec

    nodes = st.sampled_from([key("virtualNode", name) for name in NODES])
    policies = st.sampled_from([None, {}, _TRUST])
    backends = st.lists(st.sampled_from(SERVICES), max_size=3, unique=True)
    protocols = st.sampled_from(["http", "tcp"])
    kinds = st.one_of(
        changes(),
        st.tuples(nodes, st.builds(policied, backends, policies, protocols)),
        st.tuples(changes().map(lambda change: change[0]), st.none()),
    )
    return st.lists(kinds, min_size=1, max_size=15)


def start() -> Log:
    return Log(
        (key("virtualGateway", "edge"), gateway()),
        *((key("virtualRouter", name), router()) for name in ROUTERS),
        *((key("virtualNode", name), node(backends=SERVICES)) for name in NODES),
        (key("virtualService", "s0"), by_node("n0")),
        *((key("virtualService", f"s{index + 1}"), by_router(name)) for index, name in enumerate(ROUTERS)),
    )


def differs(made: list[Change], running: Compiler) -> str | None:
    """After which change the running compiler tells something else than a fresh one; None if it never does."""
    log = start()
    known = {of: running.compile(log.state, of) for of in ALL}
    for of_key, spec in made:
        there = of_key in log.state.resources
        if spec is None:
            if not there or of_key.kind == "mesh":
                continue
            event = log.delete(of_key)
        else:
            event = (log.update if there else log.create)(of_key, spec)
        concerned = running.affected(changed_keys([event]))
        for of in ALL:
            if of in concerned:
                known[of] = running.compile(log.state, of)
            if bodies(known[of]) != bodies(Compiler(RENDERER).compile(log.state, of)):
                return f"{of} after {of_key.path}"
    return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(events())
def test_after_any_events_it_tells_what_a_fresh_compiler_tells(made: list[Change]) -> None:
    assert differs(made, Compiler(RENDERER)) is None


class _Mutant(Parts):
    """A memo with one fault."""

    def __init__(self, sources: Sources, fault: str) -> None:
        super().__init__(sources)
        self._fault = fault
        self._first: dict[Any, list[Any]] = {}

    def move(self, sources: Sources) -> None:
        if self._fault == "states are not told apart":
            self.sources = sources
        else:
            super().move(sources)

    def _stands(self, part: Part, asked: list[Part]) -> bool:
        if self._fault == "reads are not looked at again":
            return all(self.get(address) is before for address, before in part.parts.items())
        if self._fault == "inner parts are not looked at":
            kept, part.parts = part.parts, {}
            stands = super()._stands(part, asked)
            part.parts = kept
            return stands
        if self._fault == "routes are not looked at":
            kept_reads = part.reads
            part.reads = tuple(read for read in kept_reads if "children" not in read[0].lens.__name__)
            stands = super()._stands(part, asked)
            part.reads = kept_reads
            return stands
        return super()._stands(part, asked)

    def _draft(self, address: Address) -> Part:
        made = super()._draft(address)
        if self._fault == "alarms of inner parts are lost":
            made.alarms = frozenset()
        if self._fault == "what inner parts read is not theirs who asked":
            made.keys = frozenset(seen.key for seen, _ in made.reads)
        return made

    def get(self, address: Address) -> Part:
        if self._fault == "arguments do not count":
            draft, account, mesh, *arguments = address
            if len(arguments) > 1:
                first = self._first.setdefault((draft, arguments[0]), arguments[1:])
                return super().get((draft, account, mesh, arguments[0], *first))
        return super().get(address)


FAULTS = (
    "states are not told apart",
    "reads are not looked at again",
    "inner parts are not looked at",
    "routes are not looked at",
    "alarms of inner parts are lost",
    "what inner parts read is not theirs who asked",
    "arguments do not count",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_memo_with_a_fault_is_found_out(fault: str) -> None:
    found: list[str] = []

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(events())
    def search(made: list[Change]) -> None:
        if found:
            return
        compiler = Compiler(RENDERER)
        compiler._parts = _Mutant(Sources(State(), RegistryState()), fault)
        told = differs(made, compiler)
        if told is not None:
            found.append(told)

    search()
    assert found, "the property does not see this fault"


# --- the memo by itself


def counting() -> tuple[Parts, Callable[[State], Any], list[str]]:
    """A memo over an outer part that asks for the length of an inner one, and which of them were drafted."""
    drafted: list[str] = []

    def inner(view: View, name: str) -> str:
        drafted.append(f"inner {name}")
        resource = view.get("virtualNode", name)
        return str(resource.spec["serviceDiscovery"]["dns"]["hostname"]) if resource else ""

    def outer(view: View, name: str) -> int:
        drafted.append(f"outer {name}")
        return len(view.part(inner, name))

    parts = Parts(Sources(State(), RegistryState()))
    held: list[Part] = []

    def ask(state: State) -> Any:
        parts.move(Sources(state, RegistryState()))
        held.append(parts.get((outer, ACCOUNT, "shop", "stock")))
        return held[-1].value

    return parts, ask, drafted


def test_a_part_is_drafted_anew_only_for_what_it_read_and_only_as_far_as_it_matters() -> None:
    log = canary()
    _, ask, drafted = counting()
    assert ask(log.state) == len("stock.shop.internal")
    log.update(key("virtualNode", "cart-v1"), node(host="elsewhere"))
    assert ask(log.state) == len("stock.shop.internal")
    assert drafted == ["outer stock", "inner stock"]
    log.update(key("virtualNode", "stock"), node(host="stock.shop.internal", backends=("cart.shop.local",)))
    assert ask(log.state) == len("stock.shop.internal")
    assert drafted == ["outer stock", "inner stock", "inner stock"], "it came out as it was: nothing else is drafted"
    log.update(key("virtualNode", "stock"), node(host="stock"))
    assert ask(log.state) == len("stock")
    assert drafted[3:] == ["inner stock", "outer stock"]


def test_a_part_is_forgotten_with_the_last_who_holds_it() -> None:
    log, compiler = canary(), Compiler(RENDERER)
    for of in (gateway_id(), node_id("cart-v2")):
        compiler.compile(log.state, of)
    assert len(compiler._parts._known) > 10
    for of in (gateway_id(), node_id("cart-v2")):
        compiler.forget(of)
    gc.collect()
    assert not compiler._parts._known


def test_what_parts_hold_cannot_be_changed_by_whoever_has_it() -> None:
    log, compiler = canary(), Compiler(RENDERER)
    for of in (gateway_id(), node_id("cart-v2")):
        compiler.compile(log.state, of)
    for part in itertools.chain.from_iterable(map(_whole, compiler._nodes.values())):
        assert not [each for each in _values(part.value) if isinstance(each, list | dict | set | bytearray)]


def _values(value: object) -> Iterator[object]:
    yield value
    for inner in value if isinstance(value, tuple) else ():
        yield from _values(inner)


def _whole(part: Part) -> Iterator[Part]:
    yield part
    for inner in part.parts.values():
        yield from _whole(inner)


def test_older_states_may_be_asked_about_in_any_order() -> None:
    log = canary()
    states = [log.state]
    for host in ("a", "b"):
        log.update(key("virtualNode", "stock"), node(host=host))
        states.append(log.state)
    compiler, of = Compiler(RENDERER), NodeId(ACCOUNT, "shop", "virtualNode", "cart-v2")
    for state in (states[2], states[0], states[1], states[1], states[0], states[2]):
        assert bodies(compiler.compile(state, of)) == bodies(Compiler(RENDERER).compile(state, of))
