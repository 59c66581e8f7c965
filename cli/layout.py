"""A cluster's directory: what is where in it, and `cluster.json`, the list of its processes. Paths and values only.

cluster.json        account, region, zones, and every process with its addresses
credentials.json    the admin key (0600)
pki/ keys/ admin/   trust roots with their keys, key-encryption keys, the operator's etcd certificate: stays here
zones/<zone>/       <role>.toml and <role>/ (certificates, keys, state, pid): complete, to be copied to the zone's host
archive/            the log's archive, unless it is elsewhere: with keys/, what a lost cluster is made again from
logs/<id>.log       what each process wrote to stderr
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.errors import SettingsError
from runtime.files import PUBLIC, write_atomic
from runtime.key_sources import key_files
from runtime.settings import AuthorityFiles, Endpoint, KekSettings, TlsFiles

FORMAT = 1
ROLE_ORDER = ("etcd", "api", "projector", "frontend")
"""The order to start in; the reverse is the order to stop in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """One process of the cluster. `address` is where others reach it (API, feed, xDS, etcd client)."""

    role: str
    zone: str
    id: str
    config: str
    """Path of its settings, relative to the cluster's directory."""
    address: str
    health: str
    scheme: str = ""
    """`http` or `https` for what is spoken to as a URL."""
    signed: str = ""
    """Of a frontend: where proxies connect that sign, as the stock App Mesh image does (APPMESH_XDS_ENDPOINT)."""

    @property
    def url(self) -> str:
        """The address as a user types it: a base URL where there is one."""
        return f"{self.scheme}://{self.address}" if self.scheme else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """`cluster.json`. `local`: every process runs on this machine, under `up` and `down`."""

    account_id: str
    region: str
    trust_domain: str
    key_prefix: str
    zones: tuple[str, ...]
    local: bool
    processes: tuple[ProcessEntry, ...]

    def of_role(self, role: str) -> list[ProcessEntry]:
        return [process for process in self.processes if process.role == role]

    def endpoints(self, role: str) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(process.zone, process.address) for process in self.of_role(role))


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under one cluster's directory."""

    root: Path

    @property
    def cluster_file(self) -> Path:
        return self.root / "cluster.json"

    @property
    def credentials_file(self) -> Path:
        return self.root / "credentials.json"

    @property
    def lock_file(self) -> Path:
        return self.root / ".lock"

    @property
    def restore_journal(self) -> Path:
        """Of a restore under way; not there otherwise."""
        return self.root / "restore.json"

    @property
    def restores(self) -> Path:
        """The reports of restores that are done, `epoch-<n>.json`."""
        return self.root / "restores"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    def key_file(self, key_class: str) -> Path:
        """The operator's copy of a class's key file; those of the roles are in their zones."""
        return self.root / "keys" / f"{key_class}.kek"

    @property
    def kek(self) -> KekSettings:
        return KekSettings(config=key_files(self.key_file("config")), secrets=key_files(self.key_file("secrets")))

    @property
    def admin_etcd_tls(self) -> TlsFiles:
        """etcd's root user: provisioning and fsck."""
        return tls_files(self.root / "admin", "etcd")

    def authority(self, root: str) -> AuthorityFiles:
        return AuthorityFiles(certificate=self.pki / f"{root}-ca.crt", key=self.pki / f"{root}-ca.key")

    @property
    def http_authority(self) -> Path:
        """What callers verify the API's HTTPS by, where it speaks that."""
        return self.pki / "http-ca.crt"

    def zone(self, zone: str) -> Path:
        return self.root / "zones" / zone

    def role(self, zone: str, role: str) -> Path:
        return self.zone(zone) / role

    def config(self, zone: str, role: str) -> Path:
        return self.zone(zone) / f"{role}.toml"

    def pid_file(self, process: ProcessEntry) -> Path:
        return self.role(process.zone, process.role) / "pid"

    def log_file(self, process_id: str) -> Path:
        return self.root / "logs" / f"{process_id}.log"

    @property
    def directories(self) -> list[Path]:
        """Everything that is made under `root`, with `files`."""
        return [self.archive, self.restores, *(self.root / name for name in ("zones", "logs", "admin", "keys", "pki"))]

    @property
    def archive(self) -> Path:
        """Where the log is archived, unless the settings say another place."""
        return self.root.absolute() / "archive"

    @property
    def files(self) -> list[Path]:
        return [self.cluster_file, self.credentials_file, self.restore_journal, self.lock_file]

    def load(self) -> ClusterFile:
        """Read `cluster.json`; SettingsError if there is none or it is of another format."""
        try:
            document: Any = json.loads(self.cluster_file.read_text())
        except FileNotFoundError as error:
            raise SettingsError(
                f"there is no cluster in {self.root}: start one with `meshlog up`, or name it with --data-dir"
            ) from error
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read {self.cluster_file}: {error}") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise SettingsError(f"{self.cluster_file} is not of format {FORMAT}: it was written by another release")
        try:
            processes = tuple(ProcessEntry(**process) for process in document.pop("processes"))
            return ClusterFile(**document | {"zones": tuple(document["zones"]), "processes": processes})
        except (TypeError, KeyError) as error:
            raise SettingsError(f"{self.cluster_file} is damaged ({error}): restore it, or start over") from error

    def save(self, cluster: ClusterFile) -> None:
        text = json.dumps({"format": FORMAT} | dataclasses.asdict(cluster), indent=2)
        write_atomic(self.cluster_file, (text + "\n").encode(), PUBLIC)


def tls_files(directory: Path, name: str) -> TlsFiles:
    """Three PEM files side by side."""
    return TlsFiles(
        certificate=directory / f"{name}.crt", key=directory / f"{name}.key", authority=directory / f"{name}-ca.crt"
    )


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME/meshlog`, or `~/.local/state/meshlog`."""
    state = (os.environ if environ is None else environ).get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "meshlog"
