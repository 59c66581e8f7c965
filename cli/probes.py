"""What each process of a cluster says of itself: asked over its health port, all at once, each with a deadline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3

from cli.layout import ClusterFile, Layout, ProcessEntry
from cli.processes import running_pid, serve_argv
from runtime.limits import PROBE_TIMEOUT_S

_SHOWN = (
    "epoch",
    "state_hash",
    "level",
    "build",
    "proxies",
    "frontends",
    "alarms",
    "refused",
    "archive",
    "drill",
    "registry",
    "space",
    "warnings",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One process as found. `reason` says why it is not ready; `status` is what it published, empty if nothing."""

    process: ProcessEntry
    pid: int | None
    ready: bool
    reason: str = ""
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> object:
        return self.status.get("position")


def probe(pool: urllib3.PoolManager, layout: Layout, process: ProcessEntry, *, local: bool) -> Probe:
    """Ask one process. On this machine a process without a live pid is not ready, whoever answers on its port."""
    pid = running_pid(layout, process)
    if local and pid is None:
        return Probe(process, None, False, "not running")
    try:
        if process.role == "etcd":
            answer = pool.request("GET", f"http://{process.health}/health")
            healthy = answer.status == 200 and json.loads(answer.data).get("health") == "true"
            return Probe(process, pid, healthy, "" if healthy else _reason(answer))
        answer = pool.request("GET", f"http://{process.health}/readyz")
        published = json.loads(pool.request("GET", f"http://{process.health}/status").data)
    except urllib3.exceptions.HTTPError as error:
        return Probe(process, pid, False, f"no answer on {process.health} ({type(error).__name__})")
    except ValueError:
        return Probe(process, pid, False, f"{process.health} does not answer like a {process.role}")
    ready = answer.status == 200
    return Probe(
        process, pid, ready, "" if ready else _reason(answer), published if isinstance(published, dict) else {}
    )


def probe_all(layout: Layout, processes: Sequence[ProcessEntry], *, local: bool = True) -> list[Probe]:
    """Ask all of them at the same time; order kept."""
    if not processes:
        return []
    with urllib3.PoolManager(retries=False, timeout=PROBE_TIMEOUT_S) as pool:
        with ThreadPoolExecutor(max_workers=len(processes)) as threads:
            return list(threads.map(lambda process: probe(pool, layout, process, local=local), processes))


def status_document(layout: Layout, cluster: ClusterFile) -> dict[str, Any]:
    """What `meshlog status -o json` prints."""
    probes = probe_all(layout, cluster.processes, local=cluster.local)
    return {
        "ready": all(found.ready for found in probes),
        "data_dir": str(layout.root),
        "local": cluster.local,
        "processes": [_row(layout, found) for found in probes],
    }


def _row(layout: Layout, found: Probe) -> dict[str, Any]:
    process = found.process
    row: dict[str, Any] = {
        "role": process.role,
        "zone": process.zone,
        "id": process.id,
        "pid": found.pid,
        "address": process.url,
        "health": process.health,
        "ready": found.ready,
        "position": found.position,
        "serve": serve_argv(layout, process),
    }
    row |= {name: found.status[name] for name in _SHOWN if name in found.status}
    return row | ({"reason": found.reason} if found.reason else {})


def _reason(answer: urllib3.BaseHTTPResponse) -> str:
    text = answer.data.decode(errors="replace").strip().splitlines()
    return f"not ready: {text[0][:200]}" if text else f"not ready (HTTP {answer.status})"
