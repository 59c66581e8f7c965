"""Accounts and shared meshes over HTTP: who shares what with whom, and tenants for those who run the cluster.

GET  shares?mesh=       {account, shares: [{mesh, owner, account, since}]}   of the caller's meshes, and with it
POST shares             {mesh, with: [account], clientToken?} → {mesh, owner, shared_with: [account], changed}
POST shares/end         the same: shared with those no more; their proxies get nothing then, what they made stays
GET  accounts           {accounts: [{account, name, created, operator}]}   a tenant sees itself
POST accounts           {account, name?, clientToken?} → the same, and its first admin key, told this once

`since` is the position from which on the other account sees what happens in the mesh. Both lists are read as api.reads
says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.appmesh import origin_of
from api.calls import Answer, Call
from api.commands import CommandService, Outcome
from api.history import iso
from api.past import event_at
from api.ports import ApiPorts
from api.reads import READING, reading
from api.requests import Fields, in_time, nothing, own_mesh, read_body, read_query, route, router_of
from api.routes import Router
from identity.access_key import draw_key
from mesh.commands import CreateAccount, ShareMesh, UnshareMesh
from mesh.errors import BadRequest, OutcomeUnknown
from mesh.sharing import is_operator
from mesh.state import State
from mesh.tenants import Sharing, Tenant

_TOKEN: Fields = {"clientToken": (str, False)}
_SHARE_FIELDS: Fields = {"mesh": (str, True), "with": (list, True), **_TOKEN}
_ACCOUNT_FIELDS: Fields = {"account": (str, True), "name": (str, False), **_TOKEN}


class SharingApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports, self._commands = ports, commands

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET shares", "ListShares", read_query("mesh", *READING), nothing, self._list),
                route("POST shares", "ShareMesh", read_body(_SHARE_FIELDS), own_mesh, self._share),
                route("POST shares/end", "UnshareMesh", read_body(_SHARE_FIELDS), own_mesh, self._unshare),
                route("GET accounts", "ListAccounts", read_query(*READING), nothing, self._accounts),
                route("POST accounts", "CreateAccount", read_body(_ACCOUNT_FIELDS), nothing, self._create_account),
            ]
        )

    async def _list(self, call: Call) -> Answer:
        read, mesh = await reading(self._ports, call), call.members.get("mesh")
        shares = [share for share in _shares(read.state, call.caller.account) if mesh in (None, share["mesh"])]
        return read.answer({"account": call.caller.account, "shares": shares})

    async def _share(self, call: Call) -> Answer:
        return await self._change(call, ShareMesh)

    async def _unshare(self, call: Call) -> Answer:
        return await self._change(call, UnshareMesh)

    async def _change(self, call: Call, command: type[ShareMesh | UnshareMesh]) -> Answer:
        account, mesh = call.caller.account, call.members["mesh"]
        if not call.members["with"]:
            raise BadRequest("with: name at least one account")
        asked = command(account, mesh, frozenset(call.members["with"]))
        outcome = await self._commands.submit(asked, origin_of(command.__name__, call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        state = self._ports.replica.state
        sharing = state.shares.get((account, mesh)) or Sharing(())
        document = {
            "mesh": mesh,
            "owner": account,
            "shared_with": [consumer[0] for consumer in sharing.consumers],
            "changed": await self._changed(outcome, state),
        }
        return Answer(document, outcome.position)

    async def _changed(self, outcome: Outcome, now: State) -> list[str]:
        """Whom a call added or took away; a repeated one is told what the first did."""
        if outcome.replayed:
            event = await in_time(self._ports, event_at(self._ports.history, outcome.position, now))
            return [*(event.data or {}).get("with", ())]
        events = outcome.decided.events if outcome.decided else ()
        return [account for event in events for account in event.data.get("with", ())]

    async def _accounts(self, call: Call) -> Answer:
        read, own = await reading(self._ports, call), call.caller.account
        state = read.state
        tenants = [state.accounts[account] for account in sorted(state.accounts)]
        if is_operator(state, own):
            told = [_account(state, Tenant(own, "", 0)), *(_account(state, tenant) for tenant in tenants)]
        else:
            told = [_account(state, tenant) for tenant in tenants if tenant.account == own]
        return read.answer({"accounts": told})

    async def _create_account(self, call: Call) -> Answer:
        access_key_id, secret = draw_key(self._ports.entropy)
        account, name = call.members["account"], call.members.get("name", "")
        command = CreateAccount(account, name, access_key_id, secret)
        outcome = await self._commands.submit(command, origin_of("CreateAccount", call))
        await self._ports.replica.wait_for(outcome.position, self._ports.read_deadline_s)
        state = self._ports.replica.state
        if outcome.replayed:  # the pair that was drawn first counts; its event is the last of that call's
            event = await in_time(self._ports, event_at(self._ports.history, outcome.position, state))
            if event.data is None:
                raise OutcomeUnknown("The account was made, but this server cannot open its key: ask another one")
            access_key_id, secret = event.data["access_key_id"], event.data["secret"]
        key = {"access_key_id": access_key_id, "secret_access_key": secret}
        return Answer({**_account(state, state.accounts[account]), **key}, outcome.position)


def _shares(state: State, account: str) -> Iterator[dict[str, Any]]:
    """What `account` shares, and what is shared with it, by owner, mesh and consumer."""
    for owner, mesh in sorted(state.shares):
        for consumer, epoch, position in state.shares[owner, mesh].consumers:
            if account in (owner, consumer):
                yield {"mesh": mesh, "owner": owner, "account": consumer, "since": f"{epoch}.{position}"}


def _account(state: State, tenant: Tenant) -> Mapping[str, Any]:
    return {
        "account": tenant.account,
        "name": tenant.name,
        "created": iso(tenant.created_us) if tenant.created_us else None,
        "operator": is_operator(state, tenant.account),
    }
