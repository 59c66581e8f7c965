"""`meshlog backup`: what the archive holds, whether all of it is sound, and the cluster made again from it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option, key_provider_option
from cli.output import interactive, note, output_option, print_data
from mesh.errors import MeshlogError, SettingsError
from runtime.key_sources import KeySources
from runtime.limits import RESTORE_TIMEOUT_S


@click.group()
def backup() -> None:
    """The archive: what it holds, whether it is sound, and the cluster made again from it."""


def archive_option(function: Any) -> Any:
    return click.option(
        "--archive",
        metavar="URL",
        help="file:///DIR or s3://BUCKET/PREFIX?endpoint=URL.  [default: the archive of the cluster]",
    )(function)


def keys_option(function: Any) -> Any:
    return click.option(
        "--keys",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Directory of config.kek and secrets.kek.  [default: the keys of the cluster]",
    )(function)


@backup.command("list")
@data_dir_option
@archive_option
@output_option("table", "json", "yaml")
def list_(layout: Layout, *, archive: str | None, output: str) -> None:
    """Show how far the archive reaches: epochs, checkpoints, size, lag, and the last drill."""
    from cli.backup_report import holdings, holdings_table  # noqa: PLC0415

    document = asyncio.run(holdings(layout, archive))
    print_data(document, output, lambda: holdings_table(document), list)


@backup.command()
@data_dir_option
@archive_option
@keys_option
@key_provider_option
@click.option("--without-keys", is_flag=True, help="Check only what needs no key: hashes, signatures, the chain.")
@output_option("table", "json", "yaml")
def verify(
    layout: Layout,
    *,
    archive: str | None,
    keys: Path | None,
    keks: Mapping[str, KeySources],
    without_keys: bool,
    output: str,
) -> int:
    """Read every object of the archive and check it; with the keys, open and fold it too. Exits with 1 on damage."""
    from cli.backup_report import verified, verified_text  # noqa: PLC0415

    with _Bar("verifying") as bar:
        document = asyncio.run(verified(layout, archive, keys, keks, without_keys=without_keys, progress=bar.at))
    print_data(document, output, lambda: verified_text(document), list)
    return 0 if document["clean"] else MeshlogError.exit_code


@backup.command()
@data_dir_option
@archive_option
@keys_option
@key_provider_option
@click.option("--to", metavar="MOMENT", help="latest, a position (42, 1.42), or a time (10:42, 2h ago, ISO 8601).")
@click.option("--as-clone", is_flag=True, help="Into a second cluster, which can never touch this one or its archive.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="The clone's directory.  [default: DATA_DIR-clone]"
)
@click.option("--reason", default="", help="Why, for the log.")
@click.option("--zones", type=click.IntRange(1, 9), help="Zones of a cluster that is made anew.  [default: 3]")
@click.option("--dry-run", is_flag=True, help="Read, open and fold everything, say what would be lost, change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--timeout", default=RESTORE_TIMEOUT_S, show_default=True, help="Seconds for each part to get ready.")
@output_option("table", "json", "yaml")
def restore(layout: Layout, *, dry_run: bool, yes: bool, output: str, **asked: Any) -> None:
    """Make the cluster again from its archive, as it was at a moment.

    Every etcd member is replaced; the old data is moved aside. Writes after the moment are lost, and listed. Proxies
    are served all the while. Called again after an interruption, it goes on where it ended.
    """
    from cli.restoring import Asked, RestoreCommand  # noqa: PLC0415

    if asked["into"] is not None and not asked["as_clone"]:
        raise SettingsError("--into is for --as-clone: a restore without it is into the cluster's own directory")
    if not (dry_run or yes or interactive()):
        raise SettingsError("there is no terminal to ask on: say --yes to go on, or --dry-run to look first")

    def confirm(text: str, question: str) -> None:
        if not yes:
            note(text)
            click.confirm(question, abort=True, err=True)

    with _Bar("reading the archive") as bar:
        command = RestoreCommand(layout, Asked(dry_run=dry_run, **asked), os.environ, note, bar.at)
        document = asyncio.run(command.run(confirm))
    from cli.backup_report import restored_text  # noqa: PLC0415

    print_data(document, output, lambda: restored_text(document), list)


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def at(self, done: int, whole: int) -> None:
        """So many records of so many are folded."""
        step = max(1, whole // 200)
        if not sys.stderr.isatty() or (done % step and done != whole):
            return
        self._shown = done != whole
        filled = 30 * done // max(1, whole)
        bar = "█" * filled + "·" * (30 - filled)
        click.echo(f"\r\x1b[K{self._label} {bar} {done}/{whole}", nl=done == whole, err=True)
