"""`meshlog iam policy`: what may be done, as documents in IAM's language, and to whom they are attached."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options, read_text
from cli.output import columns, note, output_option, print_data
from mesh.errors import SettingsError
from runtime.clock import SystemEntropy

Function = TypeVar("Function", bound=Callable[..., Any])

_ROOT = "/meshlog/v1/iam"
_TITLES = {"name": "NAME", "whose": "OWNER", "version": "VERSION", "attached_to": "ATTACHED TO", "updated": "UPDATED"}


@click.group()
def policy() -> None:
    """Policies: what may be done, in IAM's language. App Mesh's managed policies are there already."""


def _whose(function: Function) -> Function:
    """`--user` and `--role`, of which at most one is given."""
    function = click.option("--role", "role_name", metavar="NAME", help="The role.")(function)
    return click.option("--user", "user_name", metavar="NAME", help="The user.")(function)


def _holder(user_name: str | None, role_name: str | None) -> tuple[str, dict[str, Any]]:
    """The path of users or roles, and the member that names the one that was given."""
    if (user_name is None) == (role_name is None):
        raise SettingsError("name either a --user or a --role")
    return ("users", {"user": user_name}) if user_name is not None else ("roles", {"role": role_name})


def _post(layout: Layout, endpoint: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        return client.post(f"{_ROOT}/{path}", body | {"clientToken": SystemEntropy().uuid()}, repeatable=True)


@policy.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_policies(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the managed policies: the account's own, then those that every account has."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        found: list[dict[str, Any]] = client.get(f"{_ROOT}/policies")["policies"]
    print_data(
        found, output, lambda: columns([_row(each) for each in found], _TITLES), lambda: [p["arn"] for p in found]
    )


def _row(each: dict[str, Any]) -> dict[str, Any]:
    names = ", ".join(arn.rpartition(":")[2] for arn in each["attached"])
    return {**each, "whose": each["arn"].split(":")[4], "attached_to": names}


@policy.command("show")
@click.argument("name")
@data_dir_option
@endpoint_options
@output_option("text", "json", "yaml")
def show_policy(layout: Layout, *, name: str, endpoint: str | None, output: str) -> None:
    """Print the document of a managed policy (NAME or ARN). Those of users and roles: `meshlog iam user show`."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        shown = client.get(f"{_ROOT}/policies/show", {"policy": name})
    print_data(shown, output, lambda: str(shown["document"]), list)


@policy.command("put")
@click.argument("name")
@click.argument("file")
@data_dir_option
@endpoint_options
@_whose
@output_option("table", "json", "yaml")
def put_policy(
    layout: Layout,
    *,
    name: str,
    file: str,
    endpoint: str | None,
    user_name: str | None,
    role_name: str | None,
    output: str,
) -> None:
    """Make or replace a policy from FILE (JSON; '-' is stdin): a managed one, or one of a user's or role's own.

    Earlier documents stay in the history: `meshlog log --type PolicyPut -o json`.
    """
    body: dict[str, Any] = {"document": read_text(file)}
    if user_name is None and role_name is None:
        made = _post(layout, endpoint, "policies", body | {"policy": name})
        print_data(made, output, lambda: columns([_row(made)], _TITLES), list)
        return
    plural, whose = _holder(user_name, role_name)
    holder = _post(layout, endpoint, f"{plural}/policies", body | whose | {"name": name})
    print_data(
        holder, output, lambda: columns([{"arn": holder["arn"], "name": name}], {"arn": "OF", "name": "POLICY"}), list
    )


@policy.command("delete")
@click.argument("name")
@data_dir_option
@endpoint_options
@_whose
def delete_policy(
    layout: Layout, *, name: str, endpoint: str | None, user_name: str | None, role_name: str | None
) -> None:
    """Delete a managed policy that is attached to nobody, or one of a user's or role's own."""
    if user_name is None and role_name is None:
        _post(layout, endpoint, "policies/delete", {"policy": name})
        note(f"deleted {name}")
        return
    plural, whose = _holder(user_name, role_name)
    holder = _post(layout, endpoint, f"{plural}/policies/delete", whose | {"name": name})
    note(f"deleted {name} of {holder['arn']}")


@policy.command("attach")
@click.argument("name")
@data_dir_option
@endpoint_options
@_whose
def attach_policy(
    layout: Layout, *, name: str, endpoint: str | None, user_name: str | None, role_name: str | None
) -> None:
    """Attach a managed policy (NAME or ARN) to a user or role."""
    plural, whose = _holder(user_name, role_name)
    holder = _post(layout, endpoint, f"{plural}/attach", whose | {"policy": name})
    note(f"{holder['arn']} has {', '.join(arn.rpartition('/')[2] for arn in holder['policies'])}")


@policy.command("detach")
@click.argument("name")
@data_dir_option
@endpoint_options
@_whose
def detach_policy(
    layout: Layout, *, name: str, endpoint: str | None, user_name: str | None, role_name: str | None
) -> None:
    """Detach a managed policy from a user or role. Every API server refuses what it allowed from this event on."""
    plural, whose = _holder(user_name, role_name)
    holder = _post(layout, endpoint, f"{plural}/detach", whose | {"policy": name})
    note(f"{holder['arn']} has {', '.join(arn.rpartition('/')[2] for arn in holder['policies']) or 'none any more'}")
