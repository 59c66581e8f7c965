"""Access keys over HTTP, for admins, of their own account: made, listed, disabled for good.

GET  access-keys                    {access_keys: [{access_key_id, principal, admin, created, disabled}]}
POST access-keys                    {user, admin?, clientToken?} → the same and secret_access_key, told this once
POST access-keys/disable            {access_key_id, clientToken?} → {access_key_id, disabled}

The secret is drawn here, sealed in the secrets class, and in no log line. A repeated call gets the first one's key.
"""

from __future__ import annotations

import re
from typing import Any

from api.appmesh import confirmed_state, origin_of
from api.calls import Answer, Call
from api.commands import CommandService
from api.history import iso
from api.past import event_at
from api.ports import ApiPorts
from api.requests import Fields, in_time, nothing, read_body, read_query, route, router_of
from api.routes import Router
from identity.access_key import draw_key
from mesh.commands import CreateAccessKey, DisableAccessKey
from mesh.errors import BadRequest, OutcomeUnknown
from mesh.state import AccessKey

_CREATE_FIELDS: Fields = {"user": (str, True), "admin": (bool, False), "clientToken": (str, False)}
_DISABLE_FIELDS: Fields = {"access_key_id": (str, True), "clientToken": (str, False)}
_USER = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}", re.ASCII)


class AccessKeysApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET access-keys", "ListAccessKeys", read_query(), nothing, self._list),
                route("POST access-keys", "CreateAccessKey", read_body(_CREATE_FIELDS), nothing, self._create),
                route(
                    "POST access-keys/disable", "DisableAccessKey", read_body(_DISABLE_FIELDS), nothing, self._disable
                ),
            ]
        )

    async def _list(self, call: Call) -> Answer:
        state = await confirmed_state(self._ports)
        keys = [key for key in state.access_keys.values() if key.account == call.caller.account]
        keys.sort(key=lambda key: (key.created_us, key.access_key_id))
        return Answer({"access_keys": [_document(key) for key in keys]}, state.position)

    async def _create(self, call: Call) -> Answer:
        user = call.members["user"]
        if _USER.fullmatch(user) is None:
            raise BadRequest(f"user: '{user[:80]}' must be 1 to 64 letters, digits and the characters _+=,.@-")
        access_key_id, secret = draw_key(self._ports.entropy)
        command = CreateAccessKey(
            access_key_id=access_key_id,
            secret=secret,
            account=call.caller.account,
            principal=f"arn:aws:iam::{call.caller.account}:user/{user}",
            admin=call.members.get("admin", False),
        )
        outcome = await self._commands.submit(command, origin_of("CreateAccessKey", call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        state = self._ports.replica.state
        if outcome.replayed:  # the pair that was drawn first is the one that counts
            event = await in_time(self._ports, event_at(self._ports.history, outcome.position, state))
            if event.data is None:
                raise OutcomeUnknown("The key was made, but this server cannot open it: ask another one")
            access_key_id = event.data["access_key_id"]
        key = state.access_keys[access_key_id]
        return Answer({**_document(key), "secret_access_key": key.secret}, outcome.position)

    async def _disable(self, call: Call) -> Answer:
        command = DisableAccessKey(call.members["access_key_id"], call.caller.account)
        outcome = await self._commands.submit(command, origin_of("DisableAccessKey", call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        return Answer(_document(self._ports.replica.state.access_keys[command.access_key_id]), outcome.position)


def _document(key: AccessKey) -> dict[str, Any]:
    return {
        "access_key_id": key.access_key_id,
        "principal": key.principal,
        "account": key.account,
        "admin": key.admin,
        "created": iso(key.created_us),
        "disabled": None if key.disabled_us is None else iso(key.disabled_us),
    }
