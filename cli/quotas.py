"""`meshlog quotas`: how much of everything the account may have, how much it has, and other values."""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, output_option, print_data
from mesh.errors import SettingsError

_QUOTAS = "/meshlog/v1/quotas"
_TITLES = {"code": "CODE", "name": "QUOTA", "value": "VALUE", "default": "DEFAULT", "count": "USED", "where": "WHERE"}
_DEFAULT = "default"


@click.group()
def quotas() -> None:
    """Show and change how much of everything the account may have (App Mesh's quotas are the defaults)."""


@quotas.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """Show every quota of the account, and where most of it is used."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        document = client.get(_QUOTAS)
    found: list[dict[str, Any]] = document["quotas"]
    print_data(document, output, lambda: _table(found), lambda: [quota["code"] for quota in found])


@quotas.command("set")
@data_dir_option
@endpoint_options
@click.argument("code")
@click.argument("value")
@output_option()
def set_(layout: Layout, *, endpoint: str | None, code: str, value: str, output: str) -> None:
    """Set the quota CODE (such as L-E043DFB4) of the account to VALUE: a number, or 'default'.

    What there is beyond a lower quota stays; nothing is added to it.
    """
    if value != _DEFAULT and not (value.isascii() and value.isdigit()):
        raise SettingsError(f"'{value}' is neither a whole number nor '{_DEFAULT}'")
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        quota = client.post(_QUOTAS, {"code": code, "value": None if value == _DEFAULT else int(value)})
    print_data(quota, output, lambda: _table([quota]), lambda: [quota["code"]])


def _table(found: list[dict[str, Any]]) -> str:
    return columns([{**quota, **(quota["used"] or {})} for quota in found], _TITLES)
