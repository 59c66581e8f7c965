"""Which archive and which keys a command means: what was said, else what the cluster in the directory has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cli.establish import api_settings
from cli.layout import Layout
from cli.log_access import key_providers
from cli.probes import probe_all
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass
from mesh.errors import SettingsError
from runtime.clock import SystemEntropy
from runtime.key_sources import KeySources, key_files
from runtime.settings import KekSettings


class LogPosition(NamedTuple):
    """What the API servers say of the log and of its last drill; None where none answers."""

    position: int | None
    drill: Mapping[str, Any] | None


def archive_url(layout: Layout, said: str | None) -> str:
    """The archive's address; SettingsError if there is none."""
    if said is not None:
        return said
    url = api_settings(layout, layout.load()).archive if layout.cluster_file.exists() else None
    if url is None:
        raise SettingsError(
            f"{layout.root} has no cluster, or its settings name no archive: say where it is with --archive"
        )
    return url


def archive_providers(
    layout: Layout, keys: Path | None, keks: Mapping[str, KeySources]
) -> Mapping[KeyClass, KeyProvider]:
    """What opens the archive's data keys: by class the provider in `keks`, else the key file in `keys`, else what the
    cluster's API servers use."""
    if keys is not None:
        kek = KekSettings(config=key_files(keys / "config.kek"), secrets=key_files(keys / "secrets.kek"))
    elif layout.cluster_file.exists():
        kek = api_settings(layout, layout.load()).kek
    elif {"config", "secrets"} <= keks.keys():
        kek = KekSettings(config=keks["config"], secrets=keks["secrets"])
    else:
        raise SettingsError(
            f"{layout.root} has no cluster: say with --keys or --key-provider where the archive's keys are"
        )
    return key_providers(dataclasses.replace(kek, **keks), SystemEntropy())


def log_positions(layout: Layout) -> tuple[LogPosition, LogPosition]:
    """Of the log of the meshes and the registry's, asked of the API servers of the cluster in the directory, if there
    is one."""
    if not layout.cluster_file.exists():
        return LogPosition(None, None), LogPosition(None, None)
    cluster = layout.load()
    found = [probe.status for probe in probe_all(layout, cluster.of_role("api"), local=cluster.local) if probe.status]
    return _best(found), _best([each["registry"] for each in found if isinstance(each.get("registry"), dict)])


def _best(statuses: Sequence[Mapping[str, Any]]) -> LogPosition:
    positions = [status["position"] for status in statuses if isinstance(status.get("position"), int)]
    drills = [status["drill"] for status in statuses if status.get("drill")]
    return LogPosition(
        max(positions, default=None), max(drills, key=lambda drill: str(drill.get("time", "")), default=None)
    )
