"""`meshlog iam`: access keys, users, roles and policies of the account, over HTTP; and who may do what.

A secret is printed once, to stdout, when its key is made. `cli.iam_principals` and `cli.iam_policies` have the rest.
"""

from __future__ import annotations

import os
from typing import Any

import rich_click as click
from click.exceptions import Exit

from cli.client import ApiClient, find_target
from cli.iam_policies import policy
from cli.iam_principals import role, user
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, interactive, note, output_option, print_data
from mesh.errors import NotFound, SettingsError
from runtime.clock import SystemEntropy

_KEYS = "/meshlog/v1/access-keys"
_TITLES = {
    "access_key_id": "ACCESS KEY",
    "principal": "PRINCIPAL",
    "admin": "ADMIN",
    "created": "CREATED",
    "last_used": "LAST USED",
    "disabled": "DISABLED",
}
_MADE = {"access_key_id": "ACCESS KEY", "secret_access_key": "SECRET", "principal": "PRINCIPAL"}
_DENIED = 1


@click.group()
def iam() -> None:
    """Who may do what: users, roles, policies and access keys, as IAM has them."""


iam.add_command(user)
iam.add_command(role)
iam.add_command(policy)


@iam.command()
@click.argument("action")
@click.argument("resource", default="*")
@data_dir_option
@endpoint_options
@click.option("--user", "user_name", metavar="NAME", help="The user to ask about.")
@click.option("--role", "role_name", metavar="NAME", help="The role to ask about.")
@click.option("--source-ip", metavar="ADDRESS", help="Where the call would come from.  [default: from here]")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag that the call would put on it.")
@output_option("table", "json", "yaml")
def can(
    layout: Layout,
    *,
    action: str,
    resource: str,
    endpoint: str | None,
    user_name: str | None,
    role_name: str | None,
    source_ip: str | None,
    tags: tuple[str, ...],
    output: str,
) -> None:
    """Tell whether a user or role may do ACTION on RESOURCE (an ARN), and which policy decides. Exit code 1: no.

    ACTION is such as appmesh:DeleteMesh. Whether another account shares what it owns is not asked.
    """
    body: dict[str, Any] = {"action": action, "resource": resource}
    named = {"user": user_name, "role": role_name, "source_ip": source_ip}
    body |= {name: value for name, value in named.items() if value is not None}
    if tags:
        body["tags"] = dict(_tag(text) for text in tags)
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        told = client.post("/meshlog/v1/iam/simulate", body, repeatable=True)
    titles = {
        "decision": "DECISION",
        "action": "ACTION",
        "resource": "RESOURCE",
        "policy": "BY",
        "statement": "STATEMENT",
    }
    print_data(told, output, lambda: columns([told], titles), list)
    if told["message"] is not None:
        note(told["message"])
        raise Exit(_DENIED)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise SettingsError(f"--tag '{text[:80]}' is not KEY=VALUE")
    return key, value


@iam.group()
def key() -> None:
    """Access keys: what callers sign with. A user may have two, so that one can take the other's place."""


@key.command()
@data_dir_option
@endpoint_options
@click.option("--user", "user_name", required=True, help="Whose key it is: a name that `meshlog log` will show.")
@click.option("--admin", is_flag=True, help="The account's root: it may do everything there, whatever policies say.")
@output_option("table", "json", "yaml")
def create(layout: Layout, *, endpoint: str | None, user_name: str, admin: bool, output: str) -> None:
    """Make a key, and the user if there is none. Its secret is printed once, now, and never again."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        made = _make(client, user_name, admin=admin)
        lacking = not admin and not _rights(client, user_name)
    print_data(made, output, lambda: columns([made], _MADE), list)
    note("keep the secret now: it cannot be shown again")
    if lacking:
        note(f"this key may do nothing yet: `meshlog iam policy attach AWSAppMeshFullAccess --user {user_name}`")


def _make(client: ApiClient, user_name: str, *, admin: bool) -> dict[str, Any]:
    return client.post(
        _KEYS, {"user": user_name, "admin": admin, "clientToken": SystemEntropy().uuid()}, repeatable=True
    )


def _rights(client: ApiClient, user_name: str) -> list[str]:
    """The names of a user's policies."""
    shown = client.get("/meshlog/v1/iam/users/show", {"user": user_name})
    return [*shown["policies"], *shown["inline"]]


@key.command("list")
@data_dir_option
@endpoint_options
@click.option("--user", "user_name", help="Only this user's.")
@output_option()
def list_keys(layout: Layout, *, endpoint: str | None, user_name: str | None, output: str) -> None:
    """List the account's keys, the oldest first, and the hour in which each was last used."""
    query = {"user": user_name} if user_name is not None else None
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        keys: list[dict[str, Any]] = client.get(_KEYS, query)["access_keys"]
    print_data(keys, output, lambda: columns(keys, _TITLES), lambda: [each["access_key_id"] for each in keys])


@key.command()
@click.argument("access_key_id")
@data_dir_option
@endpoint_options
@output_option("table", "json", "yaml")
def rotate(layout: Layout, *, access_key_id: str, endpoint: str | None, output: str) -> None:
    """Make a second key for the user of ACCESS_KEY_ID, who has both until the old one is disabled."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        keys: list[dict[str, Any]] = client.get(_KEYS)["access_keys"]
        old = next((each for each in keys if each["access_key_id"] == access_key_id), None)
        if old is None:
            raise NotFound(f"there is no access key {access_key_id}: see `meshlog iam key list`")
        made = _make(client, old["principal"].rpartition("/")[2], admin=old["admin"])
    print_data(made, output, lambda: columns([made], _MADE), list)
    note("keep the secret now: it cannot be shown again")
    note(
        f"next: give it to all that use {access_key_id}; when `meshlog iam key list` shows that nothing does any more, "
        f"`meshlog iam key disable {access_key_id}`, and later `meshlog iam key delete {access_key_id}`"
    )


@key.command()
@click.argument("access_key_id")
@data_dir_option
@endpoint_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def disable(layout: Layout, *, access_key_id: str, endpoint: str | None, yes: bool, output: str) -> None:
    """Disable a key: every API server refuses it from this event on. The last admin key stays."""
    question = f"Disable {access_key_id}? Whatever uses it is refused from now on."
    gone = _change(layout, "disable", access_key_id, endpoint, question=None if yes else question)
    print_data(gone, output, lambda: columns([gone], _TITLES), list)


@key.command()
@click.argument("access_key_id")
@data_dir_option
@endpoint_options
@output_option("table", "json", "yaml")
def enable(layout: Layout, *, access_key_id: str, endpoint: str | None, output: str) -> None:
    """Let a disabled key open again what it did."""
    back = _change(layout, "enable", access_key_id, endpoint, question=None)
    print_data(back, output, lambda: columns([back], _TITLES), list)


@key.command()
@click.argument("access_key_id")
@data_dir_option
@endpoint_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("table", "json", "yaml")
def delete(layout: Layout, *, access_key_id: str, endpoint: str | None, yes: bool, output: str) -> None:
    """Delete a key for good. The last admin key stays."""
    question = f"Delete {access_key_id}? It cannot be brought back."
    gone = _change(layout, "delete", access_key_id, endpoint, question=None if yes else question)
    print_data(gone, output, lambda: columns([gone], {"access_key_id": "ACCESS KEY", "deleted": "DELETED"}), list)


def _change(
    layout: Layout, change: str, access_key_id: str, endpoint: str | None, *, question: str | None
) -> dict[str, Any]:
    if question is not None and not interactive():
        raise SettingsError("there is no terminal to ask on: say --yes to go on")
    target = find_target(layout, os.environ, endpoint=endpoint)
    if target.key.access_key_id == access_key_id:
        note("this is the very key that this command signs with")
    if question is not None:
        click.confirm(question, abort=True, err=True)
    with ApiClient(target) as client:
        body = {"access_key_id": access_key_id, "clientToken": SystemEntropy().uuid()}
        return client.post(f"{_KEYS}/{change}", body, repeatable=True)
