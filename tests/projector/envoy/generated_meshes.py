"""Meshes made out of the model: every spec is one that the API takes, put together so that two proxies read them all.

`meshes` draws what people might write; `hostile_meshes` what somebody writes who wants to see an Envoy refuse it. What
the API would refuse is left out (and counted by nobody: `tests.api.test_generated` looks at refusals).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import hypothesis.strategies as st

from identity.node_id import NodeId
from mesh.errors import BadRequest
from mesh.frozen import freeze
from mesh.limits import NAME_MAX_CHARS
from mesh.registry.state import Health, Instance, RegistryState, ServiceKey
from mesh.rules import check_key, check_spec
from tests.api.generated import GATEWAY, NODES, ROUTER, SERVICE, specs
from tests.projector.envoy.meshes import ACCOUNT, Log, by_node, by_router, key, node, node_id, route, router

OTHER = "other.local"
"""A service provided by a node, beside the router's."""
FILES = {"certificateChain": "leaf.crt", "privateKey": "leaf.key"}
MOST = 3

HOSTILE_NAMES = (
    "n" * 255,
    "ünïcode ✓ 名前",
    "*",
    "*.example",
    "a b",
    "%DOWNSTREAM%",
    "a,b;c=d",
    "[::1]",
    "a:8080",
    '"quoted"',
    "back\\slash",
    "{{x}}",
    "..x",
    "-",
    "UPPER.example",
    "trailing.",
    "a" * 64 + ".example",
    "%2e%2e",
    "cds_egress_shop_x_unavailable",
    "\u202eright-to-left",
)
HOSTILE_TEXTS = (
    *HOSTILE_NAMES,
    "",
    " ",
    "/",
    "//",
    "/" * 250,
    "/%00",
    "/%0d%0a",
    "/a/../b",
    "/?q=1",
    "/#x",
    "/\\1\\9",
    "/{a}/{b=**}",
    "/ünï/✓",
    "%REQ(X)%",
    "%%",
    ":authority",
    ":method",
    "host",
    "Host",
    "x y",
    "x:y",
    "connection",
    "transfer-encoding",
    "\u00a0",
    "\ufeff",
    "é" * 120,
    "\U0001f600" * 60,
)
HOSTILE_REGEXES = (
    "(a+)+$",
    "(a|a)*b",
    "((a*)*)*",
    "(.*)(.*)(.*)(.*)(.*)(.*)(.*)x",
    "a{1000}",
    "(a{100}){100}",
    "((a{30}){30}){30}",
    "[^\\x00-\\x{10FFFF}]",
    "\\C+",
    "\\pL+",
    "(?i)ß",
    "(?P<n>a)(?P<n>b)",
    "(?=x)",
    "\\1",
    "(?#c)",
    "[[:word:]]+",
    "[",
    "(",
    "*",
    "a**",
    "\\",
    "(?s).*",
    "(?U)a+",
    "^$",
    "",
    "|",
    "(" * 100 + "a" + ")" * 100,
    "x?" * 80,
    "(x{0,9}){0,9}y",
    "\\Qa.b",
    "é+",
)


class Mesh:
    """A state and a registry to compile; `specs` is what it is made of, for a failure's message."""

    def __init__(self, log: Log, registry: RegistryState) -> None:
        self.log, self.registry = log, registry

    def __repr__(self) -> str:
        resources = {str(each): dict(found.spec) for each, found in self.log.state.resources.items()}
        return f"Mesh({resources})"


def files(folder: Path) -> dict[str, str]:
    """Where certificates are, by member of a spec."""
    return {member: str(folder / name) for member, name in FILES.items()}


def largest(services: int, routes: int) -> tuple[Log, NodeId]:
    """A node that calls `services` services of `routes` routes each, to ten targets, with names as long as may be."""

    def long(name: str) -> str:
        return f"{name}-".ljust(NAME_MAX_CHARS, "x")

    log = Log()
    for number in range(services):
        log.create(key("virtualNode", long(f"node{number}")), node(host=f"n{number}.{'h' * 63}.example"))
    for number in range(services):
        log.create(key("virtualRouter", long(f"router{number}")), router())
        log.create(key("virtualService", long(f"service{number}")), by_router(long(f"router{number}")))
        targets = {long(f"node{(number + step) % services}"): 10 for step in range(10)}
        for each in range(routes):
            match = {"prefix": f"/{each}".ljust(255, "p"), "headers": [{"name": "x", "match": {"regex": "(a+)+$"}}]}
            log.create(key("route", long(f"route{each}"), long(f"router{number}")), route(targets, match))
    caller = node(backends=tuple(long(f"service{number}") for number in range(services)))
    log.create(key("virtualNode", long("caller")), caller)
    return log, node_id(long("caller"))


@st.composite
def meshes(draw: st.DrawFn, folder: Path, hostile: bool = False) -> Mesh:
    """A mesh whose node `n0` calls everything and whose gateway leads everywhere. Certificates are files of `folder`,
    and access logs go to /dev/null: what is not there at a proxy is nothing that a control plane can know."""
    names = _names(draw, hostile)
    log = Log()
    log.update(key("mesh", "shop"), draw(specs("mesh")))

    def add(kind: str, name: str, spec: Any, parent: str = "") -> None:
        spec = _proxys_own(_renamed(copy.deepcopy(spec), names), files(folder))
        if hostile:
            spec = _spoilt(draw, spec)
        try:
            check_spec(kind, spec)
            check_key(key(kind, name, parent))
        except BadRequest:
            return
        log.create(key(kind, name, parent), freeze(spec))

    for name in NODES:
        spec = draw(specs("virtualNode").filter(_listening))
        if name == NODES[0]:
            spec["backends"] = [{"virtualService": _backend(draw, callee)} for callee in (SERVICE, OTHER)]
        add("virtualNode", names[name], spec)
    add("virtualRouter", names[ROUTER], draw(specs("virtualRouter").filter(_listening)))
    for number in range(draw(st.integers(1, MOST))):
        add("route", f"r{number}", _portless(draw, draw(specs("route"))), names[ROUTER])
    add("virtualService", names[SERVICE], by_router(names[ROUTER]))
    add("virtualService", names[OTHER], by_node(names[NODES[1]]))
    add("virtualGateway", names[GATEWAY], _ports_below(draw(specs("virtualGateway").filter(_listening))))
    for number in range(draw(st.integers(1, MOST))):
        add("gatewayRoute", f"g{number}", _portless(draw, draw(specs("gatewayRoute"))), names[GATEWAY])
    return Mesh(log, _registered(draw, log))


def _listening(spec: dict[str, Any]) -> bool:
    return bool(spec.get("listeners"))


def _portless(draw: st.DrawFn, spec: Any) -> Any:
    """Mostly without the ports of matches and targets, which hardly ever meet a listener's."""
    return _without_ports(spec) if draw(st.integers(0, 3)) else spec


def _without_ports(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ports(part) for name, part in value.items() if name != "port"}
    return [_without_ports(part) for part in value] if isinstance(value, list) else value


def _names(draw: st.DrawFn, hostile: bool) -> dict[str, str]:
    plain = {name: name for name in (*NODES, ROUTER, SERVICE, GATEWAY, OTHER)}
    if not hostile:
        return plain
    drawn = draw(st.lists(st.sampled_from(HOSTILE_NAMES), min_size=len(plain), max_size=len(plain), unique=True))
    return dict(zip(plain, drawn, strict=True))


def _backend(draw: st.DrawFn, service: str) -> dict[str, Any]:
    drawn = draw(specs("virtualNode")).get("backends") or [{"virtualService": {}}]
    return {**drawn[0]["virtualService"], "virtualServiceName": service}


_NAMED = ("virtualNode", "virtualServiceName", "virtualNodeName", "virtualRouterName")


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The spec with the plain names of other resources replaced."""
    if isinstance(value, dict):
        for member in _NAMED:
            if isinstance(value.get(member), str):
                value[member] = names.get(value[member], value[member])
        for part in value.values():
            _renamed(part, names)
    elif isinstance(value, list):
        for part in value:
            _renamed(part, names)
    return value


def _proxys_own(value: Any, paths: dict[str, str]) -> Any:
    """The spec with files that are there. Secrets become files too: nobody here has them."""
    if isinstance(value, dict):
        for name, part in list(value.items()):
            if name in paths and isinstance(part, str):
                value[name] = paths[name]
            elif name in ("sds", "acm"):
                del value[name]
                value["file"] = dict(paths)
            elif name == "accessLog" and isinstance(part.get("file"), dict):
                part["file"]["path"] = "/dev/null"
            else:
                _proxys_own(part, paths)
        if isinstance(value.get("trust"), dict) and "file" in value["trust"]:
            value["trust"] = {"file": {"certificateChain": paths["certificateChain"]}}
    elif isinstance(value, list):
        for part in value:
            _proxys_own(part, paths)
    return value


def _ports_below(spec: dict[str, Any]) -> dict[str, Any]:
    """A gateway's ports where no test server has its own."""
    for index, each in enumerate(spec["listeners"]):
        each["portMapping"]["port"] = 100 + index
        if "port" in each.get("healthCheck", {}):
            each["healthCheck"]["port"] = 100 + index
    return spec


_KEPT = frozenset({*_NAMED, "path", "mode", "protocol", "unit"})
"""Texts that say what others are called, or are one of few."""


def _spoilt(draw: st.DrawFn, value: Any) -> Any:
    """The spec with some of its free texts replaced by hostile ones."""
    if isinstance(value, list):
        return [_spoilt(draw, part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, part in value.items():
        if not isinstance(part, str):
            found[name] = _spoilt(draw, part)
        elif name in _KEPT or name in FILES or draw(st.integers(0, 2)):
            found[name] = part
        elif name == "regex":
            found[name] = draw(st.sampled_from(HOSTILE_REGEXES))
        elif name == "prefix":
            found[name] = "/" + draw(st.sampled_from(HOSTILE_TEXTS))
        else:
            found[name] = draw(st.sampled_from(HOSTILE_TEXTS))
    return found


def _registered(draw: st.DrawFn, log: Log) -> RegistryState:
    """Some instances for what Cloud Map is to find."""
    state = RegistryState()
    for resource in log.state.resources.values():
        wanted = (resource.spec.get("serviceDiscovery") or {}).get("awsCloudMap") if resource.spec else None
        if wanted is None or "serviceName" not in wanted:
            continue
        service = ServiceKey(ACCOUNT, wanted["namespaceName"], wanted["serviceName"])
        attributes = {each["key"]: each["value"] for each in wanted.get("attributes") or ()}
        for number in range(draw(st.integers(0, 2))):
            own = {**attributes, "AWS_INSTANCE_IPV4": f"127.0.0.{number + 1}", "AVAILABILITY_ZONE": "eu-west-1a"}
            state = state.with_instance(service, f"i{number}", Instance(f"i{number}", freeze(own), Health.HEALTHY))
    return state
