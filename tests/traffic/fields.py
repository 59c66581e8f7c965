"""Every field of the model's specs, and which proof shows its effect on traffic.

A proof is a function of the world that fails if one of its fields is ignored. That is itself proven: `blind_to(field)`
makes the compiler's fold lose the field (or, where a spec cannot be without it, another value takes its place), and the
proof has to fail.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mesh.events import RESOURCE_CREATED, RESOURCE_UPDATED, Event
from mesh.frozen import thaw
from mesh.kinds import KINDS
from mesh.model.operations import SHAPES
from tests.traffic.control_plane import Sees
from tests.traffic.world import World


@dataclass(frozen=True)
class Proof:
    """`run` fails unless each of `fields` has its effect.

    `patience_s`: what a condition that comes late needs at most, on a machine at rest; 0 where nothing comes late.
    """

    name: str
    fields: tuple[str, ...]
    run: Callable[[World], None]
    patience_s: float = 0.0


PROOFS: list[Proof] = []

NO_EFFECT: Mapping[str, str] = {
    "virtualNode.listeners[].healthCheck.port": "the API holds it equal to the listener's port, so it says nothing new",
    "virtualGateway.listeners[].healthCheck.port": "the API holds it equal to the listener's port",
    "virtualGateway.listeners[].healthCheck.timeoutMillis": "a gateway checks itself, and always answers in time",
    "virtualGateway.listeners[].healthCheck.unhealthyThreshold": "a gateway's check of itself fails by its answer, "
    "which Envoy believes at once",
}
"""Fields that no traffic can show, and why."""

OTHERS: tuple[tuple[str, Any], ...] = (
    (r"portMapping\.port$", 7),
    (r"portMapping\.protocol$", "http"),
    (r"virtualServiceName$|virtualNodeName$|virtualRouterName$|weightedTargets\[\]\.virtualNode$", "nobody"),
    (r"weight$", 1),
    (r"(headers|metadata)\[\]\.name$", "x-other"),
    (r"queryParameters\[\]\.name$", "other"),
    (r"range\.start$", -(2**31)),
    (r"range\.end$", 2**31 - 1),
    (r"tls\.mode$", "DISABLED"),
    (r"healthCheck\.protocol$", "http"),
    (r"(healthy|unhealthy)Threshold$", 10),
    (r"intervalMillis$", 300_000),
    (r"timeoutMillis$", 60_000),
    (r"maxServerErrors$", 1_000_000),
    (r"(interval|baseEjectionDuration)\.value$", 100_000_000),
    (r"maxEjectionPercent$", 0),
    (r"maxRetries$", 0),
    (r"dns\.hostname$", "nobody.mesh.test"),
    (r"(namespaceName|serviceName)$", "nobody"),
    (r"(json|attributes)\[\]\.key$", "other"),
    (r"attributes\[\]\.value$", "other"),
    (r"json\[\]\.value$", "-"),
    (r"(maxConnections|maxRequests)$", 1_000_000),
)
"""What takes the place of a field that a spec cannot be without; the first that fits. Anything else is dropped."""

_REQUIRED_ELSEWHERE = re.compile(r"route.*serviceName$|gatewayRoute.*serviceName$")


def proves(*fields: str, patience_s: float = 0.0, **variants: Sequence[str]) -> Callable[[Callable[..., None]], Any]:
    """Register a function of the world as the proof of these fields, once for each combination of `variants`, whose
    names stand in braces in the fields and are given to the function. Without fields: of what no field says.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for values in itertools.product(*variants.values()):
            given = dict(zip(variants, values, strict=True))
            name = function.__name__ + ("[" + "-".join(values) + "]" if values else "")
            prove(name, [field.format(**given) for field in fields], partial(function, **given), patience_s=patience_s)
        return function

    return register


def prove(name: str, fields: Sequence[str], run: Callable[[World], None], *, patience_s: float = 0.0) -> None:
    unknown = [field for field in fields if field not in FIELDS]
    assert not unknown, f"{name} proves fields that the model does not have: {unknown}"
    assert all(each.name != name for each in PROOFS), f"two proofs are called {name}"
    PROOFS.append(Proof(name, tuple(fields), run, patience_s))


def _leaves(shape: str, path: str) -> Iterator[str]:
    facts = SHAPES[shape]
    if facts["type"] == "structure":
        for member, of in facts["members"].items():
            yield from _leaves(of["shape"], f"{path}.{member}")
    elif facts["type"] == "list":
        yield from _leaves(facts["member"], f"{path}[]")
    else:
        yield path


FIELDS: tuple[str, ...] = tuple(path for kind in KINDS.values() for path in _leaves(f"{kind.title}Spec", kind.name))
"""Each leaf of each spec: the resource's kind, members by dots, `[]` for the elements of a list."""


def covered() -> set[str]:
    return {field for proof in PROOFS for field in proof.fields}


def blind_to(field: str) -> Sees:
    """What the compiler's fold sees of an event when it does not see `field`."""
    kind, _, rest = field.partition(".")
    steps = rest.replace("[]", ".[]").split(".")
    other = next((value for pattern, value in OTHERS if re.search(pattern, field) and not _optional(field)), None)

    def sees(event: Event) -> Event:
        if event.type not in (RESOURCE_CREATED, RESOURCE_UPDATED) or event.data is None:
            return event
        if event.data["key"][2] != kind:
            return event
        spec = thaw(event.data["spec"])
        _blind(spec, steps, other)
        return replace(event, data={**event.data, "spec": spec})

    return sees


def _optional(field: str) -> bool:
    return bool(_REQUIRED_ELSEWHERE.search(field))


def _blind(value: Any, steps: Sequence[str], other: Any) -> None:
    step, rest = steps[0], steps[1:]
    if step == "[]":
        if not rest:
            value.clear()
        for each in value:
            _blind(each, rest, other)
    elif step in value:
        if rest and rest != ["[]"]:
            _blind(value[step], rest, other)
        elif other is not None:
            value[step] = other
        else:
            del value[step]
