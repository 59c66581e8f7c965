"""`meshlog fsck`: the whole log and its archive, read from where they are kept and verified with the cluster's keys."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option
from cli.output import note, output_option, print_data
from mesh.errors import Damaged, MeshlogError, NotReady, SettingsError
from runtime.clock import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from eventlog.archive.store import ObjectStore
    from eventlog.driver import LogDriver
    from eventlog.fsck import FsckReport
    from eventlog.keys.keyring import Keyring
    from eventlog.record_walk import Fold

_DEFAULT = "default"
_COUNTS = (
    "frames", "records", "opened", "quarantined", "data_keys", "checkpoints", "states", "blob_parts", "unnamed_parts",
    "manifests", "objects", "audit_segments",
)  # fmt: skip


@click.command()
@data_dir_option
@click.option("--without-keys", is_flag=True, help="Check only what needs no key: order, hashes, signatures.")
@click.option(
    "--archive",
    metavar="URL",
    help="Check the archive too, and that it and etcd tell one history: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL, "
    f"or '{_DEFAULT}' for the cluster's own.",
)
@click.option(
    "--prove",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a proof of the history, which `meshlog verify` checks without the cluster. With the cluster's archive, "
    "unless --archive names another.",
)
@click.option("--position", type=click.IntRange(min=1), help="Prove this record alone: small, whatever the history.")
@click.option("--hashes-only", is_flag=True, help="Prove with hashes in place of sealed records: small, shows less.")
@output_option("table", "json", "yaml")
def fsck(
    layout: Layout,
    *,
    without_keys: bool,
    archive: str | None,
    prove: Path | None,
    position: int | None,
    hashes_only: bool,
    output: str,
) -> int:
    """Verify the whole log. Exits with 1 and names the place if anything is wrong.

    Reads etcd itself, not an API server: frames, hashes, keys, blobs, and that every checkpoint is what the records
    before it add up to. With --prove, a log that is clean is then proven, in a file.
    """
    if prove is None and (position is not None or hashes_only):
        raise SettingsError("--position and --hashes-only say what to prove: name the file with --prove")
    if position is not None and hashes_only:
        raise SettingsError("--position proves one record by its bytes; --hashes-only has none: leave one out")
    if prove is not None and without_keys:
        raise SettingsError("a proof is signed with the cluster's signing key: leave out --without-keys")
    asked = _Proof(prove, position, hashes_only) if prove is not None else None
    report = asyncio.run(_check(layout, archive, asked, with_keys=not without_keys))
    print_data(report, output, lambda: _text(report), list)
    return 0 if report["clean"] else MeshlogError.exit_code


class _Proof(NamedTuple):
    """What to prove, and where to write it."""

    file: Path
    position: int | None
    hashes_only: bool


async def _check(layout: Layout, archive: str | None, prove: _Proof | None, *, with_keys: bool) -> dict[str, Any]:
    from cli.establish import api_settings  # noqa: PLC0415
    from cli.log_access import etcd_connection, key_providers, mesh_driver, registry_driver  # noqa: PLC0415
    from eventlog.archive.places import open_store, within  # noqa: PLC0415
    from eventlog.keys.keyring import Keyring  # noqa: PLC0415
    from mesh.fold import MESH_FOLD  # noqa: PLC0415
    from mesh.registry.fold import REGISTRY_FOLD, REGISTRY_FOLDER  # noqa: PLC0415
    from projector.state_fold import StateFold  # noqa: PLC0415

    entropy = SystemEntropy()
    settings = api_settings(layout, layout.load())
    url = settings.archive if archive == _DEFAULT or (prove and archive is None) else archive
    if archive is not None and url is None:
        raise SettingsError("this cluster's settings name no archive: say where it is with --archive URL")
    store = None if url is None else open_store(url)
    beside = None if url is None else open_store(within(url, REGISTRY_FOLDER))
    connection = etcd_connection(settings, SystemClock(), entropy)
    try:
        driver, registry = (each(connection, settings.key_prefix) for each in (mesh_driver, registry_driver))
        providers = key_providers(settings.kek, entropy) if with_keys else None
        keyring = None if providers is None else Keyring(driver, providers)
        report = await _check_log(driver, keyring, store, StateFold(MESH_FOLD))
        other: FsckReport | None = None
        if await registry.read_head() is not None or await _is_archived(beside):
            theirs = None if providers is None else Keyring(registry, providers)
            other = await _check_log(registry, theirs, beside, StateFold(REGISTRY_FOLD))
        if prove is not None and keyring is not None and report.clean:
            await _prove(prove, driver, keyring, store)
    finally:
        connection.close()
    if sys.stderr.isatty():
        note("")
    document = _document(report)
    if other is not None:
        document |= {"registry": _document(other), "clean": report.clean and other.clean}
    return document


async def _is_archived(store: ObjectStore | None) -> bool:
    from eventlog.archive.reader import ArchiveReader  # noqa: PLC0415

    return store is not None and bool(await ArchiveReader(store).claims())


async def _check_log(driver: LogDriver, keyring: Keyring | None, store: ObjectStore | None, fold: Fold) -> FsckReport:
    """One log, in its archive if there is one to look at, and in etcd."""
    from eventlog.fsck import archive_mark  # noqa: PLC0415
    from eventlog.fsck import fsck as check_log  # noqa: PLC0415
    from eventlog.fsck_archive import fsck_archive  # noqa: PLC0415

    found: FsckReport | None = None
    if store is not None:
        # The archive first: what it has, etcd must have or have had by the time that it is read.
        if keyring is not None and (head := await driver.read_head()) is not None:
            await keyring.load(head.head.log_id)
        promised = await archive_mark(driver)
        found = await fsck_archive(store, keyring, _progress("archive"), fold=fold, promised=promised)
    report = await check_log(driver, keyring, _progress("etcd"), fold=fold, archived=found.head if found else None)
    report.archive = found
    return report


async def _prove(asked: _Proof, driver: LogDriver, keyring: Keyring, store: ObjectStore | None) -> None:
    """Write the proof beside its place, verify it as anybody would, and only then put it there."""
    from eventlog import verify_proof  # noqa: PLC0415
    from eventlog.archive.reader import ArchiveReader  # noqa: PLC0415
    from eventlog.proof import Sources, write_proof  # noqa: PLC0415
    from eventlog.signing import known_signers, signing_key  # noqa: PLC0415

    head = await driver.read_head()
    if head is None:
        raise NotReady("There is no log in etcd: there is nothing to prove")
    clock, entropy = SystemClock(), SystemEntropy()
    signer = await signing_key(driver, keyring, head.head.log_id, clock, entropy)
    reader = None if store is None else ArchiveReader(store)
    if reader is not None:
        await reader.load()
    unverified = asked.file.with_name(asked.file.name + ".part")
    with unverified.open("w+b") as out:
        await write_proof(
            Sources(driver, reader),
            signer,
            out.write,
            made_us=clock.now_us(),
            position=asked.position,
            hashes_only=asked.hashes_only,
        )
        out.seek(0)
        try:
            # By the log's own signing keys, the retired ones among them.
            found = verify_proof.verify(out, {**(known_signers(keyring) or {}), signer.name: signer.public})
        except verify_proof.ProofError as failure:
            raise Damaged(f"The proof does not hold, so it was not kept: {failure}; run `meshlog fsck`") from failure
    unverified.replace(asked.file)
    note(verify_proof.report(found))
    note(f"written to {asked.file}; anybody can check it: meshlog verify {asked.file}")


def _document(report: FsckReport) -> dict[str, Any]:
    head = report.head
    return {
        "clean": report.clean,
        "log_id": report.log_id,
        "epoch": head.epoch if head else None,
        "position": head.position if head else None,
        "head_hash": head.hash.hex() if head else None,
        "begins": report.begins,
        **{name: getattr(report, name) for name in _COUNTS},
        "findings": [finding._asdict() for finding in report.findings],
        "more_findings": report.more_findings,
        **({"archive": _document(report.archive)} if report.archive else {}),
    }


def _progress(what: str) -> Callable[[int], None] | None:
    if not sys.stderr.isatty():
        return None
    return lambda records: click.echo(f"\r{what}: {records} records", nl=False, err=True)


def _text(report: dict[str, Any]) -> str:
    registry = report.get("registry", {})
    lines = [f"{'clean' if report['clean'] else 'NOT CLEAN'}: {_summary(report)}"]
    if "archive" in report:
        lines.append(f"archive: {_summary(report['archive'])}")
    if registry:
        lines.append(f"registry: {_summary(registry)}")
    if "archive" in registry:
        lines.append(f"registry's archive: {_summary(registry['archive'])}")
    for place, part in (
        ("", report),
        ("archive: ", report.get("archive", {})),
        ("registry: ", registry),
        ("registry's archive: ", registry.get("archive", {})),
    ):
        lines += [f"  {place}{finding['place']}: {finding['message']}" for finding in part.get("findings", ())]
        if part.get("more_findings"):
            lines.append(f"  {place}and {part['more_findings']} more")
    return "\n".join(lines)


def _summary(part: dict[str, Any]) -> str:
    counted = [f"{part['records']} records in {part['frames']} frames", f"{part['opened']} opened"]
    for name, text in (
        ("quarantined", "quarantined"),
        ("checkpoints", "checkpoints"),
        ("states", "states folded anew"),
        ("blob_parts", "blob parts"),
        ("objects", "objects"),
        ("manifests", "manifests"),
        ("audit_segments", "audit segments"),
    ):
        counted += [f"{part[name]} {text}"] if part[name] else []
    begins = f", begins after {part['begins']}" if part["begins"] else ""
    return f"{', '.join(counted)}{begins}, head at epoch {part['epoch']}, position {part['position']}"
