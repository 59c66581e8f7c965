"""The duty that copies instances from AWS Cloud Map, since ECS registers there and nowhere else.

It asks about the services that virtual nodes name: for the revision, and for the instances when that has moved. What
differs becomes events of the registry, marked with their source. While AWS does not answer, or says that all is gone at
once, what is known stays, and an operator is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from api.ports import Replica
from api.registry_duties import Submit
from mesh.errors import MeshlogError
from mesh.registry.copying import commands, is_emptied, said_of, wanted_services
from mesh.registry.state import RegistryState, ServiceKey
from mesh.state import State
from runtime.clock import Clock
from runtime.limits import (
    CLOUD_MAP_ALARM_S,
    CLOUD_MAP_AT_ONCE,
    CLOUD_MAP_EMPTY_S,
    CLOUD_MAP_INSTANCES,
    CLOUD_MAP_TIMEOUT_S,
    CLOUD_MAP_WHOLE_S,
)
from runtime.settings import CloudMapSettings

log = structlog.get_logger(__name__)

CLOUD_MAP = "cloud-map"


class SourceFailed(Exception):  # noqa: N818 - an answer like any other to who asks
    """The source gave no answer; the text says why. Reaches no caller."""


class Source(Protocol):
    """Who is asked. SourceFailed is raised."""

    async def revision(self, namespace: str, service: str) -> int: ...

    async def instances(self, namespace: str, service: str) -> tuple[int, Sequence[Mapping[str, Any]]]: ...


class AwsCloudMap:
    """AWS, by botocore in threads. Its credentials are found as by any of AWS's tools."""

    def __init__(self, settings: CloudMapSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._threads = asyncio.Semaphore(CLOUD_MAP_AT_ONCE)

    async def revision(self, namespace: str, service: str) -> int:
        """The number that moves with each change."""
        names = {"NamespaceName": namespace, "ServiceName": service}
        return int((await self._ask("discover_instances_revision", names))["InstancesRevision"])

    async def instances(self, namespace: str, service: str) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """All of them, whatever their health, and the revision that they are of."""
        names = {"NamespaceName": namespace, "ServiceName": service}
        told = await self._ask(
            "discover_instances", {**names, "HealthStatus": "ALL", "MaxResults": CLOUD_MAP_INSTANCES}
        )
        return int(told.get("InstancesRevision", 0)), told["Instances"]

    async def _ask(self, operation: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        async with self._threads:
            return await asyncio.to_thread(self._call, operation, members)

    def _call(self, operation: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - 0.2 s, for this duty alone

        try:
            found: Mapping[str, Any] = getattr(self._made(), operation)(**members)
        except (BotoCoreError, ClientError) as failure:
            self._client = None  # credentials may come later
            raise SourceFailed(str(failure)) from failure
        return found

    def _made(self) -> Any:
        client = self._client
        if client is None:
            import botocore.session  # noqa: PLC0415
            from botocore.config import Config  # noqa: PLC0415

            own = self._settings.endpoint
            config = Config(
                connect_timeout=CLOUD_MAP_TIMEOUT_S,
                read_timeout=CLOUD_MAP_TIMEOUT_S,
                retries={"total_max_attempts": 2},
                max_pool_connections=CLOUD_MAP_AT_ONCE,
                inject_host_prefix=not own,
                # `meshlog env` may have set one: then the registry would be copied into itself.
                ignore_configured_endpoint_urls=True,
            )
            client = botocore.session.get_session().create_client(
                "servicediscovery", region_name=self._settings.region, endpoint_url=own or None, config=config
            )
            self._client = client
        return client


@dataclass(slots=True)
class _Followed:
    """What is known of one service's source. Times are monotonic seconds."""

    answered_s: float
    whole_s: float | None = None
    revision: int | None = None
    empty_since_s: float | None = None
    failure: str | None = None


class CloudMapDuty:
    """`work` is for `cluster.duties.run_duty`; `alarms` are what an operator has to know meanwhile."""

    def __init__(
        self,
        source: Source,
        mesh: Replica[State],
        registry: Replica[RegistryState],
        submit: Submit,
        settings: CloudMapSettings,
        *,
        account: str,
        clock: Clock,
        metrics: CollectorRegistry = REGISTRY,
    ) -> None:
        self._source, self._mesh, self._registry, self._submit = source, mesh, registry, submit
        self._settings, self._account, self._clock = settings, account, clock
        self._only = frozenset(filter(None, map(str.strip, settings.namespaces.split(","))))
        self._followed: dict[ServiceKey, _Followed] = {}
        self._name = f"aws:{settings.region}" if not settings.endpoint else settings.endpoint
        self._failing = Gauge("meshlog_cloud_map_failing", "Services whose source does not answer", registry=metrics)

    @property
    def alarms(self) -> tuple[str, ...]:
        """One sentence for each service that is not what its source says."""
        now_s = self._clock.monotonic_s()
        return tuple(filter(None, (self._alarm(key, self._followed[key], now_s) for key in sorted(self._followed))))

    async def work(self, token: int) -> None:  # noqa: ARG002 - what it writes is compared with the log's head
        """Ask, now and then, until it is cancelled."""
        self._followed.clear()
        try:
            while True:
                try:
                    await self.round()
                except MeshlogError as failure:
                    log.info("instances not copied", reason=failure.message)
                await self._clock.sleep(self._settings.every_s)
        finally:
            self._followed.clear()
            self._failing.set(0)

    async def round(self) -> None:
        """Ask about every service once."""
        now_s = self._clock.monotonic_s()
        keys = wanted_services(self._mesh.state, self._registry.state, self._account, self._only)
        for gone in self._followed.keys() - set(keys):
            del self._followed[gone]
        for key in keys:
            self._followed.setdefault(key, _Followed(now_s))
        for at in range(0, len(keys), CLOUD_MAP_AT_ONCE):
            await asyncio.gather(*(self._ask(key) for key in keys[at : at + CLOUD_MAP_AT_ONCE]))
        self._failing.set(sum(each.failure is not None for each in self._followed.values()))

    async def _ask(self, key: ServiceKey) -> None:
        followed = self._followed[key]
        try:
            if not await self._is_due(key, followed):
                return
            revision, summaries = await self._source.instances(key.namespace, key.service)
        except SourceFailed as failure:
            followed.failure = str(failure)
            log.warning("Cloud Map does not answer", service=key.service, namespace=key.namespace, reason=str(failure))
            return
        now_s = self._clock.monotonic_s()
        followed.failure, followed.answered_s = None, now_s
        said = said_of(summaries)
        if is_emptied(self._registry.state, key, said):
            followed.empty_since_s = now_s if followed.empty_since_s is None else followed.empty_since_s
            if now_s - followed.empty_since_s < CLOUD_MAP_EMPTY_S:
                return
        followed.empty_since_s = None
        for command in commands(self._registry.state, key, self._name, said):
            await self._submit(command, key.account, "CopyInstances")
            log.info("instances copied", service=key.service, put=len(command.put), removed=len(command.removed))
        followed.revision, followed.whole_s = revision, now_s

    async def _is_due(self, key: ServiceKey, followed: _Followed) -> bool:
        """Whether to ask for the instances: the revision has moved, or they were not asked for in a while."""
        now_s = self._clock.monotonic_s()
        if followed.whole_s is None or now_s - followed.whole_s >= CLOUD_MAP_WHOLE_S:
            return True
        revision = await self._source.revision(key.namespace, key.service)
        followed.failure, followed.answered_s = None, now_s
        return revision != followed.revision

    def _alarm(self, key: ServiceKey, followed: _Followed, now_s: float) -> str | None:
        named = f"registry: service {key.service} of namespace {key.namespace}, copied from {self._name}"
        if followed.empty_since_s is not None:
            return (
                f"{named}: has no instance there all at once; those that are known stay endpoints until that was so "
                f"for {CLOUD_MAP_EMPTY_S:.0f} s"
            )
        if followed.failure is not None and now_s - followed.answered_s >= CLOUD_MAP_ALARM_S:
            return (
                f"{named}: no answer for {now_s - followed.answered_s:.0f} s ({followed.failure[:200]}); what is known "
                "stays. See the server's AWS credentials, its permission servicediscovery:DiscoverInstances*, and AWS"
            )
        return None
