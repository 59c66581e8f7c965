"""`meshlog mesh` and `meshlog account`: whom a mesh is shared with, and the cluster's accounts.

A new account's secret is printed once, to stdout, when it is made.
"""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, interactive, note, output_option, print_data
from mesh.errors import SettingsError
from runtime.clock import SystemEntropy

_SHARES, _ACCOUNTS = "/meshlog/v1/shares", "/meshlog/v1/accounts"
_SHARE_TITLES = {"mesh": "MESH", "owner": "OWNER", "account": "SHARED WITH", "since": "SINCE POSITION"}
_ACCOUNT_TITLES = {"account": "ACCOUNT", "name": "NAME", "operator": "OPERATOR", "created": "CREATED"}


@click.group()
def mesh() -> None:
    """Share meshes with other accounts.

    They see all of it, and make virtual nodes, virtual routers, virtual services and routes in it, which are theirs.
    """


@mesh.command()
@click.argument("name", metavar="MESH")
@click.option("--with", "accounts", multiple=True, required=True, metavar="ACCOUNT", help="Whom.  Can be repeated.")
@data_dir_option
@endpoint_options
@output_option()
def share(layout: Layout, *, endpoint: str | None, name: str, accounts: tuple[str, ...], output: str) -> None:
    """Share MESH with other accounts. Only its owner can."""
    done = _post(layout, endpoint, _SHARES, {"mesh": name, "with": list(accounts)})
    _show_sharing(done, output)
    if not done["changed"]:
        note("nothing changed: it was shared with all of them already")
    note(f"they name it with its owner: --mesh {name}@{done['owner']}, and in App Mesh's API by meshOwner")


@mesh.command()
@click.argument("name", metavar="MESH")
@click.option("--with", "accounts", multiple=True, metavar="ACCOUNT", help="With whom no more.  Can be repeated.")
@click.option("--all", "everybody", is_flag=True, help="With nobody any more.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@data_dir_option
@endpoint_options
@output_option()
def unshare(
    layout: Layout,
    *,
    endpoint: str | None,
    name: str,
    accounts: tuple[str, ...],
    everybody: bool,
    yes: bool,
    output: str,
) -> None:
    """Share MESH with some accounts no more.

    What they made in it stays, and goes on to be reached by others; their own proxies get no configuration any more
    (they keep what they have until they restart). Only you can delete what they made then.
    """
    if bool(accounts) == everybody:
        raise SettingsError("say with whom no more: --with ACCOUNT, or --all")
    if not (yes or interactive()):
        raise SettingsError("there is no terminal to ask on: say --yes to go on")
    target = find_target(layout, os.environ, endpoint=endpoint)
    with ApiClient(target) as client:
        if everybody:
            told = client.get(_SHARES, {"mesh": name})
            accounts = tuple(each["account"] for each in told["shares"] if each["owner"] == told["account"])
        if not accounts:
            note(f"mesh {name} is shared with nobody")
            return
        if not yes:
            click.confirm(f"Share mesh {name} no more with {', '.join(accounts)}?", abort=True, err=True)
        body = {"mesh": name, "with": list(accounts), "clientToken": SystemEntropy().uuid()}
        done = client.post(f"{_SHARES}/end", body, repeatable=True)
    _show_sharing(done, output)


@mesh.command()
@click.argument("name", metavar="[MESH]", required=False)
@data_dir_option
@endpoint_options
@output_option()
def shares(layout: Layout, *, endpoint: str | None, name: str | None, output: str) -> None:
    """List who shares which mesh with whom: the account's own meshes, and those that are shared with it."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        found: list[dict[str, Any]] = client.get(_SHARES, {"mesh": name} if name else {})["shares"]
    names = [f"{each['mesh']}@{each['owner']}/{each['account']}" for each in found]
    print_data(found, output, lambda: columns(found, _SHARE_TITLES), lambda: names)


@click.group()
def account() -> None:
    """Accounts of the cluster: tenants, each with meshes, keys and quotas of its own."""


@account.command()
@click.argument("number", metavar="ACCOUNT")
@click.option("--name", default="", help="For people, such as a team's.")
@data_dir_option
@endpoint_options
@output_option("table", "json", "yaml")
def create(layout: Layout, *, endpoint: str | None, number: str, name: str, output: str) -> None:
    """Add ACCOUNT (twelve digits) to the cluster, and make its first admin key, printed once, now.

    For admins of the account that the cluster was made with. The new account looks after its own users and keys.
    """
    made = _post(layout, endpoint, _ACCOUNTS, {"account": number, "name": name})
    titles = {"account": "ACCOUNT", "access_key_id": "ACCESS KEY", "secret_access_key": "SECRET"}
    print_data(made, output, lambda: columns([made], titles), list)
    note("keep the secret now: it cannot be shown again")


@account.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_accounts(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the cluster's accounts; a tenant sees itself."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        found: list[dict[str, Any]] = client.get(_ACCOUNTS)["accounts"]
    print_data(found, output, lambda: columns(found, _ACCOUNT_TITLES), lambda: [each["account"] for each in found])


def _post(layout: Layout, endpoint: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        return client.post(path, body | {"clientToken": SystemEntropy().uuid()}, repeatable=True)


def _show_sharing(done: dict[str, Any], output: str) -> None:
    row = {**done, "shared_with": ", ".join(done["shared_with"]) or "nobody"}
    titles = {"mesh": "MESH", "owner": "OWNER", "shared_with": "SHARED WITH"}
    print_data(done, output, lambda: columns([row], titles), lambda: list(done["shared_with"]))
