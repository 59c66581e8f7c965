"""Access keys over HTTP, of the caller's own account: made, listed, disabled, enabled, deleted.

GET  access-keys?user=              {access_keys: [{access_key_id, principal, admin, created, disabled, last_used}]}
POST access-keys                    {user, admin?, clientToken?} → the same and secret_access_key, told this once
POST access-keys/disable|enable     {access_key_id, user?, clientToken?} → the key as it is then
POST access-keys/delete             {access_key_id, user?, clientToken?} → {access_key_id, deleted}

The secret is drawn here, sealed in the secrets class, and in no log line. A repeated call gets the first one's key.
Rights are asked for on the user that is named, on all (`user/*`) where none is. `last_used` is the hour (UTC) of the
last known use: what this server saw counts at once, what others saw within `runtime.limits.KEY_USE_EVERY_S`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from api.appmesh import origin_of
from api.authorization import Target
from api.calls import Answer, Call
from api.commands import CommandService
from api.history import iso
from api.past import event_at
from api.ports import ApiPorts
from api.reads import READING, reading
from api.requests import Fields, in_time, read_body, read_query, route, router_of
from api.routes import Router
from identity.access_key import draw_key
from identity.caller import Caller
from mesh.commands import CreateAccessKey, DeleteAccessKey, DisableAccessKey, EnableAccessKey
from mesh.errors import BadRequest, OutcomeUnknown
from mesh.principals import IAM, AccessKey

_CREATE_FIELDS: Fields = {"user": (str, True), "admin": (bool, False), "clientToken": (str, False)}
_CHANGE_FIELDS: Fields = {"access_key_id": (str, True), "user": (str, False), "clientToken": (str, False)}
_USER = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}", re.ASCII)
_Change = type[DisableAccessKey] | type[EnableAccessKey] | type[DeleteAccessKey]


class AccessKeysApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        change, update = read_body(_CHANGE_FIELDS), f"{IAM}:UpdateAccessKey"
        disable, enable, delete = (
            partial(self._change, command) for command in (DisableAccessKey, EnableAccessKey, DeleteAccessKey)
        )
        return router_of(
            [
                route("GET access-keys", f"{IAM}:ListAccessKeys", read_query("user", *READING), _of_user, self._list),
                route("POST access-keys", f"{IAM}:CreateAccessKey", read_body(_CREATE_FIELDS), _of_user, self._create),
                route("POST access-keys/disable", update, change, _of_user, disable),
                route("POST access-keys/enable", update, change, _of_user, enable),
                route("POST access-keys/delete", f"{IAM}:DeleteAccessKey", change, _of_user, delete),
            ]
        )

    async def _list(self, call: Call) -> Answer:
        read, principal = await reading(self._ports, call), _principal(call.caller, call.members)
        keys = [key for key in read.state.access_keys.values() if key.account == call.caller.account]
        keys = [key for key in keys if principal in ("", key.principal)]
        keys.sort(key=lambda key: (key.created_us, key.access_key_id))
        return read.answer({"access_keys": [self._document(key) for key in keys]})

    async def _create(self, call: Call) -> Answer:
        access_key_id, secret = draw_key(self._ports.entropy)
        command = CreateAccessKey(
            access_key_id=access_key_id,
            secret=secret,
            account=call.caller.account,
            principal=_principal(call.caller, call.members),
            admin=call.members.get("admin", False),
            by_admin=call.caller.admin,
        )
        outcome = await self._commands.submit(command, origin_of("CreateAccessKey", call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        state = self._ports.replica.state
        if outcome.replayed:  # the pair that was drawn first is the one that counts
            event = await in_time(self._ports, event_at(self._ports.history, outcome.position, state))
            if event.data is None:
                raise OutcomeUnknown("The key was made, but this server cannot open it: ask another one")
            access_key_id = event.data["access_key_id"]
        key = state.access_keys.get(access_key_id)
        if key is None:
            raise OutcomeUnknown(f"The key {access_key_id} was made, and has been deleted since: make another one")
        return Answer({**self._document(key), "secret_access_key": key.secret}, outcome.position)

    async def _change(self, change: _Change, call: Call) -> Answer:
        caller, key_id = call.caller, call.members["access_key_id"]
        command = change(key_id, caller.account, _principal(caller, call.members), by_admin=caller.admin)
        outcome = await self._commands.submit(command, origin_of(change.__name__, call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        key = self._ports.replica.state.access_keys.get(key_id)
        gone = {"access_key_id": key_id, "deleted": True}
        return Answer(gone if key is None else self._document(key), outcome.position)

    def _document(self, key: AccessKey) -> dict[str, Any]:
        used_us = self._ports.key_sightings.last_us(key)
        return {
            "access_key_id": key.access_key_id,
            "principal": key.principal,
            "account": key.account,
            "admin": key.admin,
            "created": iso(key.created_us),
            "disabled": None if key.disabled_us is None else iso(key.disabled_us),
            "last_used": None if used_us is None else iso(used_us),
        }


def _principal(caller: Caller, members: Mapping[str, Any]) -> str:
    """The ARN of the user that is named; '' where none is."""
    user = members.get("user")
    if user is None:
        return ""
    if _USER.fullmatch(user) is None:
        raise BadRequest(f"user: '{user[:80]}' must be 1 to 64 letters, digits and the characters _+=,.@-")
    return f"arn:aws:iam::{caller.account}:user/{user}"


def _of_user(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    return [Target(_principal(caller, members) or f"arn:aws:iam::{caller.account}:user/*")]
