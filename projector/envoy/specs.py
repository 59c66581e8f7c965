"""Small readings of App Mesh specs that several stages share. Specs were validated on their way into the state."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from mesh.log_formats import fault
from mesh.state import Resource
from projector.envoy import names
from projector.envoy.defaults import MAX_DURATION_MS, REQUEST_TIMEOUT_MS
from projector.envoy.plans import AccessLogPlan, Family, ListenerPlan
from projector.envoy.view import Spec, View

HTTP_PROTOCOLS = ("http", "http2", "grpc")
HTTP2_PROTOCOLS = ("http2", "grpc")
TCP = "tcp"

_V6_APP = ("IPv6_PREFERRED", "IPv6_ONLY")
_FAMILIES = {
    None: Family.AUTO,
    "IPv6_PREFERRED": Family.AUTO,
    "IPv4_PREFERRED": Family.V4_PREFERRED,
    "IPv4_ONLY": Family.V4_ONLY,
    "IPv6_ONLY": Family.V6_ONLY,
}


class Port(NamedTuple):
    """One listener of a node, router or gateway."""

    number: int
    protocol: str


class Timeouts(NamedTuple):
    """Milliseconds; 0 is no limit. `idle_ms` None leaves Envoy's default, which is App Mesh's (300 s)."""

    request_ms: int
    idle_ms: int | None


def ports(listeners: Iterable[Spec] | None) -> tuple[Port, ...]:
    """What a resource listens on, in its order, the first of each port number."""
    found: dict[int, Port] = {}
    for listener in listeners or ():
        mapping = listener["portMapping"]
        found.setdefault(mapping["port"], Port(mapping["port"], mapping["protocol"]))
    return tuple(found.values())


def duration_ms(duration: Spec | None) -> int | None:
    """A Duration in milliseconds, cut to a year; None where there is none. Without a unit it is milliseconds."""
    if not duration or "value" not in duration:
        return None
    factor = 1_000 if duration.get("unit") == "s" else 1
    return min(int(duration["value"]) * factor, MAX_DURATION_MS)


def http_timeouts(timeout: Spec | None) -> Timeouts:
    """`{perRequest, idle}` with App Mesh's default of 15 s for the request."""
    timeout = timeout or {}
    request_ms = duration_ms(timeout.get("perRequest"))
    return Timeouts(REQUEST_TIMEOUT_MS if request_ms is None else request_ms, duration_ms(timeout.get("idle")))


def listener_timeouts(listener: Spec) -> Timeouts:
    """A virtual node listener's `timeout`, whose one member names the protocol."""
    members = listener.get("timeout") or {}
    return http_timeouts(next((members[protocol] for protocol in HTTP_PROTOCOLS if protocol in members), None))


def tcp_idle_ms(listener: Spec) -> int | None:
    """How long a TCP listener's connections may be silent, in milliseconds; None leaves Envoy's default (an hour)."""
    return duration_ms(((listener.get("timeout") or {}).get(TCP) or {}).get("idle"))


def longest(timeouts_ms: Iterable[int]) -> int:
    """The longest of some timeouts, where 0 is no limit."""
    found = list(timeouts_ms)
    return 0 if 0 in found else max(found)


def ip_preference(mesh_spec: Spec, node_spec: Spec | None = None) -> str | None:
    """The node's own ipPreference, else the mesh's, else None."""
    discovery = (node_spec or {}).get("serviceDiscovery") or {}
    for member in ("dns", "awsCloudMap"):
        own = (discovery.get(member) or {}).get("ipPreference")
        if own:
            return str(own)
    inherited = (mesh_spec.get("serviceDiscovery") or {}).get("ipPreference")
    return str(inherited) if inherited else None


def dns_family(preference: str | None) -> Family:
    """Unset prefers v6, then v4 (the user guide; Envoy's AUTO does the same)."""
    return _FAMILIES[preference]


def app_address(preference: str | None) -> str:
    """Where the application beside a sidecar listens."""
    return "::1" if preference in _V6_APP else "127.0.0.1"


def over_families(listeners: Iterable[ListenerPlan], preference: str | None) -> tuple[ListenerPlan, ...]:
    """Listeners for IPv4, and beside them the same for IPv6 where an ipPreference is set, whichever it is.

    Two listeners and not one of two addresses: Envoy refuses to give a running listener another address.
    """
    plans = tuple(listeners)
    if preference is None:
        return plans
    return plans + tuple(
        plan._replace(name=names.listener(names.INGRESS if plan.inbound else names.EGRESS, plan.port, v6=True), v6=True)
        for plan in plans
    )


def dns_name(hostname: str) -> str:
    """Absolute, with a trailing dot, as App Mesh made it; only where that can resolve: several labels, no address."""
    if hostname.endswith(".") or "." not in hostname or is_address(hostname):
        return hostname
    return hostname + "."


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def header_safe(text: str) -> bool:
    """Envoy refuses a whole route configuration for one value that cannot stand in a header."""
    return bool(text) and "\0" not in text and "\r" not in text and "\n" not in text


def access_log(view: View, proxied: Resource) -> AccessLogPlan | None:
    """Where the proxy writes its access log, and how. A format that Envoy would refuse is left out, with an alarm."""
    file = ((proxied.spec.get("logging") or {}).get("accessLog") or {}).get("file") or {}
    if not file.get("path"):
        return None
    given = file.get("format") or {}
    text, members = given.get("text"), tuple((each["key"], each["value"]) for each in given.get("json") or ())
    reason = next(filter(None, map(fault, [text or "", *(value for _, value in members)])), "")
    if reason:
        view.alarm(proxied, "spec.logging.accessLog.file.format", f"{reason}: Envoy's default is written")
        return AccessLogPlan(file["path"])
    return AccessLogPlan(file["path"], text, members)
