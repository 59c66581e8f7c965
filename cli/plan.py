"""What a cluster is to be: zones, hosts, ports and the rest, as one value. Nothing is written or opened here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.layout import ClusterFile, ProcessEntry
from mesh.errors import SettingsError
from runtime.key_sources import KeySources
from runtime.settings import DEFAULT_KEY_PREFIX, DEFAULT_TRUST_DOMAIN, EtcdMemberSettings, split_address

_ZONE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_ACCOUNT = re.compile(r"\d{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where one process is bound and where others find it. Ports are told apart by what is spoken."""

    listen_host: str
    host: str
    port: int
    health_port: int
    peer_port: int = 0
    """A second port: among its own kind (etcd members, API servers), or for proxies that sign (frontends)."""

    def bound(self, port: int) -> str:
        return _address(self.listen_host, port)

    def told(self, port: int) -> str:
        return _address(self.host, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make. `listeners` by (zone, role); `zones` in order."""

    account_id: str
    region: str
    zones: tuple[str, ...]
    listeners: Mapping[tuple[str, str], Listener]
    local: bool
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    key_prefix: str = DEFAULT_KEY_PREFIX
    etcd_binary: Path | None = None
    allow_first_look: bool = False
    cluster_token: str = ""
    """Sets one etcd cluster apart from others. Empty: named after the account; a restore names another one."""

    archive: str | None = None
    """Where the log is archived. None: in the cluster's directory if all of it runs on this machine, else nowhere."""
    https: bool = False
    """The API speaks HTTPS, by certificates of a root of its own."""
    https_names: tuple[str, ...] = ()
    """Further DNS names or addresses that callers reach it by: a load balancer's, or the one that AWS used."""
    keks: Mapping[str, KeySources] = field(default_factory=dict)
    """Providers of key-encryption keys by class, where they are not key files."""

    def check(self) -> None:
        """SettingsError naming what is wrong with it."""
        if not _ACCOUNT.fullmatch(self.account_id):
            raise SettingsError(f"account id '{self.account_id}' is not twelve digits; write for example 123456789012")
        for zone in self.zones:
            if not _ZONE.fullmatch(zone):
                raise SettingsError(f"zone '{zone}' is not a DNS label: use lower-case letters, digits and '-'")
        if len(set(self.zones)) != len(self.zones) or not self.zones:
            raise SettingsError("a cluster needs at least one zone, each named once")

    def host(self, zone: str, role: str) -> str:
        return self.listeners[zone, role].host


def plan_of(cluster: ClusterFile, etcd: Mapping[str, EtcdMemberSettings]) -> Plan:
    """The plan that `cluster` was made by, so that missing files can be made again with the same addresses.

    `etcd`: the members' settings by zone. Only for a local cluster, where a process is bound where others find it.
    """
    listeners = {}
    for process in cluster.processes:
        host, port = split_address(process.address)
        member = etcd[process.zone]
        listeners[process.zone, process.role] = Listener(
            listen_host=split_address(member.listen)[0],
            host=host,
            port=port,
            health_port=split_address(process.health)[1],
            peer_port=_second_port(process, member),
        )
    first = next(iter(etcd.values()))
    return Plan(
        account_id=cluster.account_id,
        region=cluster.region,
        zones=cluster.zones,
        listeners=listeners,
        local=cluster.local,
        trust_domain=cluster.trust_domain,
        key_prefix=cluster.key_prefix,
        etcd_binary=first.binary,
        allow_first_look=first.allow_first_look,
        https=any(process.scheme == "https" for process in cluster.of_role("api")),
        cluster_token="" if first.cluster_token == etcd_token(cluster.account_id) else first.cluster_token,
    )


def _second_port(process: ProcessEntry, etcd: EtcdMemberSettings) -> int:
    if process.role == "etcd":
        return split_address(etcd.peer_listen)[1]
    return split_address(process.signed)[1] if process.signed else 0


def etcd_token(account_id: str) -> str:
    """The cluster token of an etcd that nobody named otherwise."""
    return f"meshlog-{account_id}"


def process_id(role: str, zone: str) -> str:
    """The name of a process within its cluster, `api-z1`."""
    return f"{role}-{zone}"


def with_etcd(plan: Plan, binary: Path, *, allow_first_look: bool) -> Plan:
    """The same plan on another etcd."""
    return dataclasses.replace(plan, etcd_binary=binary, allow_first_look=allow_first_look)


def with_peer_ports(plan: Plan, ports: Iterable[int]) -> Plan:
    """The same plan with second ports for API servers and frontends that have none; those that have one in their
    settings keep it."""
    spare = iter(ports)
    listeners = {
        (zone, role): dataclasses.replace(listener, peer_port=next(spare))
        if role in ("api", "frontend") and not listener.peer_port
        else listener
        for (zone, role), listener in plan.listeners.items()
    }
    return dataclasses.replace(plan, listeners=listeners)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
