"""Who still knows of a log's last writes when its store is gone: the roles that live.

All are asked for their positions, API servers for their last events too, from memory. Who does not answer in time is no
witness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from cli.client import ApiClient, Target
from cli.credentials import load_credentials
from cli.layout import ClusterFile, Layout
from cli.probes import Probe, probe_all
from eventlog.restore import Witness
from mesh.errors import MeshlogError
from mesh.position import Position

_EVENTS = "/meshlog/v1/events"


def ask_roles(layout: Layout, cluster: ClusterFile, after: Position) -> list[Witness]:
    """Every role that answers, with the events beyond `after` that it can name."""
    roles = [process for process in cluster.processes if process.role != "etcd"]
    found = [probe for probe in probe_all(layout, roles, local=cluster.local) if _position(probe) is not None]
    if not found:
        return []
    with ThreadPoolExecutor(max_workers=len(found)) as threads:
        return list(threads.map(lambda probe: _witness(layout, probe, after), found))


def _witness(layout: Layout, probe: Probe, after: Position) -> Witness:
    position = _position(probe)
    assert position is not None  # noqa: S101 - others were left out
    events: Sequence[dict[str, object]] = ()
    if probe.process.role == "api" and position > after:
        target = Target([probe.process.url], load_credentials(layout.credentials_file))
        try:
            with ApiClient(target) as client:
                events = client.get(_EVENTS, {"consistency": "stale", "after": str(after)})["events"]
        except (MeshlogError, KeyError):
            events = ()  # its position still counts
    return Witness(probe.process.id, position, tuple(events), _registry_position(probe))


def _position(probe: Probe) -> Position | None:
    return _told(probe.status)


def _registry_position(probe: Probe) -> Position | None:
    registry = probe.status.get("registry")
    return _told(registry) if isinstance(registry, dict) else None


def _told(status: Mapping[str, object]) -> Position | None:
    epoch, position = status.get("epoch"), status.get("position")
    return Position(epoch, position) if isinstance(epoch, int) and isinstance(position, int) else None
