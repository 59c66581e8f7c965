"""Parts of a bootstrap, put together: maps are merged, lists go on, and a value that is said later stands.

Documents in, a document out; neither is changed. Nothing here knows what the parts mean.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.bootstrap import Document

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def merge(document: Document, *parts: Document) -> Document:
    """`document` with `parts` laid over it one after the other, all the way down."""
    merged = dict(document)
    for part in parts:
        for name, value in part.items():
            merged[name] = _joined(merged[name], value) if name in merged else value
    return merged


def snake_keys(part: Document) -> Document:
    """A part that somebody wrote by hand, its outermost names as this program spells them: `statsSinks` is
    `stats_sinks`. Envoy reads both, but not one value under two names."""
    return {_HUMP.sub(lambda hump: f"_{hump[1].lower()}", name): value for name, value in part.items()}


def _joined(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return merge(old, new)
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    return new
