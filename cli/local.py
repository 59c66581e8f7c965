"""`meshlog up`, `down`, `status`: a whole cluster on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import rich_click as click

from cli.layout import ClusterFile, Layout
from cli.options import ARCHIVE_URLS, data_dir_option, https_options, key_provider_option
from cli.output import columns, note, output_option, print_data
from mesh.errors import Unavailable
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import UP_TIMEOUT_S


@click.command()
@click.option(
    "--zones", type=click.IntRange(1, 9), help="Zones, each with etcd, API, projector, frontend.  [default: 3]"
)
@data_dir_option
@click.option("--account-id", help="Account of the admin key, twelve digits.  [default: 000000000000]")
@click.option("--region", help="Region in ARNs.  [default: us-east-1]")
@click.option("--archive", metavar="URL", help=f"Where the log is archived. {ARCHIVE_URLS}  [default: in the data-dir]")
@key_provider_option
@https_options
@click.option("--detach", is_flag=True, help="Return when every role is ready, and leave them running.")
@click.option("--listen-host", default="127.0.0.1", show_default=True, help="Address that every process is bound to.")
@click.option("--timeout", default=UP_TIMEOUT_S, show_default=True, help="Seconds until every role must be ready.")
def up(layout: Layout, *, detach: bool, timeout: float, **asked: Any) -> None:
    """Start a whole cluster on this machine, or what is dead of it.

    Every role is a process of its own. Without --detach the command stays, and Ctrl-C stops them all.
    """
    from cli.bring_up import BringUp, Wish  # noqa: PLC0415

    bring_up = BringUp(layout, SystemClock(), SystemEntropy(), os.environ, note)
    cluster = asyncio.run(_interruptible(bring_up.run(Wish(timeout_s=timeout, **asked))))
    note(f"ready: {len(cluster.processes)} processes in {len(cluster.zones)} zones, data in {layout.root}")
    note(f'next: eval "$(meshlog env --data-dir {shlex.quote(str(layout.root))})" and use boto3 or the aws CLI')
    if detach:
        return
    note("Ctrl-C stops the cluster")
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    signal.sigwait(_ENDING)
    _stop(layout, cluster)


@click.command()
@data_dir_option
@click.option("--delete-data", is_flag=True, help="Remove the cluster's directory too: its log, keys and certificates.")
def down(layout: Layout, *, delete_data: bool) -> None:
    """Stop every process of the cluster on this machine."""
    from cli.bring_up import locked  # noqa: PLC0415

    cluster = layout.load()
    with locked(layout):
        _stop(layout, cluster)
        if delete_data:
            _remove(layout)


@click.command()
@data_dir_option
@output_option()
@click.option("--exit-code", is_flag=True, help="Exit with 7 unless every process is ready.")
def status(layout: Layout, *, output: str, exit_code: bool) -> int:
    """Show the cluster's processes: what runs, where, and how far it is."""
    from cli.probes import status_document  # noqa: PLC0415

    document = status_document(layout, layout.load())
    titles = {
        "role": "ROLE",
        "zone": "ZONE",
        "pid": "PID",
        "address": "ADDRESS",
        "ready": "READY",
        "position": "POSITION",
        "reason": "REASON",
    }
    processes = document["processes"]
    print_data(document, output, lambda: columns(processes, titles), lambda: [row["id"] for row in processes])
    for said in (_archived(processes), _registry(processes)) if output == "table" else ():
        if said:
            click.echo(said, err=True)
    for remark in (*_dead(document), *_remarks(processes)):
        click.echo(remark, err=True)
    return Unavailable.exit_code if exit_code and not document["ready"] else 0


def _dead(document: dict[str, Any]) -> Iterator[str]:
    """How to start again what does not run; of a cluster on other hosts nobody here knows."""
    dead = [row for row in document["processes"] if row["pid"] is None] if document["local"] else []
    for row in dead:
        yield f"{row['id']} is not running; start it again: {shlex.join(row['serve'])} &"
    if dead:
        up = shlex.join(["meshlog", "up", "--detach", "--data-dir", document["data_dir"]])
        yield f"or all that is not running: {up}"


def _remarks(processes: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is not as it should be, each thing once, whoever says it."""
    held_back = {
        (node, said) for row in processes for node, all_said in row.get("alarms", {}).items() for said in all_said
    }
    for node, said in sorted(held_back):
        yield f"held back from {node}: {said}"
    drills = [row["drill"] for row in processes if row.get("drill")]
    if drills and not (last := max(drills, key=lambda drill: drill["time_us"]))["ok"]:
        yield f"the restore drill of {last['time']} failed: {last['reason']}"
    registries = [row["registry"] for row in processes if row.get("registry")]
    for kind in ("alarm", "error"):
        for said in sorted({row["archive"][kind] for row in processes if kind in row.get("archive", {})}):
            yield f"archive: {said}"
        for said in sorted({row["archive"][kind] for row in registries if kind in row.get("archive", {})}):
            yield f"the registry's archive: {said}"
    drills = [row["drill"] for row in registries if row.get("drill")]
    if drills and not (last := max(drills, key=lambda drill: drill["time_us"]))["ok"]:
        yield f"the restore drill of the registry of {last['time']} failed: {last['reason']}"
    warned: dict[str, list[str]] = {}
    for row in processes:
        for said in row.get("warnings", ()):
            warned.setdefault(said, []).append(row["id"])
    for said, ids in warned.items():
        yield f"{', '.join(ids)}: {said}"
    for row in processes:
        for one in row.get("refused", ()):
            what = f"{one['type']} {', '.join(one['resources'])}".strip()
            yield f"refused by a proxy of {one['node']}: {what}, as of position {one['position']}"


def _archived(processes: Sequence[dict[str, Any]]) -> str:
    """How far the archive is, by who ships it, or else by who sees most of it; empty without one."""
    said = [row["archive"] for row in processes if "archive" in row]
    if not said:
        return ""
    best = max(said, key=lambda one: (one.get("ships", False), -one["behind_s"]))
    return f"archive: {best['position'] or 'nothing yet'}, {best['behind_s']:.1f} s behind, in {best['place']}"


def _registry(processes: Sequence[dict[str, Any]]) -> str:
    """How far the registry's log is, and who is not there or has stopped; empty where no process tells of one."""
    told = {row["id"]: row["registry"] for row in processes if row.get("registry")}
    if not told:
        return ""
    newest = max((one["epoch"], one["position"]) for one in told.values())
    late = sorted(each for each, one in told.items() if not one["ready"] or (one["epoch"], one["position"]) < newest)
    archived = [one["archive"]["position"] for one in told.values() if (one.get("archive") or {}).get("position")]
    furthest = max(archived, key=lambda each: [int(part) for part in each.split(".")], default=None)
    said = f"registry: {newest[0]}.{newest[1]}" + (f", archived to {furthest}" if furthest else "")
    return said + (f"; behind or stopped: {', '.join(late)}" if late else "")


def _remove(layout: Layout) -> None:
    """What we made, and the directory if nothing else is in it: it may be somebody's home."""
    for directory in layout.directories:
        shutil.rmtree(directory, ignore_errors=True)
    for file in layout.files:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        layout.root.rmdir()
    note(f"removed the cluster in {layout.root}")


_ENDING = {signal.SIGINT, signal.SIGTERM}


async def _interruptible(work: Any) -> ClusterFile:
    """SIGTERM ends the start like Ctrl-C does: what was started is stopped again."""
    started = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, started.cancel)
    try:
        cluster: ClusterFile = await started
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    return cluster


def _stop(layout: Layout, cluster: ClusterFile) -> None:
    from cli.bring_up import stop_in_order  # noqa: PLC0415

    for process_id in stop_in_order(layout, cluster.processes, SystemClock()):
        note(f"{process_id} did not end when asked and was killed")
    note("stopped")
