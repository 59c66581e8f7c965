"""Why an Envoy resource is as it is: what is not named does not matter to it, and what is named does.

Checked by what happens: specifications, one field at a time, are taken away and replaced, and bytes compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from identity.node_id import NodeId
from mesh.frozen import thaw
from mesh.kinds import ResourceKey
from mesh.registry.state import RegistryState
from mesh.state import State
from projector.envoy.compiler import Compiler
from projector.envoy.explained import Explanation, Role, explain
from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE
from tests.projector.envoy.meshes import (
    Log,
    by_node,
    by_router,
    canary,
    compiled,
    gateway_id,
    gateway_route,
    key,
    node,
    node_id,
    route,
)
from tests.projector.envoy.test_golden import CASES, ENCRYPTED

V1_CLUSTER = (TYPE_CLUSTER, "cds_egress_shop_cart-v1_http_8080")
EGRESS = (TYPE_ROUTE, "rds_egress_http_15001")
Name = tuple[str, str]
Field = str | int


def named(explanation: Explanation | None, role: Role | None = None) -> dict[str, tuple[str, ...]]:
    assert explanation is not None
    return {cause.what: cause.fields for cause in explanation.causes if role in (None, cause.role)}


def test_a_cluster_is_what_its_node_says_and_there_because_of_what_leads_to_it() -> None:
    told = explain(canary().state, gateway_id(), V1_CLUSTER)
    assert named(told, Role.CONTENT) == {
        "mesh/shop": (),
        "mesh/shop/virtualNode/cart-v1": (
            "spec.listeners[0].portMapping.port",
            "spec.listeners[0].portMapping.protocol",
            "spec.serviceDiscovery.dns.hostname",
        ),
    }
    assert named(told, Role.PRESENCE) == {
        "mesh/shop/virtualGateway/edge": (),
        "mesh/shop/virtualGateway/edge/gatewayRoute/cart": (
            "spec.httpRoute.action.target.virtualService.virtualServiceName",
        ),
        "mesh/shop/virtualService/cart.shop.local": ("spec.provider.virtualRouter.virtualRouterName",),
        "mesh/shop/virtualRouter/cart": (),
        "mesh/shop/virtualRouter/cart/route/all": ("spec.httpRoute.action.weightedTargets[0].virtualNode",),
    }
    assert told is not None
    assert told.named_by == ("RouteConfiguration/rds_egress_http_15001",)


def test_each_cause_has_the_position_of_the_event_that_made_it_so() -> None:
    log = canary()
    log.update(key("route", "all", "cart"), route({"cart-v1": 1, "cart-v2": 9}))
    told = explain(log.state, gateway_id(), EGRESS)
    assert told is not None
    places = {cause.what: cause.position for cause in told.causes}
    assert places["mesh/shop/virtualRouter/cart/route/all"] == log.events[-1].position
    assert places["mesh/shop/virtualNode/cart-v1"] == log.events[1].position


def test_what_was_deleted_is_behind_what_is_left() -> None:
    log = canary((key("route", "more", "cart"), route({"cart-v2": 1}, {"prefix": "/more"})))
    gone = log.delete(key("route", "more", "cart")).position
    told = explain(log.state, gateway_id(), EGRESS)
    assert told is not None
    assert {(cause.what, cause.position) for cause in told.causes if cause.deletion} == {
        ("mesh/shop/virtualRouter/cart (deletion)", gone)
    }
    log.delete(key("virtualNode", "cart-v1"))
    unavailable = [name for name in compiled(log, gateway_id()).resources if "cart-v1" in name[1]]
    told = explain(log.state, gateway_id(), unavailable[0])
    assert told is not None
    assert ("mesh/shop/virtualNode/cart-v1 (deletion)", log.events[-1].position) in {
        (cause.what, cause.position) for cause in told.causes
    }


def test_a_listener_does_not_depend_on_weights_and_a_node_has_no_resource_of_another() -> None:
    log = canary()
    told = explain(log.state, gateway_id(), (TYPE_LISTENER, "lds_ingress_0.0.0.0_8088"))
    assert set(named(told)) == {"mesh/shop", "mesh/shop/virtualGateway/edge"}
    assert explain(log.state, node_id("stock"), V1_CLUSTER) is None
    assert explain(log.state, node_id("nobody"), V1_CLUSTER) is None


# --- of every resource of the golden meshes, whatever is changed


def changed(value: Any) -> Iterator[Any]:
    """Other values in the place of one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        words = ("http", "http2", "tcp", "ALLOW_ALL", "DROP_ALL", "IPv4_ONLY", "IPv6_ONLY", "cart-v2", "/else")
        yield from (word for word in words if word != value)


def paths(spec: Any, path: str = "spec") -> Iterator[tuple[str, tuple[Field, ...], Any]]:
    """Every value in a specification: its path as explanations have it, the steps to it, the value."""
    members: Iterator[tuple[Field, Any]] = iter(())
    if isinstance(spec, dict):
        members = iter(spec.items())
    elif isinstance(spec, list):
        members = iter(enumerate(spec))
    for name, value in members:
        inner = f"{path}[{name}]" if isinstance(name, int) else f"{path}.{name}"
        if not isinstance(value, dict | list):
            yield inner, (name,), value
        for found, steps, leaf in paths(value, inner):
            yield found, (name, *steps), leaf


def put(spec: Any, steps: tuple[Field, ...], value: Any) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if isinstance(spec, list):
        return [put(each, tuple(rest), value) if index == step else each for index, each in enumerate(spec)]
    return {name: put(each, tuple(rest), value) if name == step else each for name, each in spec.items()}


ADDED: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "mesh": (
        {"egressFilter": {"type": "ALLOW_ALL"}},
        {"egressFilter": {"type": "DROP_ALL"}},
        {"serviceDiscovery": {"ipPreference": "IPv6_ONLY"}},
        {"serviceDiscovery": {"ipPreference": "IPv4_ONLY"}},
        {},
    ),
    "virtualRouter": ({"listeners": [{"portMapping": {"port": 8081, "protocol": "http"}}]},),
    "virtualService": ({}, by_node("cart-v2"), by_node("printer")),
    "virtualNode": ({}, node(host="other.internal", backends=("stock.shop.local",))),
    "virtualGateway": ({"listeners": [{"portMapping": {"port": 1, "protocol": "grpc"}}]},),
    "route": (
        route({"cart-v2": 7}, {"prefix": "/more"}, timeout={"perRequest": {"unit": "s", "value": 99}}),
        route({"mail": 7}, {"prefix": "/more"}),
    ),
    "gatewayRoute": (
        gateway_route("stock.shop.local", {"prefix": "/other"}),
        gateway_route("stock.shop.local", rewrite={"hostname": {"defaultTargetHostname": "DISABLED"}}),
    ),
}


def variants(log: Log, of: ResourceKey) -> Iterator[tuple[str | None, State]]:
    """States in which one resource is different: the field that is (None: more than one), and the state."""
    resource = log.state.resources[of]
    spec = thaw(resource.spec)
    for path, steps, value in paths(spec):
        for other in changed(value):
            yield path, _with(log, of, put(spec, steps, other))
    if of.kind in ("virtualNode", "virtualRouter"):
        for mapping in _mappings(log):
            first, *others = spec.get("listeners") or [{}]
            moved = {**first, "portMapping": mapping}
            for listeners in ([moved, *others], [moved, first, *others]):
                yield None, _with(log, of, {**spec, "listeners": listeners})
    if of.kind == "virtualService":
        for each in log.state.resources:
            if each.kind in ("virtualNode", "virtualRouter"):
                yield None, _with(log, of, by_node(each.name) if each.kind == "virtualNode" else by_router(each.name))
    if of.kind == "virtualNode":
        slow = {"http": {"perRequest": {"unit": "s", "value": 99}}}
        yield None, _with(log, of, {**spec, "listeners": [{**each, "timeout": slow} for each in spec["listeners"]]})
    for other in ADDED[of.kind]:
        yield None, _with(log, of, {**spec, **other} if of.kind == "mesh" else dict(other))


def _mappings(log: Log) -> list[dict[str, Any]]:
    """Every port and protocol that anything in the mesh listens on."""
    found = {
        (listener["portMapping"]["port"], listener["portMapping"]["protocol"])
        for resource in log.state.resources.values()
        for listener in resource.spec.get("listeners") or ()
    }
    return [{"port": port, "protocol": protocol} for port, protocol in sorted(found)]


def _with(log: Log, of: ResourceKey, spec: Any) -> State:
    before = log.state, len(log.events)
    log.update(of, spec)
    after = log.state
    log.state = before[0]
    del log.events[before[1] :]
    return after


def versions(compiler: Compiler, state: State, of: NodeId) -> Mapping[Name, str]:
    try:
        snapshot = compiler.compile(state, of)
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # what no API lets in; nothing is said of it
    return {name: resource.version for name, resource in snapshot.resources.items()} if snapshot else {}


def without(state: State, *keys: ResourceKey) -> State:
    for each in keys:
        state = state.without_resource(each, state.position)
    return state


@pytest.mark.parametrize("case", [*CASES, *ENCRYPTED])
def test_what_is_not_named_leaves_a_resource_alone_and_all_that_is_named_counts(case: str) -> None:
    """What is named counts if a change of it alone can be seen, or its going once the others of its kind are gone. (The
    mesh counts: nothing is there without it.)
    """
    mesh, of = (CASES | ENCRYPTED)[case]
    log, compiler = mesh(), Compiler()
    before = versions(compiler, log.state, of)
    told = {name: explain(log.state, of, name) for name in before}
    behind = {name: {cause.key: cause for cause in each.causes} for name, each in told.items() if each is not None}
    assert behind.keys() == before.keys()
    counted: dict[Name, set[ResourceKey]] = {name: set() for name in before}
    for key_of in log.state.resources:
        for path, state in variants(log, key_of):
            after = versions(compiler, state, of)
            for name in before if after else ():
                if after.get(name) == before[name]:
                    continue
                counted[name].add(key_of)
                if name not in after:
                    continue  # gone: of several that lead to it no single one is behind its being there
                cause = behind[name].get(key_of)
                assert cause is not None, f"{name} depends on {key_of.path} {path}"
                assert path is None or path in cause.fields, f"{name} depends on {key_of.path} {path}"
    for name, causes in behind.items():
        for cause in causes.values():
            assert cause.key is not None
            key_of = cause.key
            gone = versions(compiler, without(log.state, key_of), of).get(name)
            if cause.role is Role.PRESENCE:
                assert gone is None, f"{name} is there without {cause.what}"
            elif gone == before[name] and key_of not in counted[name] and key_of.kind != "mesh":
                if case == "sidecar-tls" and name[0] == TYPE_CLUSTER:
                    continue  # two backends with policies of their own may take each other's names
                alike = [each for each in causes if each is not None and each.kind == key_of.kind and each != key_of]
                alone = without(log.state, *alike)
                less = versions(compiler, without(alone, key_of), of).get(name)
                assert less != versions(compiler, alone, of).get(name), f"{name} does not depend on {cause.what}"


def test_a_registry_of_nothing_is_the_default() -> None:
    log = canary()
    assert explain(log.state, gateway_id(), V1_CLUSTER) == explain(log.state, gateway_id(), V1_CLUSTER, RegistryState())
