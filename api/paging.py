"""Lists cut into pages. A page begins after a name, so that writes in between neither repeat nor skip what stays."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from mesh.errors import BadRequest

Item = TypeVar("Item")

_MARK_CHARS = 12


def page(
    items: Sequence[Item], name: Callable[[Item], str], scope: Sequence[str], limit: int, token: str | None
) -> tuple[list[Item], str | None]:
    """At most `limit` of `items` (sorted by `name`) after the one that `token` names, and the next page's token.

    `scope` names the list: a token of another list is a BadRequest.
    """
    after = None if token is None else _read(token, scope)
    rest = [item for item in items if after is None or name(item) > after]
    cut = rest[:limit]
    return cut, _token(name(cut[-1]), scope) if len(rest) > limit else None


def _mark(scope: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(scope)).encode()).hexdigest()[:_MARK_CHARS]


def _token(name: str, scope: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([_mark(scope), name]).encode()).decode()


def _read(token: str, scope: Sequence[str]) -> str:
    try:
        mark, name = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        mark, name = "", None
    if mark != _mark(scope) or not isinstance(name, str):
        raise BadRequest("nextToken: is not a token of this list; begin again without one")
    return name
