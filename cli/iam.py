"""`meshlog iam`: access keys of the account, over HTTP. A secret is printed once, to stdout, when its key is made."""

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

_KEYS = "/meshlog/v1/access-keys"
_TITLES = {
    "access_key_id": "ACCESS KEY",
    "principal": "PRINCIPAL",
    "admin": "ADMIN",
    "created": "CREATED",
    "disabled": "DISABLED",
}


@click.group()
def iam() -> None:
    """Who may call the API."""


@iam.group()
def key() -> None:
    """Access keys: what callers sign with."""


@key.command()
@data_dir_option
@endpoint_options
@click.option("--user", required=True, help="Whose key it is: a name that `meshlog log` will show.")
@click.option("--admin", is_flag=True, help="It may do everything in the account; without this, nothing yet.")
@output_option("table", "json", "yaml")
def create(layout: Layout, *, endpoint: str | None, user: str, admin: bool, output: str) -> None:
    """Make a key. Its secret is printed once, now, and never again."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        body = {"user": user, "admin": admin, "clientToken": SystemEntropy().uuid()}
        made = client.post(_KEYS, body, repeatable=True)
    titles = {"access_key_id": "ACCESS KEY", "secret_access_key": "SECRET", "principal": "PRINCIPAL"}
    print_data(made, output, lambda: columns([made], titles), list)
    note("keep the secret now: it cannot be shown again")
    if not admin:
        note("this key may do nothing yet: until there are policies, only an --admin key may")


@key.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_keys(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the account's keys, the oldest first."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        keys: list[dict[str, Any]] = client.get(_KEYS)["access_keys"]
    print_data(keys, output, lambda: columns(keys, _TITLES), lambda: [each["access_key_id"] for each in keys])


@key.command()
@click.argument("access_key_id")
@data_dir_option
@endpoint_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def disable(layout: Layout, *, access_key_id: str, endpoint: str | None, yes: bool, output: str) -> None:
    """Disable a key for good: every API server refuses it from this event on. The last admin key stays."""
    if not (yes or interactive()):
        raise SettingsError("there is no terminal to ask on: say --yes to go on")
    target = find_target(layout, os.environ, endpoint=endpoint)
    if target.key.access_key_id == access_key_id:
        note("this is the very key that this command signs with")
    if not yes:
        click.confirm(f"Disable {access_key_id}? It cannot be enabled again.", abort=True, err=True)
    with ApiClient(target) as client:
        body = {"access_key_id": access_key_id, "clientToken": SystemEntropy().uuid()}
        gone = client.post(f"{_KEYS}/disable", body, repeatable=True)
    print_data(gone, output, lambda: columns([gone], _TITLES), list)
