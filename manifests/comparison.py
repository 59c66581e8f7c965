"""Whether two specs say the same: what App Mesh may fill in, and what clients leave out, makes no difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.frozen import thaw

Spec = Mapping[str, Any]


def same_spec(one: Spec, other: Spec) -> bool:
    """Equal but for null, empty lists, and a health check's port where it is the listener's own."""
    return bool(_plain(one) == _plain(other))


def _plain(spec: Spec) -> Any:
    plain = _without_nothing(thaw(spec))
    listeners = plain.get("listeners")
    for listener in listeners if isinstance(listeners, list) else ():
        check, mapping = (listener.get(member) for member in ("healthCheck", "portMapping"))
        if isinstance(check, dict) and isinstance(mapping, dict) and check.get("port") == mapping.get("port"):
            del check["port"]
    return plain


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        found = {name: _without_nothing(item) for name, item in value.items()}
        return {name: item for name, item in found.items() if item is not None and item != []}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value
