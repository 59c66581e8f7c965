"""How figures are told: JSON lines, one for each thing measured, each with its n. Pure."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float | int]:
    """n, p50, p99 and max in milliseconds, by nearest rank. An empty input has n 0 alone."""
    if not seconds:
        return {"n": 0}
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 3)

    return {"n": len(ordered), "p50_ms": rank(0.50), "p99_ms": rank(0.99), "max_ms": round(ordered[-1] * 1e3, 3)}


def line(name: str, what: str, seconds: Sequence[float]) -> str:
    """One measured thing as a JSON line; `what` says from where to where."""
    return json.dumps({"hop": name, "what": what, **quantiles_ms(seconds)})


def host(**more: Any) -> str:
    """What the figures depend on, as a JSON line."""
    packages = {name: metadata.version(name) for name in ("grpcio", "botocore", "protobuf")}
    facts = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    return json.dumps({"host": {**facts, **packages, **more}})
