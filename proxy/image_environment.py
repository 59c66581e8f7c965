"""The environment of App Mesh's Envoy image, as settings: what is switched on there is switched on here.

Names, spellings and defaults are the image's (the agent in it, `envoy_bootstrap`, and the user guide's page on
variables). Blank is unset, as there. Files are read by whoever calls, and nothing else here touches the outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mesh.errors import SettingsError
from proxy.bootstrap import Document
from proxy.observability import LOOPBACK, PROMETHEUS_PORT, STATSD_PORT, TRACERS, XRAY_RATE, Settings
from proxy.parts import snake_keys

NODE = ("APPMESH_RESOURCE_ARN", "APPMESH_RESOURCE_NAME", "APPMESH_VIRTUAL_NODE_NAME")
CLUSTER = ("APPMESH_RESOURCE_CLUSTER", "APPMESH_VIRTUAL_NODE_CLUSTER")
SWITCHES = {
    "xray": "ENABLE_ENVOY_XRAY_TRACING",
    "datadog": "ENABLE_ENVOY_DATADOG_TRACING",
    "jaeger": "ENABLE_ENVOY_JAEGER_TRACING",
}
TRACING_FILE, STATS_FILE = "ENVOY_TRACING_CFG_FILE", "ENVOY_STATS_CONFIG_FILE"
SINKS_FILE, RESOURCES_FILE = "ENVOY_STATS_SINKS_CFG_FILE", "ENVOY_RESOURCES_CONFIG_FILE"
ELSEWHERE = {
    "ENVOY_LOG_LEVEL": "start Envoy with --log-level",
    "ENVOY_CONCURRENCY": "start Envoy with --concurrency",
    "ENVOY_ADMIN_MODE": "the admin port is on loopback",
    "ENVOY_ADMIN_ACCESS_ENABLE_IPV6": "the admin port is on loopback",
    "APPMESH_METRIC_EXTENSION_VERSION": "the extension is in AWS's image alone",
    "APPMESH_SET_TRACING_DECISION": "today's Envoys have no such switch",
}
"""Variables that say something a bootstrap cannot, and where it is said."""

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"


def node_id(environment: Mapping[str, str]) -> str | None:
    """The resource that the Envoy stands for."""
    return _first(environment, NODE)


def unused(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is set, and that no bootstrap can follow."""
    return [f"{name} is not in a bootstrap: {why}" for name, why in ELSEWHERE.items() if _get(environment, name)]


def read(environment: Mapping[str, str], flags: Settings, load: Callable[[str], str]) -> Settings:
    """`flags`, and where they say nothing, the environment. `load` reads a file that a variable names.

    SettingsError names the variable whose value cannot be.
    """
    files = _files(environment, flags, load)
    said = Settings(
        admin_port=_integer(environment, "ENVOY_ADMIN_ACCESS_PORT"),
        admin_log=_get(environment, "ENVOY_ADMIN_ACCESS_LOG_FILE"),
        cluster=_first(environment, CLUSTER),
        dogstatsd=_dogstatsd(environment),
        prometheus=_prometheus(environment),
        stats_tags=_switch(environment, "ENABLE_ENVOY_STATS_TAGS"),
        flush_interval_s=_duration(environment, "ENVOY_STATS_FLUSH_INTERVAL"),
        sds_socket=_get(environment, "APPMESH_SDS_SOCKET_PATH"),
        outlier_log=_get(environment, "ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH"),
        fetch_timeout_s=_integer(environment, "ENVOY_INITIAL_FETCH_TIMEOUT"),
        files=tuple(files.values()),
        **_tracing(environment, flags),
    )
    _once("tracing", files, flags.tracing or said.tracing)
    _once("stats_config", files, None if flags.stats_tags is None else "--stats-tags")
    return flags.over(said)


def _tracing(environment: Mapping[str, str], flags: Settings) -> dict[str, Any]:
    """The one tracer that is switched on, or the one chosen by a flag, with what is said of it."""
    chosen = flags.tracing
    if chosen is None:
        if _get(environment, TRACING_FILE) is not None:
            return {}
        on = [kind for kind, name in SWITCHES.items() if _switch(environment, name)]
        if len(on) > 1:
            names = " and ".join(SWITCHES[kind] for kind in on)
            raise SettingsError(f"{names} are both on, and an Envoy traces in one way: switch all but one off")
        chosen = on[0] if on else None
    if chosen == "xray":
        return {
            "tracing": chosen,
            "tracing_address": _xray_daemon(environment),
            "tracing_rate": _xray_rate(environment),
            # Rules come before a rate, but not before one that a flag gives.
            "tracing_rules": _get(environment, "XRAY_SAMPLING_RULE_MANIFEST") if flags.tracing_rate is None else None,
            "tracing_service": _get(environment, "XRAY_SEGMENT_NAME"),
        }
    if chosen == "datadog":
        address = _address(environment, "DATADOG_TRACER_ADDRESS", "DATADOG_TRACER_PORT", TRACERS[chosen])
        return {
            "tracing": chosen,
            "tracing_address": address,
            "tracing_service": _get(environment, "DD_SERVICE"),
        }
    if chosen in ("jaeger", "zipkin"):
        form = "json" if "json" in (_get(environment, "JAEGER_TRACER_VERSION") or "").lower() else "proto"
        address = _address(environment, "JAEGER_TRACER_ADDRESS", "JAEGER_TRACER_PORT", TRACERS["jaeger"])
        return {"tracing": chosen, "tracing_address": address, "tracing_format": form}
    return {"tracing": chosen}


def _xray_daemon(environment: Mapping[str, str]) -> str:
    """`HOST:PORT`, and of `tcp:HOST:PORT udp:HOST:PORT` the second: segments go over UDP."""
    port = _integer(environment, "XRAY_DAEMON_PORT") or TRACERS["xray"]
    text = _get(environment, "AWS_XRAY_DAEMON_ADDRESS") or LOOPBACK
    for word in text.split():
        if word.startswith("udp:"):
            text = word.removeprefix("udp:")
    return text if ":" in text else f"{text}:{port}"


def _xray_rate(environment: Mapping[str, str]) -> float | None:
    text = _get(environment, "XRAY_SAMPLING_RATE")
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise SettingsError(f"XRAY_SAMPLING_RATE '{text}' is not a number from 0 to 1")
    # To two places, as in the image; its default needs no rule.
    return None if round(rate, 2) == XRAY_RATE else round(rate, 2)


def _dogstatsd(environment: Mapping[str, str]) -> str | None:
    # A file of sinks stands in the place of this one.
    if not _switch(environment, "ENABLE_ENVOY_DOG_STATSD") or _get(environment, SINKS_FILE) is not None:
        return None
    path = _get(environment, "STATSD_SOCKET_PATH")
    return f"unix:{path}" if path else _address(environment, "STATSD_ADDRESS", "STATSD_PORT", STATSD_PORT)


def _prometheus(environment: Mapping[str, str]) -> str | None:
    """The agent's own port, if it was on: of all that it served, `/stats/prometheus`."""
    if (_get(environment, "APPNET_AGENT_ADMIN_MODE") or "").lower() != "tcp":
        return None
    port = _integer(environment, "APPNET_AGENT_HTTP_PORT") or PROMETHEUS_PORT
    host = _get(environment, "APPNET_AGENT_HTTP_BIND_ADDRESS")
    return str(port) if host is None else _joined(host.strip("[]"), port)


def _files(environment: Mapping[str, str], flags: Settings, load: Callable[[str], str]) -> dict[str, Document]:
    """What the files say that variables name, by variable; without those whose subject a flag has settled."""
    settled = {TRACING_FILE: flags.tracing is not None, STATS_FILE: flags.stats_tags is not None}
    paths = {
        name: path
        for name in (TRACING_FILE, STATS_FILE, SINKS_FILE, RESOURCES_FILE)
        if (path := _get(environment, name)) is not None and not settled.get(name)
    }
    found = {name: _part(name, path, load) for name, path in paths.items()}
    if SINKS_FILE in found and "stats_sinks" not in found[SINKS_FILE]:
        raise SettingsError(f"{SINKS_FILE}: '{paths[SINKS_FILE]}' has no stats_sinks")
    return found


def _once(subject: str, files: Mapping[str, Document], beside: str | None) -> None:
    """An Envoy traces in one way, and a tag has one meaning: two of either are not merged."""
    sources = [name for name, part in files.items() if subject in part] + [beside] * (beside is not None)
    if files and len(sources) > 1:
        raise SettingsError(f"{subject} is set up more than once, by {' and '.join(map(str, sources))}: keep one")


def _part(name: str, path: str, load: Callable[[str], str]) -> Document:
    import yaml  # noqa: PLC0415  (30 ms that only this needs)

    try:
        part = yaml.safe_load(load(path))
    except OSError as error:
        raise SettingsError(f"{name}: '{path}' cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: '{path}' is not YAML") from error
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise SettingsError(
            f"{name}: '{path}' is not a part of a bootstrap: it has to be a map with names such as tracing"
        )
    return snake_keys(part)


def _get(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name, "").strip() or None


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := _get(environment, name)) is not None), None)


def _integer(environment: Mapping[str, str], name: str) -> int | None:
    text = _get(environment, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise SettingsError(f"{name} '{text}' is not a whole number from 0 to 65535")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool | None:
    text = _get(environment, name)
    if text is None:
        return None
    if text not in (*_TRUE, *_FALSE):
        raise SettingsError(f"{name} '{text}' is neither on nor off: write 1 or 0")
    return text in _TRUE


def _duration(environment: Mapping[str, str], name: str) -> float | None:
    """Go's notation of a time, such as 5000ms or 1m30s, in seconds."""
    text = _get(environment, name)
    if text is None:
        return None
    if not re.fullmatch(f"(?:{_TERM})+", text):
        raise SettingsError(f"{name} '{text}' is not a time: write for example 5000ms or 5s")
    return sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(_TERM, text))


def _address(environment: Mapping[str, str], host: str, port: str, usual_port: int) -> str:
    return _joined(_get(environment, host) or LOOPBACK, _integer(environment, port) or usual_port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
