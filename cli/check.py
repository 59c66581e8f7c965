"""`meshlog fsck`: the whole log, read from etcd itself and verified with the keys in the cluster's directory."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option
from cli.output import note, output_option, print_data
from mesh.errors import MeshlogError
from runtime.clock import SystemClock, SystemEntropy


@click.command()
@data_dir_option
@click.option("--without-keys", is_flag=True, help="Check only what needs no key: order, hashes, completeness.")
@output_option("table", "json", "yaml")
def fsck(layout: Layout, *, without_keys: bool, output: str) -> int:
    """Verify the whole log. Exits with 1 and names the place if anything is wrong."""
    report = asyncio.run(_check(layout, with_keys=not without_keys))
    print_data(report, output, lambda: _text(report), list)
    return 0 if report["clean"] else MeshlogError.exit_code


async def _check(layout: Layout, *, with_keys: bool) -> dict[str, Any]:
    from cli.establish import api_settings  # noqa: PLC0415
    from cli.serve import etcd_connection, key_providers  # noqa: PLC0415
    from eventlog.drivers.etcd import EtcdDriver  # noqa: PLC0415
    from eventlog.fsck import fsck as check_log  # noqa: PLC0415
    from eventlog.keys.keyring import Keyring  # noqa: PLC0415

    entropy = SystemEntropy()
    settings = api_settings(layout, layout.load())
    connection = etcd_connection(settings, SystemClock(), entropy)
    try:
        driver = EtcdDriver(connection, settings.key_prefix)
        keyring = Keyring(driver, key_providers(settings.kek, entropy)) if with_keys else None
        report = await check_log(driver, keyring, _progress if sys.stderr.isatty() else None)
    finally:
        connection.close()
    head = report.head
    return {
        "clean": report.clean,
        "log_id": report.log_id,
        "epoch": head.epoch if head else None,
        "position": head.position if head else None,
        "head_hash": head.hash.hex() if head else None,
        "frames": report.frames,
        "records": report.records,
        "opened": report.opened,
        "data_keys": report.data_keys,
        "findings": [finding._asdict() for finding in report.findings],
        "more_findings": report.more_findings,
    }


def _progress(records: int) -> None:
    click.echo(f"\r{records} records", nl=False, err=True)


def _text(report: dict[str, Any]) -> str:
    if sys.stderr.isatty():
        note("\r")
    where = f"epoch {report['epoch']}, position {report['position']}"
    counted = f"{report['records']} records in {report['frames']} frames, {report['opened']} opened"
    if report["clean"]:
        return f"clean: {counted}, head at {where}"
    lines = [f"NOT CLEAN: {counted}, head at {where}"]
    lines += [f"  {finding['place']}: {finding['message']}" for finding in report["findings"]]
    if report["more_findings"]:
        lines.append(f"  and {report['more_findings']} more")
    return "\n".join(lines)
