"""The part of an API server that keeps the logs and their store in order: wired from the settings, for `cli.serve`.

Duties: `checkpoint`, `trim`, and `maintenance` (compaction, rewriting of files, the way out of NOSPACE). Beside them,
on every API server: what etcd's space and the members' clocks are, and that nothing is written while etcd is full or
this server's clock is off.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from cli.log_access import LogAccess
from cli.log_duties import CHECKPOINT, TRIM, LogDuties
from cluster.clocks import ClockJudge
from cluster.duties import FenceFell, Work, abreast, list_duties, run_duty
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from cluster.etcd.maintenance import Maintenance
from cluster.etcd.space import Space, space_of
from cluster.members import Member, list_members
from eventlog.driver import LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.records import HeadRef, NewRecord
from eventlog.writer import LogWriter, SealedAppend
from mesh.errors import MeshlogError, NotReady, Unavailable
from mesh.fold import S
from mesh.registry.state import RegistryState
from mesh.state import State
from runtime.clock import Clock, Entropy
from runtime.health import Check
from runtime.limits import CLOCK_LOOK_S, SPACE_LOOK_S
from runtime.settings import ApiSettings, DutySettings, TlsFiles
from runtime.supervise import Supervisor

log = structlog.get_logger(__name__)

MAINTENANCE = "maintenance"


class SpaceMetrics:
    """Prometheus metrics of etcd's space."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.size = Gauge("meshlog_etcd_db_bytes", "The fullest etcd member's database file", registry=registry)
        self.used = Gauge("meshlog_etcd_db_used_bytes", "What of it is used", registry=registry)
        self.quota = Gauge("meshlog_etcd_quota_bytes", "At this size etcd takes no more writes", registry=registry)
        self.full = Gauge("meshlog_etcd_full", "1 while etcd takes no writes for want of space", registry=registry)
        self.alarm = Gauge("meshlog_etcd_space_alarm", "1 from 70 % of the quota on", registry=registry)

    def tell(self, space: Space) -> None:
        self.size.set(space.size_bytes)
        self.used.set(space.used_bytes)
        self.quota.set(space.quota_bytes)
        self.full.set(space.full)
        self.alarm.set(space.alarm is not None)


class Upkeep:
    """Runs the duties of one API server and knows whether it may write."""

    def __init__(
        self,
        settings: ApiSettings,
        access: LogAccess[State],
        registry: LogAccess[RegistryState],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._settings, self._access, self._clock, self._entropy = settings, access, clock, entropy
        duties = settings.duties or DutySettings()
        self._judge = ClockJudge((settings.role, settings.id))
        self._members: Sequence[Member] = ()
        self._space: Space | None = None
        self._metrics = SpaceMetrics()
        self._maintaining = _maintenance_connection(settings, clock, entropy)
        self._maintenance = None
        if self._maintaining is not None:
            self._maintenance = Maintenance(self._maintaining, duties.keep_revisions_s, settings.quota_bytes, clock)
        self._mesh = self._log_duties(access, duties.keep_events)
        self._registry = self._log_duties(registry, duties.registry_keep_events)

    def _log_duties(self, access: LogAccess[S], keep_events: int) -> LogDuties[S]:
        return LogDuties(
            access,
            self._settings,
            self._list_members,
            lambda: self._space is not None and self._space.alarm is not None,
            keep_events=keep_events,
            clock=self._clock,
            entropy=self._entropy,
        )

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start(self._watch_members(), "member clocks")
        supervisor.start(self._watch_space(), "etcd space")
        mesh, registry = self._mesh, self._registry
        checkpoints = {CHECKPOINT: mesh.checkpoint, f"registry-{CHECKPOINT}": registry.checkpoint}
        trims = {TRIM: mesh.trim, f"registry-{TRIM}": registry.trim}
        supervisor.start(self._duty(CHECKPOINT, abreast(checkpoints, self._clock)), CHECKPOINT)
        supervisor.start(self._duty(TRIM, abreast(trims, self._clock)), TRIM)
        if self._maintenance is not None:
            supervisor.start(self._duty(MAINTENANCE, self._maintain), MAINTENANCE)
            supervisor.start(self._without_leases(), "etcd space without leases")

    def close(self) -> None:
        if self._maintaining is not None:
            self._maintaining.close()

    def writer(self, driver: LogDriver, keyring: Keyring) -> LogWriter:
        """A log's writer, that refuses while nothing may be written here."""
        return _GuardedWriter(self, driver, keyring, self._clock, self._entropy)

    def checks(self) -> Mapping[str, Check]:
        """For readiness: a server whose clock is off is not sent writes. One whose etcd is full still reads."""
        return {"clock": self._clock_objection}

    def check_writable(self) -> None:
        """NotReady or Unavailable, with what is in the way and what to do."""
        objection = self._clock_objection()
        if objection is not None:
            raise NotReady(f"Nothing is written here: {objection}")
        if self._space is not None and self._space.full:
            raise Unavailable(self._space.alarm or "etcd is out of space")

    def status(self) -> dict[str, Any]:
        """For /status: `space`, and what an operator has to know as `warnings`."""
        found: dict[str, Any] = {}
        warnings = [self._clock_objection(), self._access.reproduction.disagreement, *self._access.replica.alarms]
        if self._space is not None:
            found["space"] = {**self._space._asdict(), "share": round(self._space.share, 4)}
            warnings.append(self._space.alarm)
        if self._maintenance is None:
            warnings.append(
                "this server has no certificate for etcd's user `maintenance`, so it does not compact etcd: run "
                "`meshlog up`, or `meshlog init` and copy the zone's directory again"
            )
        return found | {"warnings": [said for said in warnings if said]}

    # --- inside

    def _clock_objection(self) -> str | None:
        return self._judge.objection(self._clock.now_us(), self._clock.monotonic_s())

    def _duty(self, name: str, work: Work) -> Coroutine[Any, Any, None]:
        settings = self._settings
        return run_duty(
            self._access.connection, settings.key_prefix, name, holder_id=settings.id, work=work, clock=self._clock
        )

    async def _maintain(self, token: int) -> None:  # noqa: ARG002 - nothing that it does is written under a fence
        assert self._maintenance is not None  # noqa: S101 - started only with one
        await self._maintenance.run()

    async def _list_members(self) -> Sequence[Member]:
        return await list_members(self._access.connection, self._settings.key_prefix)

    async def _watch_members(self) -> None:
        while True:
            begun_s = self._clock.monotonic_s()
            try:
                self._members = await self._list_members()
                self._judge.on_look(self._members, begun_s, self._clock.monotonic_s())
            except MeshlogError as failure:
                log.info("members not listed", reason=failure.message)
            await self._clock.sleep(CLOCK_LOOK_S)

    async def _watch_space(self) -> None:
        while True:
            space = space_of(await self._access.connection.statuses(), self._settings.quota_bytes)
            if space is not None:
                self._tell_changes(self._space, space)
                self._space = space
                self._metrics.tell(space)
            await self._clock.sleep(SPACE_LOOK_S)

    def _tell_changes(self, before: Space | None, now: Space) -> None:
        was = (False, False) if before is None else (before.alarm is not None, before.full)
        if was == (now.alarm is not None, now.full):
            return
        if now.alarm is None:
            log.info("etcd has room again", share=round(now.share, 2))
        else:
            log.error("etcd is short of space", alarm=now.alarm)

    async def _without_leases(self) -> None:
        """When etcd is full it grants no lease, so nobody may hold the duties: the first living API server acts."""
        while True:
            if self._space is not None and self._space.full:
                try:
                    await self._act_alone()
                except FenceFell:
                    log.info("etcd is full, and somebody else trims")
                except MeshlogError as failure:
                    log.warning("etcd is full, and no room could be made yet", error=failure.message)
            await self._clock.sleep(SPACE_LOOK_S)

    async def _act_alone(self) -> None:
        held = await list_duties(self._access.connection, self._settings.key_prefix)
        servers = sorted(member.id for member in self._members if member.role == self._settings.role)
        if servers and servers[0] != self._settings.id:
            return
        if TRIM not in held:
            await self._mesh.trim_unfenced()
            await self._registry.trim_unfenced()
        if MAINTENANCE not in held and self._maintenance is not None:
            await self._maintenance.round()


class _GuardedWriter(LogWriter):
    """Seals nothing while nothing may be written."""

    def __init__(self, upkeep: Upkeep, driver: LogDriver, keyring: Keyring, clock: Clock, entropy: Entropy) -> None:
        super().__init__(driver, keyring, clock, entropy)
        self._upkeep = upkeep

    async def seal(
        self, expected: HeadRef, records: Sequence[NewRecord], previous_time_us: int, wall_us: int
    ) -> SealedAppend:
        self._upkeep.check_writable()
        return await super().seal(expected, records, previous_time_us, wall_us)


def maintenance_files(settings: ApiSettings) -> TlsFiles | None:
    """The certificate of etcd's user `maintenance`: as set, or beside the role's own (where settings are older)."""
    if settings.maintenance_tls is not None:
        return settings.maintenance_tls
    beside = settings.etcd_tls.certificate.with_name("etcd-maintenance")
    files = TlsFiles(
        certificate=beside.with_suffix(".crt"), key=beside.with_suffix(".key"), authority=settings.etcd_tls.authority
    )
    return files if files.certificate.exists() and files.key.exists() else None


def _maintenance_connection(settings: ApiSettings, clock: Clock, entropy: Entropy) -> EtcdConnection | None:
    files = maintenance_files(settings)
    if files is None:
        return None
    tls = EtcdTls(ca=files.authority, certificate=files.certificate, key=files.key)
    members = [EtcdMember(zone, address) for zone, address in settings.etcd_endpoints]
    return EtcdConnection(members, settings.zone, tls, clock, entropy)
