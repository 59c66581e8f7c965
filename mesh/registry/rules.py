"""What Cloud Map demands beyond its model, of one service or instance alone. Pure; each is an InvalidInput.

Sources: the model's own documentation and the Cloud Map developer guide. Where Cloud Map would do something that only
AWS can (look an EC2 instance up), the caller is told what to send instead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from mesh.limits import HEARTBEAT_MAX_S, HEARTBEAT_MIN_S, INSTANCE_ATTRIBUTES_MAX, INSTANCE_ATTRIBUTES_MAX_CHARS
from mesh.registry.errors import InvalidInput, ResourceLimitExceeded
from mesh.registry.state import Health, Instance, Service

HTTP, DNS_PRIVATE, DNS_PUBLIC = "HTTP", "DNS_PRIVATE", "DNS_PUBLIC"
DNS_HTTP = "DNS_HTTP"

IPV4, IPV6, PORT, CNAME = "AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6", "AWS_INSTANCE_PORT", "AWS_INSTANCE_CNAME"
ALIAS, EC2, INITIAL_HEALTH = "AWS_ALIAS_DNS_NAME", "AWS_EC2_INSTANCE_ID", "AWS_INIT_HEALTH_STATUS"
HEARTBEAT = "MESHLOG_HEARTBEAT_S"
"""An attribute of ours: within how many seconds the instance owes a heartbeat."""

_PORT_MAX = 65_535
_TOGETHER = (("A",), ("AAAA",), ("A", "AAAA"), ("SRV",), ("CNAME",))
_NEEDED = {"A": (IPV4,), "AAAA": (IPV6,), "CNAME": (CNAME,), "SRV": (PORT,)}


def check_service(namespace_type: str, spec: Mapping[str, Any]) -> None:
    """InvalidInput if a namespace of that type has no such service."""
    dns, by_api = spec.get("DnsConfig"), spec.get("Type") == HTTP
    if namespace_type == HTTP and dns is not None:
        raise InvalidInput("DnsConfig: a service in an HTTP namespace has no DNS records; leave it out")
    if by_api and dns is not None:
        raise InvalidInput("DnsConfig: a service of Type HTTP is discovered by API calls alone; leave one of both out")
    if namespace_type != HTTP and not by_api and dns is None:
        raise InvalidInput("DnsConfig: a service in a DNS namespace needs it, or else Type HTTP")
    _check_health(namespace_type, spec, by_api=by_api or namespace_type == HTTP)
    if dns is not None:
        _check_dns(dns, spec)


def _check_health(namespace_type: str, spec: Mapping[str, Any], *, by_api: bool) -> None:
    probed = spec.get("HealthCheckConfig")
    if probed is None:
        return
    if spec.get("HealthCheckCustomConfig") is not None:
        raise InvalidInput("HealthCheckConfig, HealthCheckCustomConfig: a service has one of both at most")
    if namespace_type == DNS_PRIVATE and not by_api:
        raise InvalidInput("HealthCheckConfig: is for public DNS and HTTP namespaces; use HealthCheckCustomConfig")
    if probed["Type"] == "TCP" and probed.get("ResourcePath"):
        raise InvalidInput("HealthCheckConfig.ResourcePath: a TCP health check has no path; leave it out")


def _check_dns(dns: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    types = tuple(sorted(record["Type"] for record in dns["DnsRecords"]))
    if types not in _TOGETHER:
        raise InvalidInput(
            f"DnsConfig.DnsRecords: {', '.join(types) or 'none'}: must be A, AAAA, A with AAAA, SRV, or CNAME"
        )
    if types == ("CNAME",):
        if dns.get("RoutingPolicy") != "WEIGHTED":
            raise InvalidInput("DnsConfig.RoutingPolicy: a CNAME record needs WEIGHTED")
        if spec.get("HealthCheckConfig") is not None:
            raise InvalidInput("HealthCheckConfig: a service with a CNAME record has none")


def with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What Cloud Map fills in where the caller says nothing."""
    filled = dict(spec)
    if "DnsConfig" in filled:
        filled["DnsConfig"] = {"RoutingPolicy": "MULTIVALUE", **filled["DnsConfig"]}
    if "HealthCheckConfig" in filled:
        probed = {"FailureThreshold": 1, **filled["HealthCheckConfig"]}
        if probed["Type"] != "TCP":
            probed = {"ResourcePath": "/", **probed}
        filled["HealthCheckConfig"] = probed
    if "HealthCheckCustomConfig" in filled:
        filled["HealthCheckCustomConfig"] = {"FailureThreshold": 1}  # whatever is asked for: as Cloud Map has it
    return filled


def service_type(namespace_type: str, spec: Mapping[str, Any]) -> str:
    """HTTP or DNS_HTTP, as Cloud Map calls them."""
    return HTTP if namespace_type == HTTP or spec.get("Type") == HTTP else DNS_HTTP


def has_check(service: Service, instance: Instance) -> bool:
    """Whether anything tells how the instance is; without, Cloud Map calls it UNKNOWN and counts it in."""
    checked = "HealthCheckConfig" in service.spec or "HealthCheckCustomConfig" in service.spec
    return checked or HEARTBEAT in instance.attributes


def heartbeat_s(instance: Instance) -> int | None:
    """Within how many seconds the instance owes a heartbeat; None if it owes none.

    What is copied from elsewhere may have anything in that attribute, and owes none here.
    """
    value = instance.attributes.get(HEARTBEAT)
    return int(value) if value is not None and _whole(value, HEARTBEAT_MIN_S, HEARTBEAT_MAX_S) else None


def check_instance(service: Service, attributes: Mapping[str, str]) -> None:
    """InvalidInput (or ResourceLimitExceeded) if the service has no instance with such attributes."""
    _check_size(attributes)
    for problem in _wrong_values(attributes):
        raise InvalidInput(problem)
    if EC2 in attributes:
        raise InvalidInput(f"{EC2}: addresses are not looked up in EC2 here: register with {IPV4}")
    if INITIAL_HEALTH in attributes and "HealthCheckCustomConfig" not in service.spec:
        raise InvalidInput(f"{INITIAL_HEALTH}: the service has no HealthCheckCustomConfig")
    dns = service.spec.get("DnsConfig")
    if dns is None:
        if ALIAS in attributes:
            raise InvalidInput(f"{ALIAS}: is for services with DNS records")
        return
    types = {record["Type"] for record in dns["DnsRecords"]}
    if ALIAS in attributes:
        if not types <= {"A", "AAAA"} or dns["RoutingPolicy"] != "WEIGHTED" or "HealthCheckConfig" in service.spec:
            raise InvalidInput(f"{ALIAS}: needs A or AAAA records, RoutingPolicy WEIGHTED and no HealthCheckConfig")
        if {IPV4, IPV6, PORT, CNAME} & attributes.keys():
            raise InvalidInput(f"{ALIAS}: goes with no address and no port; leave one of both out")
        return
    for record in sorted(types):
        for name in _NEEDED[record]:
            if name not in attributes:
                raise InvalidInput(f"{name}: the service has a DNS record of type {record}, which needs it")
    if "SRV" in types and not {IPV4, IPV6} & attributes.keys():
        raise InvalidInput(f"{IPV4}, {IPV6}: the service has a DNS record of type SRV, which needs one of them")


def initial_health(attributes: Mapping[str, str]) -> Health:
    """How a new registration is taken to be, until somebody says something else."""
    return Health(attributes.get(INITIAL_HEALTH, Health.HEALTHY))


def _check_size(attributes: Mapping[str, str]) -> None:
    custom = [name for name in attributes if not name.startswith("AWS_")]
    if len(custom) > INSTANCE_ATTRIBUTES_MAX:
        raise InvalidInput(f"Attributes: {len(custom)} custom ones; an instance has {INSTANCE_ATTRIBUTES_MAX} at most")
    chars = sum(len(name) + len(value) for name, value in attributes.items())
    if chars > INSTANCE_ATTRIBUTES_MAX_CHARS:
        raise ResourceLimitExceeded(
            f"Attributes: {chars} characters together; an instance's may have {INSTANCE_ATTRIBUTES_MAX_CHARS}"
        )


def _wrong_values(attributes: Mapping[str, str]) -> Iterator[str]:
    for name, version in ((IPV4, 4), (IPV6, 6)):
        if name in attributes and not _is_address(attributes[name], version):
            yield f"{name}: '{attributes[name][:80]}' is no IPv{version} address"
    if PORT in attributes and not _whole(attributes[PORT], 1, _PORT_MAX):
        yield f"{PORT}: '{attributes[PORT][:80]}' must be a whole number from 1 to {_PORT_MAX}"
    if INITIAL_HEALTH in attributes and attributes[INITIAL_HEALTH] not in set(Health):
        yield f"{INITIAL_HEALTH}: '{attributes[INITIAL_HEALTH][:80]}' must be HEALTHY or UNHEALTHY"
    if HEARTBEAT in attributes and not _whole(attributes[HEARTBEAT], HEARTBEAT_MIN_S, HEARTBEAT_MAX_S):
        yield f"{HEARTBEAT}: must be a whole number from {HEARTBEAT_MIN_S} to {HEARTBEAT_MAX_S}"


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def _whole(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most
