"""`meshlog iam user` and `meshlog iam role`: who there is in the account."""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options, read_text
from cli.output import columns, note, output_option, print_data
from runtime.clock import SystemEntropy

_ROOT = "/meshlog/v1/iam"
_TITLES = {"name": "NAME", "attached": "POLICIES", "own": "INLINE", "created": "CREATED"}


@click.group()
def user() -> None:
    """Users: people and programs with access keys of their own."""


@click.group()
def role() -> None:
    """Roles: what users, of this account or another, may become for a while (sts:AssumeRole)."""


def _post(layout: Layout, endpoint: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        return client.post(f"{_ROOT}/{path}", body | {"clientToken": SystemEntropy().uuid()}, repeatable=True)


def _print(found: Any, output: str) -> None:
    rows = [
        {
            **each,
            "attached": ", ".join(arn.rpartition("/")[2] for arn in each["policies"]),
            "own": ", ".join(each["inline"]),
        }
        for each in (found if isinstance(found, list) else [found])
    ]
    print_data(found, output, lambda: columns(rows, _TITLES), lambda: [each["name"] for each in rows])


@user.command("create")
@click.argument("name")
@data_dir_option
@endpoint_options
@output_option()
def create_user(layout: Layout, *, name: str, endpoint: str | None, output: str) -> None:
    """Make a user, who may do nothing until a policy says otherwise."""
    _print(_post(layout, endpoint, "users", {"user": name}), output)
    note(f"next: `meshlog iam policy attach POLICY --user {name}`, and `meshlog iam key create --user {name}`")


@role.command("create")
@click.argument("name")
@data_dir_option
@endpoint_options
@click.option("--trust", required=True, metavar="FILE", help="Who may assume it: a trust policy, JSON; '-' is stdin.")
@output_option()
def create_role(layout: Layout, *, name: str, endpoint: str | None, trust: str, output: str) -> None:
    """Make a role, which may do nothing until a policy says otherwise."""
    _print(_post(layout, endpoint, "roles", {"role": name, "trust": read_text(trust)}), output)
    note(f"next: `meshlog iam policy attach POLICY --role {name}`")


@role.command("trust")
@click.argument("name")
@click.argument("file")
@data_dir_option
@endpoint_options
@output_option()
def trust_role(layout: Layout, *, name: str, file: str, endpoint: str | None, output: str) -> None:
    """Replace who may assume a role, by the trust policy in FILE (JSON; '-' is stdin)."""
    _print(_post(layout, endpoint, "roles/trust", {"role": name, "document": read_text(file)}), output)


def _list(layout: Layout, endpoint: str | None, plural: str, output: str) -> None:
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        _print(client.get(f"{_ROOT}/{plural}")[plural], output)


@user.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_users(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the account's users and what is attached to them."""
    _list(layout, endpoint, "users", output)


@role.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_roles(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the account's roles and what is attached to them."""
    _list(layout, endpoint, "roles", output)


def _show(layout: Layout, endpoint: str | None, kind: str, name: str, output: str) -> None:
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        shown = client.get(f"{_ROOT}/{kind}s/show", {kind: name})
    print_data(shown, output, lambda: _told(shown), list)


def _told(shown: dict[str, Any]) -> str:
    lines = [shown["arn"], f"created      {shown['created']}"]
    lines += [
        f"policies     {', '.join(shown['policies']) or '-'}",
        f"access keys  {', '.join(shown['access_keys']) or '-'}",
    ]
    documents = {f"inline policy {name}": document for name, document in shown["documents"].items()}
    if "trust" in shown:
        documents["trust policy"] = shown["trust"]
    for title, document in documents.items():
        lines += ["", f"{title}:", document]
    return "\n".join(lines)


@user.command("show")
@click.argument("name")
@data_dir_option
@endpoint_options
@output_option("text", "json", "yaml")
def show_user(layout: Layout, *, name: str, endpoint: str | None, output: str) -> None:
    """Show all of one user: policies with their documents, and access keys."""
    _show(layout, endpoint, "user", name, output)


@role.command("show")
@click.argument("name")
@data_dir_option
@endpoint_options
@output_option("text", "json", "yaml")
def show_role(layout: Layout, *, name: str, endpoint: str | None, output: str) -> None:
    """Show all of one role: its policies with their documents, and who may assume it."""
    _show(layout, endpoint, "role", name, output)


@user.command("delete")
@click.argument("name")
@data_dir_option
@endpoint_options
def delete_user(layout: Layout, *, name: str, endpoint: str | None) -> None:
    """Delete a user that has no access key and no policy any more."""
    note(f"deleted {_post(layout, endpoint, 'users/delete', {'user': name})['arn']}")


@role.command("delete")
@click.argument("name")
@data_dir_option
@endpoint_options
def delete_role(layout: Layout, *, name: str, endpoint: str | None) -> None:
    """Delete a role that has no policy any more; its sessions end with it."""
    note(f"deleted {_post(layout, endpoint, 'roles/delete', {'role': name})['arn']}")
