"""Figures that end-to-end tests measure and the session prints at its end: numbers are reported, not asserted
tightly.
"""

from __future__ import annotations

from typing import Any

_REPORTED: list[tuple[str, dict[str, Any]]] = []


def report(name: str, **values: Any) -> None:
    """Keep a line for the closing summary."""
    _REPORTED.append((name, values))


def lines() -> list[str]:
    return [f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items()) for name, values in _REPORTED]
