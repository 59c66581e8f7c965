"""Derive mesh/model/shapes.json and mesh/registry/shapes.json from botocore's App Mesh and Cloud Map models.

    python scripts/derive_model.py [--check]

Keeps facts (operations, shapes, constraints) and drops all prose. `--check` writes nothing and exits 1 when the
committed files are not what botocore's models give. The output is sorted, one operation or shape a line, so that a
change of the model reads as a diff.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from botocore.loaders import Loader

_MESH = Path(__file__).resolve().parent.parent / "mesh"
TARGET = _MESH / "model" / "shapes.json"
SERVICE, API_VERSION = "appmesh", "2019-01-25"
MODELS = {(SERVICE, API_VERSION): TARGET, ("servicediscovery", "2017-03-14"): _MESH / "registry" / "shapes.json"}
"""Where the facts of each service's model go."""

_CONSTRAINTS = ("required", "enum", "min", "max", "pattern", "union", "payload")


def derive(service: str = SERVICE, api_version: str = API_VERSION) -> dict[str, Any]:
    """The facts of the model: {apiVersion, operations: {name: …}, shapes: {name: …}}."""
    model = Loader().load_service_model(service, "service-2", api_version)
    return {
        "apiVersion": model["metadata"]["apiVersion"],
        "operations": {name: _operation(model["operations"][name]) for name in sorted(model["operations"])},
        "shapes": {name: _shape(model["shapes"][name]) for name in sorted(model["shapes"])},
    }


def render(model: dict[str, Any]) -> str:
    """The file's text: stable, one entry a line."""
    parts = [f'"apiVersion": {json.dumps(model["apiVersion"])}']
    for section in ("operations", "shapes"):
        lines = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in model[section].items()
        )
        parts.append(f'"{section}": {{\n{lines}\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _operation(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": raw["http"]["method"],
        "uri": raw["http"]["requestUri"],
        "input": raw["input"]["shape"],
        "output": raw["output"]["shape"] if "output" in raw else None,
        "errors": sorted(error["shape"] for error in raw["errors"]),
    }


def _shape(raw: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": raw["type"]}
    shape.update({fact: raw[fact] for fact in _CONSTRAINTS if fact in raw})
    if "members" in raw:
        shape["members"] = {name: _member(member) for name, member in sorted(raw["members"].items())}
    if "member" in raw:
        shape["member"] = raw["member"]["shape"]
    for part in ("key", "value"):
        if part in raw:
            shape[part] = raw[part]["shape"]
    if "error" in raw:
        shape["status"] = raw["error"]["httpStatusCode"]
    return shape


def _member(raw: dict[str, Any]) -> dict[str, str]:
    return {fact: raw[fact] for fact in ("shape", "location", "locationName") if fact in raw}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Derive the App Mesh and Cloud Map models from botocore.")
    parser.add_argument("--check", action="store_true", help="only compare with the committed files")
    check: bool = parser.parse_args(arguments).check
    for model, target in MODELS.items():
        text = render(derive(*model))
        if not check:
            target.write_text(text, encoding="utf-8")
        elif target.read_text(encoding="utf-8") != text:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
