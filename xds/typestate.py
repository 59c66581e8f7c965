"""One resource type on one stream: what the proxy asked for, what it holds, what is under way. Pure.

Both protocols keep the same books; they differ in how requests change them and how a response is laid out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.position import Position
from projector.snapshot import XdsResource
from xds.view import FULL_SET_TYPES, Named

WILDCARD = "*"

UNSURE = ""
"""Held, but in which version is unknown: the response that carried it was refused."""

REMOVED = ""
"""The `refused` version of a removal."""

DETAIL_SEARCH_CHARS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A response that the proxy has neither accepted nor refused yet.

    `resources` is all that it carried; `changed` the names that were new to the proxy, as far as we know; `version`
    its SotW version.
    """

    nonce: str
    position: Position
    resources: dict[str, XdsResource]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    version: str = ""


@dataclass(slots=True)
class TypeState:
    """The books of one type. Made at the first request of that type on the stream."""

    type_url: str
    empty_handed: bool
    """The proxy said at its first request that it holds nothing of this type."""
    claimed: str = ""
    """SotW: the version that the first request reported, until it has been compared with ours."""
    wildcard: bool = False
    named_before: bool = False
    """A request has named something: from then on an empty list no longer means the wildcard."""
    names: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    """Names that were asked for and not answered since, whatever `held` says."""
    answer_owed: bool = False
    """A response is due even if there is nothing to put into it."""
    held: dict[str, str] = field(default_factory=dict)
    """Name to version, as last accepted."""
    good: dict[str, XdsResource] = field(default_factory=dict)
    """SotW clusters and listeners: the resources behind `held`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name to the version that the proxy refused on this stream; never pushed again unasked."""
    outstanding: Outstanding | None = None
    last_nonce: str = ""
    _source: Named | None = None
    _changes: list[XdsResource] = field(default_factory=list)
    _gone: list[str] = field(default_factory=list)
    """What `changes` and `gone` found for `_source`: most events leave most types alone, and these walk all names."""

    @property
    def knows_wildcard(self) -> bool:
        return self.type_url in FULL_SET_TYPES

    def wants(self, name: str) -> bool:
        """Whether the subscription covers `name`."""
        return self.wildcard or name in self.names

    def wanted(self, source: Named) -> Iterable[XdsResource]:
        """What of `source` the subscription covers, in name order."""
        if self.wildcard:
            return source.values()
        return [source[name] for name in sorted(self.names) if name in source]

    def touch(self) -> None:
        """The books have changed: what was found for a source no longer holds."""
        self._source = None

    def changes(self, source: Named) -> list[XdsResource]:
        """What of `source` is to be sent: asked for, or other than held; never what was refused, unless asked for."""
        self._compare(source)
        return self._changes

    def gone(self, source: Named) -> list[str]:
        """What the proxy holds and `source` lacks, without removals that it refused."""
        self._compare(source)
        return self._gone

    def _compare(self, source: Named) -> None:
        if self._source is source:
            return
        held, owed, refused = self.held, self.owed, self.refused
        self._source = source
        self._changes = [
            resource
            for resource in self.wanted(source)
            if resource.name in owed
            or (held.get(resource.name) != resource.version and refused.get(resource.name) != resource.version)
        ]
        self._gone = [name for name in held if name not in source and refused.get(name) != REMOVED]

    def blocked(self, source: Named) -> bool:
        """Whether the proxy lacks something of `source` because it refused it."""
        if not self.refused:
            return False
        return any(self.refused.get(resource.name) == resource.version for resource in self.wanted(source))

    def resolved(self, source: Named) -> bool:
        """Nothing under way and nothing to send, though something may have been refused."""
        return self.outstanding is None and not self.answer_owed and not self.changes(source)

    def complete(self, source: Named) -> bool:
        """The proxy has accepted all that it wants of `source`."""
        return self.resolved(source) and not self.blocked(source)

    def ask(self, name: str) -> None:
        """The proxy wants `name` (again): it is answered even if we believe that it holds it."""
        self.names.add(name)
        self.owed.add(name)
        self.refused.pop(name, None)

    def forget(self, name: str) -> None:
        """The proxy no longer wants `name` and so drops it."""
        for book in (self.held, self.good, self.refused):
            book.pop(name, None)
        self.owed.discard(name)

    def drop_wildcard(self) -> None:
        """Only explicit names stay subscribed."""
        self.wildcard = False
        for name in [name for name in self.held if name not in self.names]:
            self.forget(name)

    def note_accepted(self, response: Outstanding) -> None:
        """The proxy now holds what `response` carried, and no longer what it removed. (What a SotW set carried in
        place of something refused is not changed by it, so that stays refused.)"""
        for name, resource in response.resources.items():
            self.held[name] = resource.version
        for name in response.changed:
            self.refused.pop(name, None)
        for name in response.removed:
            for book in (self.held, self.good, self.refused):
                book.pop(name, None)

    def note_refused(self, response: Outstanding, detail: str) -> tuple[str, ...]:
        """The proxy refused `response`. Its valid parts may have been applied all the same (Envoy does), so what it
        now holds of the changed names is unknown. The names that `detail` mentions are not sent again in that version;
        if it mentions none, none of the changed ones is."""
        suspects = mentioned(response.changed + response.removed, detail) or response.changed + response.removed
        for name in response.changed:
            self.held[name] = UNSURE
        for name in suspects:
            resource = response.resources.get(name)
            self.refused[name] = resource.version if resource else REMOVED
        return suspects


def mentioned(names: Iterable[str], detail: str) -> tuple[str, ...]:
    """Those of `names` that stand in `detail` as whole words."""
    text = detail[:DETAIL_SEARCH_CHARS]
    words = set(re.split(r"[^\w.\-/:@]+", text))
    words |= {word.strip(".:") for word in words}
    return tuple(name for name in names if name in words or (" " in name and name in text))
