"""`meshlog quarantine`: take a record that stops every server out of the fold, straight in etcd."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option
from cli.output import note, output_option, print_data
from mesh.errors import Conflict, SettingsError
from mesh.position import Position

if TYPE_CHECKING:
    from eventlog.driver import LogDriver
    from eventlog.keys.provider import KeyProvider
    from eventlog.records import KeyClass
    from mesh.fold import Fold, S
    from projector.quarantining import Examined

_POSITION = re.compile(r"(?:([1-9]\d{0,17})\.)?([1-9]\d{0,17})")
_REASON_CHARS = 512
_MESH, _REGISTRY = "mesh", "registry"


@click.command()
@data_dir_option
@click.argument("position", metavar="POSITION")
@click.option("--reason", required=True, help="Why, for those who read the history later.")
@click.option("--force", is_flag=True, help="Also a record that is sound: what it did is gone, for good.")
@click.option(
    "--log",
    "which",
    type=click.Choice([_MESH, _REGISTRY]),
    default=_MESH,
    show_default=True,
    help="Which log the position is of: that of the meshes, or the registry's.",
)
@output_option("table", "json", "yaml")
def quarantine(layout: Layout, *, position: str, reason: str, force: bool, which: str, output: str) -> None:
    """Let a record no longer count: one that cannot be opened or folded, and so stops every server before it.

    Opens etcd itself, with the cluster's certificate, since no API server can write while one stands in the way. The
    record stays where it is; a record after it says that it does not count, and servers go on by themselves.
    """
    found = _POSITION.fullmatch(position)
    if found is None:
        raise SettingsError(f"'{position}' is not a log position: write a number such as 42, or <epoch>.<position>")
    if not reason.strip() or len(reason) > _REASON_CHARS:
        raise SettingsError(f"--reason needs some words, {_REASON_CHARS} characters at most")
    document = asyncio.run(_quarantine(layout, found, reason.strip(), registry=which == _REGISTRY, force=force))
    of = " of the registry" if which == _REGISTRY else ""
    said = f"record {document['position']}{of} is in quarantine, by record {document['by']}"
    print_data(document, output, lambda: said, list)


async def _quarantine(
    layout: Layout, named: re.Match[str], reason: str, *, registry: bool, force: bool
) -> dict[str, Any]:
    from cli.establish import api_settings  # noqa: PLC0415
    from cli.log_access import etcd_connection, key_providers, mesh_driver, registry_driver  # noqa: PLC0415
    from mesh.fold import MESH_FOLD  # noqa: PLC0415
    from mesh.registry.fold import REGISTRY_FOLD  # noqa: PLC0415
    from runtime.clock import SystemClock, SystemEntropy  # noqa: PLC0415

    clock, entropy = SystemClock(), SystemEntropy()
    file = layout.load()
    settings = api_settings(layout, file)
    connection = etcd_connection(settings, clock, entropy)
    providers = key_providers(settings.kek, entropy)
    asked = _Asked(named, reason, file.account_id, force)
    try:
        if registry:
            driver = registry_driver(connection, settings.key_prefix)
            return await _append(asked, REGISTRY_FOLD, driver, providers)
        return await _append(asked, MESH_FOLD, mesh_driver(connection, settings.key_prefix), providers)
    finally:
        connection.close()


class _Asked(NamedTuple):
    named: re.Match[str]
    reason: str
    account_id: str
    force: bool


async def _append(
    asked: _Asked, fold: Fold[S], driver: LogDriver, providers: Mapping[KeyClass, KeyProvider]
) -> dict[str, Any]:
    """Look at the record, then say in its log that it does not count."""
    from eventlog.follower import Follower  # noqa: PLC0415
    from eventlog.keys.keyring import Keyring  # noqa: PLC0415
    from eventlog.quarantine import Operator  # noqa: PLC0415
    from eventlog.quarantine import quarantine as append_quarantine  # noqa: PLC0415
    from eventlog.reads import HeadConfirmer  # noqa: PLC0415
    from eventlog.writer import LogWriter  # noqa: PLC0415
    from mesh.errors import NotReady  # noqa: PLC0415
    from projector.beginning import from_checkpoints  # noqa: PLC0415
    from projector.quarantining import examine  # noqa: PLC0415
    from projector.replica import Replica  # noqa: PLC0415
    from runtime.clock import SystemClock, SystemEntropy  # noqa: PLC0415

    clock, entropy = SystemClock(), SystemEntropy()
    keyring = Keyring(driver, providers)
    head = await driver.read_head()
    if head is None:
        raise NotReady("There is no such log in etcd")
    position = Position(int(asked.named[1] or head.head.epoch), int(asked.named[2]))
    found = await examine(
        driver,
        keyring,
        lambda known: Replica(
            fold,
            Follower(driver, keyring, clock, entropy),
            HeadConfirmer(driver),
            clock,
            from_checkpoints(fold, driver, keyring),
            quarantined=known,
        ),
        position,
    )
    _check(found, force=asked.force)
    appended = await append_quarantine(
        driver,
        keyring,
        LogWriter(driver, keyring, clock, entropy),
        position=position,
        time_us=found.named.time_us,
        reason=asked.reason,
        operator=Operator(asked.account_id, f"arn:aws:iam::{asked.account_id}:root", entropy.uuid()),
    )
    if found.next is not None:
        note(f"another record stands in the way after it: {found.next}")
    return {"position": str(position), "by": str(appended.records[-1].position), "reason": asked.reason}


def _check(found: Examined, *, force: bool) -> None:
    if found.stops is not None:
        return
    position, lost = found.named.position, _lost(found)
    if found.next is not None:
        raise Conflict(
            f"Record {position} is sound, and what came after it needs it, so nothing was done: {found.next}"
        )
    if not force:
        raise Conflict(
            f"Record {position} is sound, and no server stops at it. In quarantine, what it did would be lost in every "
            f"later state: {lost}. To undo a change, use `meshlog rollback`; --force puts the record in quarantine"
        )
    note(f"lost: {lost}")


def _lost(found: Examined) -> str:
    from api.history import event_document  # noqa: PLC0415
    from projector.replica import event_of  # noqa: PLC0415

    if found.record is None:
        return "what it did, which cannot be read here"
    document = event_document(event_of(found.record))
    return f"{document['type']} by {document['actor']} at {document['time']} ({document['summary'] or 'no summary'})"
