"""What is there, as the planner needs it: resources, and a state that the API's rules can be asked about. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.commands import Command, Context, Create, Delete, TagResource, UntagResource, Update
from mesh.decide import decide
from mesh.errors import CallerError
from mesh.frozen import freeze
from mesh.kinds import KINDS, MESH, ResourceKey
from mesh.limits import QUOTA_MAX
from mesh.position import ORIGIN
from mesh.quotas import QUOTAS, QuotaValue
from mesh.rules import tags_from_list
from mesh.state import Resource, State
from mesh.tenants import Sharing


@dataclass(frozen=True, slots=True)
class LiveResource:
    """One resource as it is. `owner`: the account that made it."""

    key: ResourceKey
    spec: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


def live_resource(document: Mapping[str, Any]) -> LiveResource:
    """From the API's own document of a resource, with its tags where they are beside it."""
    kind = next(kind for kind in _INNERMOST_FIRST if kind.name_member in document)
    parent = document[KINDS[kind.parent].name_member] if kind.parent else ""
    metadata = document["metadata"]
    key = ResourceKey(metadata["meshOwner"], document[MESH.name_member], kind.name, parent, document[kind.name_member])
    tags = tags_from_list(document.get("tags") or ())
    return LiveResource(key, document["spec"], tags, metadata["resourceOwner"])


def names_by_kind(keys: Iterable[ResourceKey]) -> dict[tuple[str, str, str], set[str]]:
    """What is there as a reader of manifests is told of it: names by mesh owner, mesh and kind."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for key in keys:
        found.setdefault((key.account, key.mesh, key.kind), set()).add(key.name)
    return found


_INNERMOST_FIRST = tuple(sorted(KINDS.values(), key=lambda kind: (kind.parent is None, kind is MESH)))


class Rehearsal:
    """The meshes as they would be after some commands of `account`, by the rules that the API itself decides by.

    `quotas`: the account's own values by code; those that are not told do not bind here.
    """

    def __init__(self, account: str, live: Collection[LiveResource], quotas: Mapping[str, int]) -> None:
        self._context = Context(account, f"arn:aws:iam::{account}:root", "Rehearse", uid="new")
        state = State()
        for each in live:
            state = state.with_resource(_resource(each.key, each.spec, each.tags, each.owner or account))
        for owner in {each.key.account for each in live} | {account}:
            for code in QUOTAS:
                value = quotas.get(code, QUOTA_MAX) if owner == account else QUOTA_MAX
                state = state.with_entry("quotas", (owner, code), QuotaValue(value))
        # What of another account's can be seen is shared.
        for home in {(each.key.account, each.key.mesh) for each in live if each.key.account != account}:
            state = state.with_entry("shares", home, Sharing(((account, 0, 0),)))
        self._state = state

    def carry_out(self, commands: Iterable[Command]) -> None:
        """Count `commands` as done; a CallerError, and none of them counts, if the API would refuse one."""
        before = self._state
        try:
            for command in commands:
                if decide(self._state, command, self._context).events:
                    self._state = self._after(command)
        except CallerError:
            self._state = before
            raise

    def _after(self, command: Command) -> State:
        match command:
            case Create(key, spec, tags):
                return self._state.with_resource(_resource(key, spec, tags, self._context.account))
            case Delete(key):
                return self._state.without_resource(key, ORIGIN)
            case Update(key) | TagResource(key) | UntagResource(key):
                before = self._state.resources[key]
                spec = command.spec if isinstance(command, Update) else before.spec
                tags = with_tags(before.tags, command)
                return self._state.with_resource(_resource(key, spec, tags, before.owner))
            case _:
                raise TypeError(f"{type(command).__name__} is no command of a manifest")


def with_tags(tags: Mapping[str, str], command: Command) -> dict[str, str]:
    """What a command leaves of a resource's tags."""
    match command:
        case TagResource(_, given):
            return {**tags, **given}
        case UntagResource(_, names):
            return {name: value for name, value in tags.items() if name not in names}
        case _:
            return dict(tags)


def _resource(key: ResourceKey, spec: Mapping[str, Any], tags: Mapping[str, str], owner: str) -> Resource:
    return Resource(key, freeze(spec), freeze(tags), key.path, 1, owner, 0, 0, ORIGIN)
