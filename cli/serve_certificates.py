"""The part of an API server that keeps certificates of proxies alive: wired from the settings, for `cli.serve`.

Duty: `certificates` (api.renewal). Beside it, on every API server: what an operator has to know of certificates.
"""

from __future__ import annotations

from typing import Any

from api.commands import CommandService
from api.ports import ApiPorts
from api.renewal import RenewalDuty, warnings
from cluster.duties import run_duty
from cluster.etcd.connection import EtcdConnection
from mesh.state import State
from projector.replica import Replica
from runtime.clock import Clock
from runtime.settings import ApiSettings, DutySettings
from runtime.supervise import Supervisor

CERTIFICATES = "certificates"


class Certificates:
    """Renews under the duty's lease, once there are commands to do it with."""

    def __init__(
        self, settings: ApiSettings, connection: EtcdConnection, replica: Replica[State], clock: Clock
    ) -> None:
        self._settings, self._connection, self._replica, self._clock = settings, connection, replica, clock
        self._duty: RenewalDuty | None = None

    def start(self, supervisor: Supervisor, ports: ApiPorts, commands: CommandService[Any, Any]) -> None:
        settings, duties = self._settings, self._settings.duties or DutySettings()
        self._duty = RenewalDuty(ports, commands, duties.certificates_every_s, duties.trust_spread_s)
        work = run_duty(
            self._connection,
            settings.key_prefix,
            CERTIFICATES,
            holder_id=settings.id,
            work=self._duty.run,
            clock=self._clock,
        )
        supervisor.start(work, CERTIFICATES)

    @property
    def warnings(self) -> list[str]:
        """What an operator has to know: expired, overdue, and what this server could not renew."""
        failures = self._duty.failures if self._duty else []
        return [*warnings(self._replica.state, self._clock.now_us()), *(f"not renewed: {each}" for each in failures)]
