"""A local cluster from nothing, or from what is left of it, to ready: files, etcd members, access and log, roles.

Started in that order, each step waiting for the one before to be true, not for time to pass. A process that ends while
it is waited for is reported with the last lines of its log; what this call started is stopped again if it fails.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cli.credentials import AdminCredentials
from cli.layout import ROLE_ORDER, ClusterFile, Layout, ProcessEntry
from cli.plan import Listener, Plan, plan_of, with_etcd, with_peer_ports
from cli.probes import Probe, probe_all
from cli.processes import log_tail, running_pid, start, stop
from cli.provision import Provisioner
from cluster.etcd import server
from mesh.errors import Conflict, TimedOut, Unavailable
from runtime.clock import Clock, Entropy
from runtime.key_sources import KeySources
from runtime.limits import DOWN_ETCD_GRACE_S, DOWN_GRACE_S, PROBE_PAUSE_S
from runtime.ports import free_ports
from runtime.settings import EtcdMemberSettings
from runtime.settings_file import load

_PORTS_EACH = {"etcd": 3, "api": 3, "projector": 2, "frontend": 3}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What `up` was asked for. None: as it is in an existing cluster, or the default in a new one."""

    zones: int | None
    account_id: str | None
    region: str | None
    listen_host: str
    timeout_s: float
    archive: str | None = None
    keks: Mapping[str, KeySources] = field(default_factory=dict)
    https: bool = False
    https_names: tuple[str, ...] = ()


_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a process bound everywhere is told as
DEFAULT_ZONES = 3
DEFAULT_ACCOUNT = "000000000000"


class BringUp:
    """One `meshlog up`."""

    def __init__(self, layout: Layout, clock: Clock, entropy: Entropy, environ: Mapping[str, str], say: Say) -> None:
        self._layout = layout
        self._clock = clock
        self._entropy = entropy
        self._environ = environ
        self._say = say
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self.again_by = "meshlog up"
        """The command that goes on where this one gave up."""

    async def run(self, wish: Wish) -> ClusterFile:
        """Return when every role is ready. Unavailable, TimedOut or SettingsError naming the role that is not."""
        with locked(self._layout):
            deadline_s = self._clock.monotonic_s() + wish.timeout_s
            if self._layout.restore_journal.exists():
                raise Conflict(
                    f"a restore of the cluster in {self._layout.root} was begun and is not done: finish it with "
                    "`meshlog backup restore`"
                )
            cluster, admin = self.make_files(wish)
            try:
                # Loading what speaks to etcd takes a second; etcd needs it too, to elect a leader.
                loading = asyncio.to_thread(importlib.import_module, "cli.establish")
                await asyncio.gather(self.ensure(cluster, ["etcd"], deadline_s), loading)
                await self._establish(cluster, admin, deadline_s)
                await self.ensure(cluster, ROLE_ORDER[1:], deadline_s)
            except BaseException:
                self.stop(cluster)
                raise
            return cluster

    def stop(self, cluster: ClusterFile) -> None:
        """Stop what this call started."""
        mine = [process for process in cluster.processes if process.id in self._started]
        if mine:
            self._say("stopping what was started")
            stop_in_order(self._layout, mine, self._clock)
        for child in self._started.values():
            if child.poll() is None:  # so young that it has no pid file yet
                child.kill()
            child.wait()

    def make_files(self, wish: Wish) -> tuple[ClusterFile, AdminCredentials]:
        """The cluster's directory, as far as it is not there."""
        layout = self._layout
        binary = server.find_binary(self._environ)
        if layout.cluster_file.exists():
            cluster = layout.load()
            _check_wish(cluster, wish, layout)
            plan = plan_of(cluster, self._etcd_settings(cluster))
            plan = with_peer_ports(plan, _spare_ports(plan, self._entropy))
            if not self._environ.get("MESHLOG_ETCD") and plan.etcd_binary and os.access(plan.etcd_binary, os.X_OK):
                binary = plan.etcd_binary
        else:
            plan = _new_plan(wish, self._entropy)
        version = server.read_version(binary)
        server.check_version(binary, version, allow_first_look=True)
        first_look = version[:2] == (3, 5) and version[2] in server.FIRST_LOOK_ONLY
        if first_look:
            self._say(
                f"etcd {'.'.join(map(str, version))} is for a first look: it can corrupt data when killed under load"
            )
        return Provisioner(
            layout, with_etcd(plan, binary, allow_first_look=first_look), self._clock, self._entropy
        ).write()

    def _etcd_settings(self, cluster: ClusterFile) -> dict[str, EtcdMemberSettings]:
        return {
            process.zone: load(EtcdMemberSettings, self._layout.root / process.config, {})
            for process in cluster.of_role("etcd")
        }

    async def ensure(self, cluster: ClusterFile, roles: Sequence[str], deadline_s: float) -> None:
        """Start what of these roles is not running, and return when all of them are ready."""
        wanted = [process for role in roles for process in cluster.of_role(role)]
        for process in wanted:
            if running_pid(self._layout, process) is None:
                self._started[process.id] = start(self._layout, process, self._environ)
        self._say(f"waiting for {', '.join(process.id for process in wanted)}")
        while True:
            probes = await asyncio.to_thread(probe_all, self._layout, wanted)
            waiting = [found for found in probes if not found.ready]
            if not waiting:
                return
            self._fail_on_ended(waiting)
            if self._clock.monotonic_s() > deadline_s:
                raise TimedOut(self._late(waiting))
            await self._clock.sleep(PROBE_PAUSE_S)

    def _fail_on_ended(self, waiting: Sequence[Probe]) -> None:
        for found in waiting:
            child = self._started.get(found.process.id)
            code = None if child is None else child.poll()
            if code is not None:
                raise Unavailable(
                    f"{found.process.id} ended with code {code} before it was ready. The end of its log:\n"
                    f"{log_tail(self._layout, found.process.id)}\n"
                    f"Mend what it says and run `{self.again_by}` again; the whole log is "
                    f"{self._layout.log_file(found.process.id)}"
                )

    def _late(self, waiting: Sequence[Probe]) -> str:
        first = waiting[0]
        others = f" (nor {', '.join(found.process.id for found in waiting[1:])})" if waiting[1:] else ""
        return (
            f"{first.process.id} is not ready in time{others}: {first.reason}. The end of its log:\n"
            f"{log_tail(self._layout, first.process.id)}\n"
            f"Run `{self.again_by}` again, with a longer --timeout on a slow machine"
        )

    async def _establish(self, cluster: ClusterFile, admin: AdminCredentials, deadline_s: float) -> None:
        from cli.establish import establish  # noqa: PLC0415  (grpc and the log: only after etcd is up)

        while True:
            try:
                return await establish(self._layout, cluster, admin, self._clock, self._entropy)
            except Unavailable as error:
                # A leader is being elected, or an answer was lost: every step may be repeated.
                if self._clock.monotonic_s() > deadline_s:
                    raise TimedOut(f"the log could not be set up in time: {error.message}") from error
                await self._clock.sleep(PROBE_PAUSE_S)


def stop_in_order(layout: Layout, processes: Sequence[ProcessEntry], clock: Clock) -> list[str]:
    """Roles first, then the etcd that they need to end in order. Returns the ids of what had to be killed.

    etcd's members one by one: a leader first hands over, and waits 7 s for a successor that is ending as well.
    """
    killed = stop(layout, [process for process in processes if process.role != "etcd"], clock, DOWN_GRACE_S)
    for process in processes:
        if process.role == "etcd":
            killed += stop(layout, [process], clock, DOWN_ETCD_GRACE_S)
    return killed


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """One `up` or `down` at a time in one directory; Conflict for the second."""
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with layout.lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another meshlog up or down works in {layout.root}; wait for it to end") from error
        yield


def _new_plan(wish: Wish, entropy: Entropy) -> Plan:
    zones = tuple(f"z{number}" for number in range(1, (wish.zones or DEFAULT_ZONES) + 1))
    ports = iter(free_ports(wish.listen_host, sum(_PORTS_EACH.values()) * len(zones), entropy))
    listeners = {
        (zone, role): Listener(
            listen_host=wish.listen_host,
            host=_REACHED_AT.get(wish.listen_host, wish.listen_host),
            port=next(ports),
            health_port=next(ports),
            peer_port=next(ports) if _PORTS_EACH[role] == 3 else 0,
        )
        for zone in zones
        for role in ROLE_ORDER
    }
    return Plan(
        account_id=wish.account_id or DEFAULT_ACCOUNT,
        region=wish.region or "us-east-1",
        keks=wish.keks,
        zones=zones,
        listeners=listeners,
        local=True,
        archive=wish.archive,
        https=wish.https,
        https_names=wish.https_names,
    )


def _spare_ports(plan: Plan, entropy: Entropy) -> list[int]:
    """Two free ports for each zone, none of them the cluster's own: its processes may be down now."""
    listeners = plan.listeners.values()
    own = {port for each in listeners for port in (each.port, each.health_port, each.peer_port)}
    host = next(iter(listeners)).listen_host
    return [port for port in free_ports(host, len(own) + 2 * len(plan.zones), entropy) if port not in own]


def _check_wish(cluster: ClusterFile, wish: Wish, layout: Layout) -> None:
    """An existing cluster keeps what it was made with."""
    if wish.keks:
        raise Conflict(
            f"the cluster in {layout.root} has its key providers in the settings of its roles: docs/keys.md says how "
            "to move it to others"
        )
    asked = (
        ("--zones", wish.zones, len(cluster.zones)),
        ("--account-id", wish.account_id, cluster.account_id),
        ("--region", wish.region, cluster.region),
    )
    spoken = {process.scheme for process in cluster.of_role("api")}
    if wish.https_names or (wish.https and spoken != {"https"}):
        raise Conflict(
            f"the API of the cluster in {layout.root} speaks {', '.join(sorted(spoken))} by the files that it was made "
            "with: set [http_tls] in zones/*/api.toml to certificates of your own, or choose another --data-dir"
        )
    if wish.archive is not None:
        raise Conflict(
            f"the cluster in {layout.root} has its archive already: to move it, copy what is there, and then change "
            "'archive' in zones/*/api.toml, in all of them at once"
        )
    for flag, value, made in asked:
        if value is not None and value != made:
            raise Conflict(
                f"the cluster in {layout.root} was made with {flag} {made}, not {value}: leave the flag out, choose "
                "another --data-dir, or remove it first with `meshlog down --delete-data`"
            )
    if not cluster.local:
        raise Conflict(
            f"{layout.root} has the files of a cluster on several hosts: use `meshlog serve` on each of them"
        )
