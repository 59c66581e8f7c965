"""`meshlog etcd`: its members, and a lost one replaced."""

from __future__ import annotations

import asyncio
import os

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option
from cli.output import columns, note, output_option, print_data
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import REPLACE_MEMBER_TIMEOUT_S


@click.group()
def etcd() -> None:
    """Look at etcd's members, and replace one whose disk is lost."""


@etcd.command()
@data_dir_option
@output_option()
def members(layout: Layout, *, output: str) -> None:
    """List etcd's members as they know each other."""
    from cli.replace_member import list_members  # noqa: PLC0415

    rows = asyncio.run(list_members(layout, SystemClock(), SystemEntropy()))
    titles = {"zone": "ZONE", "name": "NAME", "id": "ID", "peer": "PEER", "kind": "KIND"}
    print_data(rows, output, lambda: columns(rows, titles), lambda: [row["name"] for row in rows])


@etcd.command("replace-member")
@click.argument("zone")
@data_dir_option
@click.option(
    "--timeout",
    default=REPLACE_MEMBER_TIMEOUT_S,
    show_default=True,
    help="Seconds until the new member must have caught up.",
)
def replace_member(zone: str, layout: Layout, *, timeout: float) -> None:
    """Replace the member in ZONE, whose disk is lost, by an empty one that takes its data from the others.

    A majority of the other members must live. What is left of the old data is moved aside. Interrupted, call it again.
    """
    from cli.replace_member import ReplaceMember  # noqa: PLC0415

    work = ReplaceMember(layout, zone, clock=SystemClock(), entropy=SystemEntropy(), environ=os.environ, say=note)
    asyncio.run(work.run(timeout))
    note(f"etcd-{zone} is a member again, with all of the data")
