"""Keys over `/meshlog/v1/`: what wraps what, rotation, and re-wrapping. Admins only; no key ever leaves through here.

GET  keys            {data_keys: [...], key_encryption_keys: [...], providers: [...], members: [...], to_do: [...]}
POST keys/rotate     {class?: config|secrets|signing|all} → {drawn: [id]}
POST keys/rewrap     {class?: config|secrets|all, to?: KEK-ID|SCHEME, force?: bool}
                     → {rewrapped: [{id, kek}], left: [id], notes: [text]}
                     `to` also makes the key the first one of this server's own key file

All of it is done to the data keys of both logs, the meshes' and the registry's: a key-encryption key that wraps nothing
of the one may still be all that opens the other.

A key-encryption key must be on every host before a data key is wrapped with it: members tell what they hold, and
re-wrapping is refused while one lacks it.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from api.appmesh import confirmed_state, origin_of
from api.calls import Answer, Call
from api.commands import CommandService
from api.outcomes import Origin
from api.ports import ApiPorts, KeyPorts
from api.reads import MIN_POSITION, reading
from api.requests import Fields, nothing, read_body, read_query, route, router_of
from api.routes import Router
from eventlog.keys.file import FileKeyProvider
from eventlog.keys.rotation import KeyRow, ProviderRow, Survey, Target, held_as
from eventlog.records import KeyClass
from mesh.commands import RecordDataKeys
from mesh.errors import BadRequest, Conflict, NotReady
from mesh.frozen import Frozen
from mesh.position import Position
from mesh.registry.commands import RegistryCommand
from mesh.registry.state import RegistryState

RegistryCommands: TypeAlias = CommandService[RegistryState, RegistryCommand, Frozen]

_ALL = "all"
_ROTATE: Fields = {"class": (str, False)}
_REWRAP: Fields = {"class": (str, False), "to": (str, False), "force": (bool, False)}
_OPENING = {"api": (KeyClass.CONFIG, KeyClass.SECRETS), "projector": (KeyClass.CONFIG,)}
"""The classes of key-encryption key that a role needs."""


class _LogKeys(NamedTuple):
    """One log's data keys, and what records in that log what was done to them."""

    log_id: str
    keys: KeyPorts
    record: Callable[[RecordDataKeys, Origin], Awaitable[Position]]


class KeysApi:
    """The handlers, bound to one server's ports. `registry`: what writes the registry's log, if there is one here."""

    def __init__(self, ports: ApiPorts, commands: CommandService, registry: RegistryCommands | None = None) -> None:
        self._ports = ports
        self._commands = commands
        self._registry = registry

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET keys", "ListKeys", read_query(MIN_POSITION), nothing, self._list),
                route("POST keys/rotate", "RotateKeys", read_body(_ROTATE), nothing, self._rotate),
                route("POST keys/rewrap", "RewrapKeys", read_body(_REWRAP), nothing, self._rewrap),
            ]
        )

    async def _list(self, call: Call) -> Answer:
        read = await reading(self._ports, call)
        found = _merged([await log.keys.rotation.survey(log.log_id) for log in self._logs()])
        members = await self._members()
        document = {
            "data_keys": [_key(row) for row in found.keys],
            "key_encryption_keys": _keks(found.keys, found.providers, members),
            "providers": [_provider(row) for row in found.providers],
            "members": [{name: member[name] for name in ("role", "id", "zone", "keks")} for member in members],
        }
        return read.answer(document | {"to_do": _to_do(found.keys, found.providers, document)})

    async def _rotate(self, call: Call) -> Answer:
        classes = _classes(call.members.get("class", _ALL), tuple(KeyClass))
        drawn: list[str] = []
        positions: list[Position] = []
        for log in self._logs():
            fresh = [await log.keys.rotation.draw(log.log_id, key_class) for key_class in classes]
            # So that the record of it is sealed with the new key already, and every reader loads it.
            await log.keys.keyring.load(log.log_id)
            positions.append(await log.record(RecordDataKeys(tuple(fresh)), origin_of("RotateKeys", call)))
            drawn += fresh
        return Answer({"drawn": drawn}, positions[0])

    async def _rewrap(self, call: Call) -> Answer:
        body, rotation = call.members, self._keys.rotation
        classes = _classes(body.get("class", _ALL), (KeyClass.CONFIG, KeyClass.SECRETS))
        position = (await confirmed_state(self._ports)).position
        # All that may be refused comes first, so that one class is not done without the other.
        targets = {key_class: await rotation.choose(key_class, body.get("to")) for key_class in classes}
        if not body.get("force", False):
            members = await self._members()
            for key_class, target in targets.items():
                _refuse_lacking(members, key_class, target)
        done: list[dict[str, str]] = []
        left: list[str] = []
        notes: list[str] = []
        for number, log in enumerate(self._logs()):
            rows = (await log.keys.rotation.survey(log.log_id)).keys
            for key_class, target in targets.items():
                mine = [row.key_id for row in rows if row.key_class.wrapped_by is key_class]
                changed = [key_id for key_id in mine if await log.keys.rotation.rewrap(log.log_id, key_id, target)]
                done += [{"id": key_id, "kek": target.kek_id} for key_id in changed]
                left += [key_id for key_id in mine if key_id not in changed]
                command = RecordDataKeys(tuple(changed), target.kek_id)
                at = await log.record(command, origin_of(f"RewrapKeys:{key_class}", call))
                position = position if number else at
        for target in targets.values():
            notes += _prefer(target) if body.get("to") is not None else []
        return Answer({"rewrapped": done, "left": left, "notes": notes}, position)

    def _logs(self) -> list[_LogKeys]:
        """The log of the meshes, and the registry's if this server has one; NotReady until both were read."""
        ports, beside = self._ports, self._ports.registry

        async def record(command: RecordDataKeys, origin: Origin) -> Position:
            return (await self._commands.submit(command, origin)).position

        found = [_LogKeys(ports.replica.head_ref.head.log_id, self._keys, record)]
        if beside is not None and beside.keys is not None and self._registry is not None:
            registry = self._registry

            async def record_beside(command: RecordDataKeys, origin: Origin) -> Position:
                return (await registry.submit(command, origin)).position

            found.append(_LogKeys(beside.replica.head_ref.head.log_id, beside.keys, record_beside))
        return found

    @property
    def _keys(self) -> KeyPorts:
        if self._ports.keys is None:
            raise NotReady("This server has no key providers. Ask another one.")
        return self._ports.keys

    async def _members(self) -> Sequence[Mapping[str, Any]]:
        found = [] if self._ports.members is None else await self._ports.members()
        return [{"keks": ()} | dict(member) for member in found if member["role"] in _OPENING]


def _merged(surveys: Sequence[Survey]) -> Survey:
    """Of several logs, under the same providers: a key is unused if it is in all of them."""
    first, *others = surveys
    providers = [
        row._replace(
            unused=tuple(kek for kek in row.unused if all(kek in other.providers[at].unused for other in others))
        )
        for at, row in enumerate(first.providers)
    ]
    return Survey(tuple(row for survey in surveys for row in survey.keys), tuple(providers))


def _classes(name: str, known: tuple[KeyClass, ...]) -> tuple[KeyClass, ...]:
    if name == _ALL:
        return known
    for key_class in known:
        if key_class.value == name:
            return (key_class,)
    raise BadRequest(f"class: '{name[:80]}' is none of {', '.join(each.value for each in known)} or {_ALL}")


def _lacking(members: Sequence[Mapping[str, Any]], key_class: KeyClass, scheme: str, kek_id: str) -> list[str]:
    """Who needs the class and does not hold the key."""
    name = held_as(key_class, scheme, kek_id)
    return [
        str(member["id"])
        for member in members
        if key_class.wrapped_by in _OPENING[member["role"]] and name not in member["keks"]
    ]


def _refuse_lacking(members: Sequence[Mapping[str, Any]], key_class: KeyClass, target: Target) -> None:
    lacking = _lacking(members, key_class, target.scheme, target.kek_id)
    if lacking:
        raise Conflict(
            f"{', '.join(lacking)} cannot unwrap with {target.kek_id} of class '{key_class.value}', and would not "
            f"start again: {_how_to_give(target.scheme)}. They tell what they hold every few seconds; then call again"
        )


def _prefer(target: Target) -> list[str]:
    """What this server wraps from now on is wrapped by the target too; what to say if its file may not be written."""
    if isinstance(target.provider, FileKeyProvider):
        try:
            target.provider.prefer(target.kek_id)
        except OSError as failure:
            said = f"{target.place} could not be written ({failure.strerror}), and still has another key first: run "
            return [said + "`meshlog keys import --current` on its host"]
    return []


def _how_to_give(scheme: str) -> str:
    if scheme == "file":
        return "run `meshlog keys import` on each of their hosts first"
    return f"set the '{scheme}' provider in their settings beside the present one first, and start them again"


def _key(row: KeyRow) -> dict[str, Any]:
    created = datetime.datetime.fromtimestamp(row.created_us // 1_000_000, datetime.UTC)
    return {
        "id": row.key_id,
        "class": row.key_class.value,
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scheme": row.scheme,
        "kek": row.kek_id,
        "sealing": row.sealing,
        "problem": row.problem,
    }


def _provider(row: ProviderRow) -> dict[str, Any]:
    return {
        "class": row.key_class.value,
        "scheme": row.scheme,
        "place": row.place,
        "wraps": row.first,
        "reachable": row.problem is None,
        "current": row.current,
        "unused": list(row.unused),
        "problem": row.problem,
    }


def _keks(
    keys: Sequence[KeyRow], providers: Sequence[ProviderRow], members: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each key-encryption key that wraps something or lies in this server's files; how many data keys need it."""
    needed = Counter((row.key_class.wrapped_by, row.scheme, row.kek_id) for row in keys if row.kek_id)
    for row in providers:
        for kek_id in (*row.unused, row.current):
            if kek_id:
                needed.setdefault((row.key_class, row.scheme, kek_id), 0)
    current = {(row.key_class, row.scheme, row.current) for row in providers if row.first}
    return [
        {
            "id": kek_id,
            "class": key_class.value,
            "scheme": scheme,
            "data_keys": count,
            "current": (key_class, scheme, kek_id) in current,
            "lacking": _lacking(members, key_class, scheme, kek_id),
        }
        for (key_class, scheme, kek_id), count in sorted(needed.items())
    ]


def _to_do(keys: Sequence[KeyRow], providers: Sequence[ProviderRow], document: Mapping[str, Any]) -> list[str]:
    """What an operator should do, the worst first; empty when all is well."""
    found = [f"{row.key_id}: {row.problem}" for row in keys if row.problem]
    found += [row.problem for row in providers if row.problem]
    for kek in document["key_encryption_keys"]:
        name, what = kek["id"], f"class '{kek['class']}'"
        if kek["data_keys"] and kek["lacking"]:
            found.append(
                f"{', '.join(kek['lacking'])} cannot unwrap with {name} of {what}, and would not start again: "
                f"{_how_to_give(kek['scheme'])}"
            )
        elif kek["data_keys"] and not kek["current"]:
            found.append(
                f"{kek['data_keys']} data keys of {what} are wrapped by {name}, not by the first key of this server's "
                f"provider: run `meshlog keys rewrap --class {kek['class']}`, or, if {name} is the newer one, make it "
                "the first (`meshlog keys import --current`)"
            )
        elif not kek["data_keys"] and not kek["current"] and kek["scheme"] == "file":
            found.append(
                f"{name} of {what} wraps nothing any more: its line may go from every key file (keep a copy for as "
                "long as backups from before are kept)"
            )
    return found
