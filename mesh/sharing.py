"""What an account may see and change beyond its own meshes: tenants, and sharing with App Mesh's semantics. Pure.

    owner of the mesh       sees everything, changes what its account made, deletes anything
    consumer, while shared  sees everything, makes virtual nodes, routers, services and routes, changes and deletes what
                            its account made
    anybody else            nothing, and is told the same whether the mesh is there or not

Source: the App Mesh user guide, "Working with shared meshes". A share ends with its mesh: one that is made again under
the name is nobody else's. Its past before it was shared is its owner's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mesh.errors import BadRequest, Conflict, Forbidden, LimitExceeded, NotFound
from mesh.events import ACCESS_KEY_CREATED, ACCOUNT_CREATED, MESH_SHARED, MESH_UNSHARED, NewEvent
from mesh.in_use import titled
from mesh.kinds import ROUTE, VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE, ResourceKey, mesh_key
from mesh.limits import CONSUMERS_PER_MESH, TENANT_NAME_CHARS
from mesh.position import ORIGIN, Position
from mesh.rules import is_account
from mesh.tenants import Sharing, Tenant

if TYPE_CHECKING:
    from mesh.commands import Context, CreateAccount, ShareMesh, UnshareMesh
    from mesh.rollback import Change
    from mesh.state import Resource, State

CONSUMERS_MAKE = frozenset({VIRTUAL_NODE.name, VIRTUAL_ROUTER.name, VIRTUAL_SERVICE.name, ROUTE.name})
"""Kinds that a consumer may make. Gateways and their routes are the mesh owner's alone (roadmap issue 230)."""


# --- who may see what


def seen_since(state: State, owner: str, mesh: str, account: str) -> Position | None:
    """After which position `account` may see what happened in a mesh; None if it may see nothing of it."""
    if account == owner:
        return ORIGIN
    sharing = state.shares.get((owner, mesh))
    consumer = sharing.consumer(account) if sharing else None
    return consumer.since if consumer else None


def check_visible(state: State, owner: str, mesh: str, account: str) -> Position:
    """After which position the mesh's past is visible to `account`; Forbidden where nothing of it is."""
    since = seen_since(state, owner, mesh, account)
    if since is None:
        raise Forbidden(
            f"mesh {mesh} of account {owner} is not shared with account {account}, or is not there: only its owner can "
            "tell, and share it with `meshlog mesh share`"
        )
    return since


def check_visible_at(state: State, owner: str, mesh: str, account: str, at: Position) -> None:
    """Forbidden unless `account` may see what the mesh was at an earlier position; `state` is the present one."""
    since = check_visible(state, owner, mesh, account)
    if at < since:
        raise Forbidden(
            f"mesh {mesh} of account {owner} is shared with account {account} since position {since}; what it was at "
            f"{at} is its owner's: ask for {since} or later"
        )


def shared_with(state: State, account: str) -> Iterator[Resource]:
    """The meshes of others that are shared with `account`, sorted by name and owner."""
    homes = [home for home, sharing in state.shares.items() if sharing.consumer(account)]
    for owner, mesh in sorted(homes, key=lambda home: home[::-1]):
        yield state.resources[mesh_key(owner, mesh)]


def is_served(state: State, resource: Resource) -> bool:
    """Whether the proxies of a virtual node or gateway get configuration: not when its account lost the mesh."""
    return seen_since(state, resource.key.account, resource.key.mesh, resource.owner) is not None


# --- who may change what


def check_may_create(state: State, key: ResourceKey, account: str) -> None:
    """Forbidden unless `account` may make such a thing in that mesh."""
    check_visible(state, key.account, key.mesh, account)
    if account != key.account and key.kind not in CONSUMERS_MAKE:
        raise Forbidden(
            f"{titled(key)} can only be made by account {key.account}, which owns mesh {key.mesh}: a consumer makes "
            "virtual nodes, virtual routers, virtual services and routes"
        )


def check_may_change(resource: Resource, account: str, what: str = "change") -> None:
    """Forbidden unless `account` made it: the owner of a mesh does not change what consumers made either."""
    if resource.owner != account:
        key = resource.key
        raise Forbidden(
            f"{titled(key)} in mesh {key.mesh} of account {key.account} was made by account {resource.owner}, and only "
            f"that one can {what} it"
        )


def check_may_delete(resource: Resource, account: str) -> None:
    """Forbidden unless `account` made it or owns the mesh."""
    if account != resource.key.account:
        check_may_change(resource, account, "delete")


def check_may_run(state: State, node: ResourceKey, account: str) -> None:
    """Forbidden unless `account` made the node: its proxies are its maker's. One that is not there is anybody's yet."""
    there = state.get(node)
    if there is not None:
        check_may_change(there, account, "run proxies of")


def foreign_changes(changes: Iterable[Change], account: str) -> list[str]:
    """What of a rollback `account` may not do, as reasons: it takes back its own, and deletes in its own mesh."""
    return [
        f"{change.key.path} was made by account {change.owner}, and only that one can take it back: leave it out "
        "(--own takes back what your account made)"
        for change in changes
        if change.owner != account and not (change.spec is None and change.key.account == account)
    ]


def is_operator(state: State, account: str) -> bool:
    """Whether it is the account that the cluster was made with: it looks after the cluster, and adds tenants."""
    return account not in state.accounts


def check_operator(state: State, account: str, what: str) -> None:
    """Forbidden to tenants; `what` goes on "Account … cannot"."""
    if not is_operator(state, account):
        raise Forbidden(f"account {account} cannot {what}: ask whoever runs this cluster")


# --- commands


def decide_share(state: State, command: ShareMesh, context: Context) -> list[NewEvent]:
    """MeshShared for those that it is not shared with yet."""
    sharing = _own_sharing(state, command.account, command.mesh, command.consumers, context)
    new = sorted({account for account in command.consumers if sharing.consumer(account) is None})
    if len(sharing.consumers) + len(new) > CONSUMERS_PER_MESH:
        raise LimitExceeded(
            f"with: mesh {command.mesh} would be shared with {len(sharing.consumers) + len(new)} accounts, and may be "
            f"with {CONSUMERS_PER_MESH}"
        )
    return [NewEvent(MESH_SHARED, {"account": command.account, "mesh": command.mesh, "with": new})] if new else []


def decide_unshare(state: State, command: UnshareMesh, context: Context) -> list[NewEvent]:
    """MeshUnshared for those that it is shared with; what they made stays."""
    sharing = _own_sharing(state, command.account, command.mesh, command.consumers, context)
    gone = sorted({account for account in command.consumers if sharing.consumer(account) is not None})
    return [NewEvent(MESH_UNSHARED, {"account": command.account, "mesh": command.mesh, "with": gone})] if gone else []


def decide_create_account(state: State, command: CreateAccount, context: Context) -> list[NewEvent]:
    """AccountCreated, and its first admin key: from then on it helps itself."""
    check_operator(state, context.account, "add accounts to this cluster")
    if not is_account(command.account):
        raise BadRequest(f"account: '{command.account[:40]}' must be twelve digits")
    if len(command.name) > TENANT_NAME_CHARS or not command.name.isprintable():
        raise BadRequest(f"name: must be at most {TENANT_NAME_CHARS} printable characters")
    if command.account == context.account or command.account in state.accounts:
        raise Conflict(f"account {command.account} is in this cluster already: its admins make its keys")
    if command.access_key_id in state.access_keys:
        raise Conflict(f"the access key {command.access_key_id} exists already: draw another id")
    key = {
        "access_key_id": command.access_key_id,
        "secret": command.secret,
        "account": command.account,
        "principal": f"arn:aws:iam::{command.account}:user/admin",
        "admin": True,
    }
    return [
        NewEvent(ACCOUNT_CREATED, {"account": command.account, "name": command.name}),
        NewEvent(ACCESS_KEY_CREATED, key),
    ]


def _own_sharing(state: State, owner: str, mesh: str, consumers: Iterable[str], context: Context) -> Sharing:
    if owner != context.account:
        raise Forbidden(f"mesh {mesh} belongs to account {owner}, and only its owner shares it")
    for account in consumers:
        if not is_account(account):
            raise BadRequest(f"with: '{account[:40]}' must be twelve digits")
        if account == owner:
            raise BadRequest(f"with: account {account} owns mesh {mesh}, so it needs no share of it")
    home = mesh_key(owner, mesh)
    if home not in state.resources:
        raise NotFound(f"{titled(home)} is not present for account {owner}")
    return state.shares.get((owner, mesh)) or Sharing(())


# --- the fold


def fold_shared(state: State, data: Mapping[str, Any]) -> State:
    """The consumers added; a consumer that is there keeps its `since`."""
    home, at = _home(data), state.position
    if mesh_key(*home) not in state.resources:
        raise ValueError(f"mesh {home[1]} is not there")
    kept = {each[0]: each for each in (state.shares.get(home) or Sharing(()))[0]}
    new = {account: (account, at.epoch, at.position) for account in _accounts(data)}
    return _with_consumers(state, home, {**new, **kept})


def fold_unshared(state: State, data: Mapping[str, Any]) -> State:
    """The consumers taken away, as far as they are there: after a restore to a moment before, they may not be."""
    home, gone = _home(data), set(_accounts(data))
    kept = {each[0]: each for each in (state.shares.get(home) or Sharing(()))[0] if each[0] not in gone}
    return _with_consumers(state, home, kept)


def fold_account_created(state: State, data: Mapping[str, Any]) -> State:
    tenant = Tenant(data["account"], data["name"], state.time_us)
    if not is_account(tenant.account) or tenant.account in state.accounts:
        raise ValueError(f"account {tenant.account} cannot be added")
    return state.with_entry("accounts", tenant.account, tenant)


def _with_consumers(state: State, home: tuple[str, str], consumers: Mapping[str, tuple[str, int, int]]) -> State:
    entry = Sharing(tuple(consumers[account] for account in sorted(consumers))) if consumers else None
    return state.with_entry("shares", home, entry) if entry or home in state.shares else state


def _home(data: Mapping[str, Any]) -> tuple[str, str]:
    account, mesh = data["account"], data["mesh"]
    if not (isinstance(mesh, str) and is_account(account)):
        raise ValueError("a mesh is an account and a name")
    return account, mesh


def _accounts(data: Mapping[str, Any]) -> tuple[str, ...]:
    accounts = tuple(data["with"])
    if not all(map(is_account, accounts)):
        raise ValueError("a consumer is an account")
    return accounts
