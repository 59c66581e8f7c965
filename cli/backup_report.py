"""What `meshlog backup` tells: documents, and the text for people. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.history import iso
from cli.layout import Layout
from cli.output import columns
from eventlog.restore import Journal
from runtime.key_sources import KeySources

if TYPE_CHECKING:
    from cli.archive_access import LogPosition
    from eventlog.archive.reader import ArchiveReader
    from eventlog.archive.store import ObjectStore
    from eventlog.keys.provider import KeyProvider
    from eventlog.records import KeyClass
    from mesh.fold import Fold, S

_LISTED = 40
"""Lost writes shown on a terminal; the report has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What a restore did, or would do."""

    journal: Journal
    seconds: float
    done: bool
    place: str

    def document(self) -> dict[str, Any]:
        journal, loss = self.journal, self.journal.loss
        lost = [{**write.document, "known_by": write.source} for write in loss.writes]
        return {
            "done": self.done,
            "kind": journal.kind.value,
            "directory": self.place,
            "archive": journal.source,
            "log_id": journal.head.log_id,
            "to": journal.asked,
            "from_epoch": journal.base.epoch,
            "position": journal.base.position,
            "hash": journal.base.hash.hex(),
            "epoch": journal.head.epoch,
            "archive_position": journal.archive_head.position,
            "known_position": loss.known,
            "certain": loss.certain,
            "lost": lost,
            "unnamed": [list(stretch) for stretch in loss.unnamed],
            "reapplied": [dict(event) for event in journal.restricting],
            "registry": None if journal.registry is None else _registry_document(journal.registry),
            "reason": journal.reason,
            "begun": iso(journal.begun_us),
            "seconds": round(self.seconds, 3),
        }


def _registry_document(journal: Journal) -> dict[str, Any]:
    return {
        "archive": journal.source,
        "log_id": journal.head.log_id,
        "from_epoch": journal.base.epoch,
        "position": journal.base.position,
        "epoch": journal.head.epoch,
        "known_position": journal.loss.known,
    }


def _registry_text(registry: Mapping[str, Any] | None, verb: str) -> str:
    if registry is None:
        return "the archive has no registry: an empty one is made, and every instance registers again"
    said = f"{verb} the registry to its newest, {registry['from_epoch']}.{registry['position']}, as epoch "
    missing = registry["known_position"] - registry["position"]
    later = f"; {missing} later changes of it are lost, and instances register again" if missing > 0 else ""
    return f"{said}{registry['epoch']}{later}"


def restored_text(report: Mapping[str, Any]) -> str:
    """For a terminal."""
    at = f"{report['from_epoch']}.{report['position']}"
    verb = "restored" if report["done"] else "would restore"
    what = "a clone of the log" if report["kind"] == "clone" else "the log"
    lines = [
        f"{verb} {what} to {at} as epoch {report['epoch']}, from {report['archive']} into {report['directory']}"
        + (f" in {report['seconds']:.1f} s" if report["done"] else "")
    ]
    lines.append(_registry_text(report.get("registry"), verb))
    tense = "are lost" if report["done"] else "would be lost"
    count = report["known_position"] - report["position"]
    if report["kind"] == "clone":
        lines.append(f"{count} later writes are left out; the first cluster keeps them")
    elif count:
        lines.append(f"{count} writes {tense}:" if report["lost"] else f"{count} writes {tense}.")
        titles = {"position": "POSITION", "time": "TIME", "type": "TYPE", "actor": "ACTOR", "resource": "RESOURCE"}
        if report["lost"]:
            lines.append(columns(report["lost"][:_LISTED], titles))
        if len(report["lost"]) > _LISTED:
            lines.append(f"… and {len(report['lost']) - _LISTED} more: `-o json` has them all")
        for first, last in report["unnamed"]:
            lines.append(f"written and {tense}, and nobody knows what they were: {first} to {last}")
    else:
        lines.append("no write is known to be lost")
    if not report["certain"] and report["to"] == "latest":
        lines.append("no role was left to ask: writes after the archive's last object may be missing too")
    for event in report["reapplied"]:
        lines.append(f"applied again: {event['type']} {' '.join(str(value) for value in event['data'].values())}")
    return "\n".join(lines)


async def holdings(layout: Layout, url: str | None) -> dict[str, Any]:
    """How far the archive reaches and what it takes; `registry`: the same of the registry's log, None without one."""
    from cli.archive_access import archive_url, log_positions  # noqa: PLC0415
    from eventlog.archive.places import open_store, within  # noqa: PLC0415
    from eventlog.archive.reader import ArchiveReader  # noqa: PLC0415
    from mesh.registry.fold import REGISTRY_FOLDER  # noqa: PLC0415

    place = archive_url(layout, url)
    mesh, registry = log_positions(layout)
    found = await _holdings(ArchiveReader(open_store(place)), mesh)
    reader = ArchiveReader(open_store(within(place, REGISTRY_FOLDER)))
    beside = None if await reader.load_if_any() is None else await _holdings(reader, registry)
    return found | {"registry": beside}


async def _holdings(reader: ArchiveReader, status: LogPosition) -> dict[str, Any]:
    index, store = await reader.load(), reader.store
    objects = await store.list("objects/")
    head = index.head
    return {
        "archive": store.place,
        "log_id": index.log_id,
        "epoch": index.epoch,
        "first": index.first.position,
        "position": head.position,
        "time": iso(index.time_us) if index.time_us else None,
        "lag": None if status.position is None else max(0, status.position - head.position),
        "objects": len(objects),
        "size_bytes": sum(each.size_bytes for each in objects),
        "epochs": [
            {
                "epoch": claim.epoch,
                "after": str(claim.base.at),
                "claimed": iso(claim.created_us),
                "by": claim.by,
            }
            for claim in index.claims
        ],
        "checkpoints": [
            {"position": str(ref.at), "time": iso(ref.time_us), "parts": len(ref.parts)}
            for ref in await reader.checkpoints()
        ],
        "drill": status.drill,
    }


def holdings_table(document: Mapping[str, Any]) -> str:
    lag = document["lag"]
    behind = "unknown, no API server answers" if lag is None else f"{lag} records behind the log"
    held = f"{document['first']} to {document['position']} of epoch {document['epoch']}"
    lines = [
        f"archive      {document['archive']}",
        f"log          {document['log_id']}",
        f"holds        {held}, up to {document['time'] or '-'}",
        f"lag          {behind}",
        f"size         {document['size_bytes']:,} bytes in {document['objects']} objects",
        f"last drill   {_drill(document['drill'])}",
        "",
        columns(document["epochs"], {"epoch": "EPOCH", "after": "GOES ON AFTER", "claimed": "CLAIMED", "by": "BY"}),
    ]
    if document["checkpoints"]:
        titles = {"position": "CHECKPOINT", "time": "TIME", "parts": "PARTS"}
        lines += ["", columns(document["checkpoints"], titles)]
    if document.get("registry"):
        lines += ["", "THE REGISTRY", holdings_table(document["registry"])]
    return "\n".join(lines)


def _drill(drill: Mapping[str, Any] | None) -> str:
    if drill is None:
        return "none yet"
    result = "restored it whole" if drill["ok"] else f"FAILED: {drill['reason']}"
    return f"{drill['time']}, to position {drill['position']}: {result}"


async def verified(
    layout: Layout,
    url: str | None,
    keys: Path | None,
    keks: Mapping[str, KeySources],
    *,
    without_keys: bool,
    progress: Any,
) -> dict[str, Any]:
    """Every object read and checked; what is wrong is in the document."""
    from cli.archive_access import archive_providers, archive_url  # noqa: PLC0415
    from eventlog.archive.places import open_store, within  # noqa: PLC0415
    from eventlog.archive.reader import ArchiveReader  # noqa: PLC0415
    from mesh.fold import MESH_FOLD  # noqa: PLC0415
    from mesh.registry.fold import REGISTRY_FOLD, REGISTRY_FOLDER  # noqa: PLC0415

    place = archive_url(layout, url)
    providers = None if without_keys else archive_providers(layout, keys, keks)
    document = await _verified(MESH_FOLD, open_store(place), providers, progress)
    beside = open_store(within(place, REGISTRY_FOLDER))
    if not await ArchiveReader(beside).claims():
        return document | {"registry": None}
    registry = await _verified(REGISTRY_FOLD, beside, providers, progress)
    return document | {"registry": registry, "clean": document["clean"] and registry["clean"]}


async def _verified(
    fold: Fold[S], store: ObjectStore, providers: Mapping[KeyClass, KeyProvider] | None, progress: Any
) -> dict[str, Any]:
    """One log's archive. `providers` None: without keys."""
    from mesh.errors import IntegrityError, NotFound  # noqa: PLC0415
    from projector.verification import verify_archive, verify_without_keys  # noqa: PLC0415

    document: dict[str, Any] = {
        "clean": True,
        "archive": store.place,
        "with_keys": providers is not None,
        "findings": [],
    }
    try:
        if providers is None:
            found = await verify_without_keys(store, progress)
        else:
            found = await verify_archive(fold, store, providers, progress)
    except (IntegrityError, NotFound) as failure:
        return document | {"clean": False, "findings": [failure.message]}
    return document | found._asdict() | {"head": str(found.head)}


def verified_text(document: Mapping[str, Any]) -> str:
    if document.get("registry"):
        parts = ({**document, "registry": None, "clean": not document["findings"]}, document["registry"])
        return "\n".join(("" if part is parts[0] else "registry: ") + verified_text(part) for part in parts)
    if not document["clean"]:
        return "\n".join([f"NOT CLEAN: {document['archive']}", *(f"  {each}" for each in document["findings"])])
    opened = "opened and folded" if document["with_keys"] else "chained (not opened)"
    return (
        f"clean: {document['records']} records {opened} up to {document['head']}, {document['objects']} objects, "
        f"{document['checkpoints']} checkpoints, {document['audit_segments']} audit segments, in {document['archive']}"
    )
