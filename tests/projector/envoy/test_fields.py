"""Nothing that is compiled uses a field, value or message that Envoy 1.34, of stock App Mesh images, does not know.

The list of what it knows is made by `make envoy-fields` from the Go module of Envoy's API at its last version before
1.34.0. Two witnesses: what the sources of the compiler name, and what whole meshes turn into.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from projector.envoy import protos
from tests.projector.envoy.api_fields import envoy_1_34, used
from tests.projector.envoy.meshes import compiled
from tests.projector.envoy.test_golden import CASES, ENCRYPTED, INSTANCES

SOURCES = sorted(Path(inspect.getfile(protos)).parent.glob("*.py"))


def full_names() -> dict[type, str]:
    """Message classes to what Envoy calls them: nested ones are `Outer.Inner` there and `OuterInner` here."""
    flat = {name.replace("envoy.", "", 1).replace(".", "").lower(): name for name in envoy_1_34().messages}
    found: dict[type, str] = {}
    for module in vars(protos).values():
        if not isinstance(module, ModuleType) or "envoy_data_plane.envoy." not in module.__name__:
            continue
        package = module.__name__.split("envoy_data_plane.envoy.", 1)[1]
        for name, value in vars(module).items():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                known = flat.get(f"{package}.{name}".replace(".", "").lower())
                if known is not None:
                    found[value] = known
    return found


def named_in_sources() -> Iterator[tuple[str, type, set[str]]]:
    """(place, class, fields) of every message that the compiler's sources make."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            owner = call.func.value
            module = getattr(protos, owner.id, None) if isinstance(owner, ast.Name) else None
            made = getattr(module, call.func.attr, None)
            if isinstance(made, type) and dataclasses.is_dataclass(made) and made.__module__.startswith("envoy_data"):
                yield f"{path.name}:{call.lineno}", made, {each.arg for each in call.keywords if each.arg}


def test_every_field_that_the_sources_name_is_known_to_envoy_1_34() -> None:
    names, seen, unknown = full_names(), set[str](), []
    for place, made, fields in named_in_sources():
        if made.__module__.startswith("envoy_data_plane.google"):
            continue
        if made not in names:
            unknown.append(f"{place}: message {made.__name__}")
            continue
        known = {field.name for field in envoy_1_34().messages[names[made]].values()}
        seen |= {f"{names[made]}.{field}" for field in fields}
        unknown += [f"{place}: {names[made]}.{field}" for field in sorted(fields - known)]
    assert unknown == []
    assert len(seen) > 100


@pytest.mark.parametrize("name", sorted(CASES | ENCRYPTED))
def test_whole_meshes_use_nothing_that_envoy_1_34_does_not_know(name: str) -> None:
    mesh, of = (CASES | ENCRYPTED)[name]
    unknown = {
        field
        for (type_url, _), resource in compiled(mesh(), of, registry=INSTANCES).resources.items()
        for field in used(type_url.rpartition("/")[2], resource.body)
        if "<" in field
    }
    assert unknown == set()


def test_a_newer_field_value_or_message_would_be_found() -> None:
    cluster = "envoy.config.cluster.v3.Cluster"
    assert list(used(cluster, b"\x0a\x01a")) == [f"{cluster}.name"]
    assert list(used(cluster, b"\xfa\x7f\x01a")) == [f"{cluster}.<2047>"]
    assert list(used(cluster, b"\x10\x09")) == [f"{cluster}.type", f"{cluster}.type=<9>"]
    assert list(used("envoy.config.cluster.v3.Newer", b"")) == ["envoy.config.cluster.v3.Newer.<unknown message>"]
