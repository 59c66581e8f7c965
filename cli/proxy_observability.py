"""Options of `meshlog proxy bootstrap` that say what an Envoy tells of itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import rich_click as click

from cli.output import note
from proxy import image_environment
from proxy.bootstrap import ADMIN_PORT
from proxy.observability import LOOPBACK, OFF, PROMETHEUS_PORT, STATSD_PORT, TRACERS, Settings

_STATSD = f"{LOOPBACK}:{STATSD_PORT}"

_OPTIONS = (
    click.option("--from-env", is_flag=True, help="Read the variables of App Mesh's Envoy image. Flags come first."),
    click.option(
        "--admin-port", type=click.IntRange(0, 65535), help=f"Its admin port, on loopback.  [default: {ADMIN_PORT}]"
    ),
    click.option(
        "--prometheus", is_flag=False, flag_value=str(PROMETHEUS_PORT), metavar="[HOST:]PORT",
        help=f"Serve /stats/prometheus, and nothing else of the admin port.  [if no port is given: {PROMETHEUS_PORT}]",
    ),
    click.option(
        "--statsd", is_flag=False, flag_value=_STATSD, metavar="IP:PORT",
        help=f"Send statistics as StatsD, without tags.  [if no address is given: {_STATSD}]",
    ),
    click.option(
        "--dogstatsd", is_flag=False, flag_value=_STATSD, metavar="IP:PORT|unix:/PATH",
        help=f"Send statistics as DogStatsD, with tags.  [if no address is given: {_STATSD}]",
    ),
    click.option(
        "--stats-tags/--no-stats-tags", default=None,
        help="Tag statistics with appmesh.mesh and appmesh.virtual_node or appmesh.virtual_gateway.",
    ),
    click.option("--stats-flush-interval", type=float, metavar="SECONDS", help="How often.  [Envoy's default: 5]"),
    click.option("--tracing", type=click.Choice([*TRACERS, OFF]), help="Where traces go, at most one."),
    click.option(
        "--tracing-address", metavar="HOST[:PORT]",
        help=f"Its collector.  [default: {LOOPBACK} and the collector's usual port]",
    ),
    click.option(
        "--tracing-rate", type=float, metavar="SHARE", help="Requests traced, 0 to 1.  [default: 1; X-Ray: 0.05]"
    ),
    click.option("--tracing-rules", metavar="/PATH", help="X-Ray: sampling rules, a file where the Envoy runs."),
    click.option("--tracing-format", type=click.Choice(["proto", "json"]), help="Zipkin, Jaeger.  [default: proto]"),
    click.option("--tracing-service", metavar="NAME", help="The name in traces.  [default: <mesh>/<name>]"),
    click.option("--service-cluster", metavar="NAME", help="The same for Zipkin and Jaeger.  [default: the node's id]"),
    click.option("--sds-socket", metavar="/PATH", help="Where certificates come from that specs name by SDS."),
)  # fmt: skip


def observability_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options, given to the command as `observability` (Settings), and `node`, which --from-env may know."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        names = (
            "admin_port", "prometheus", "statsd", "dogstatsd", "stats_tags", "tracing", "tracing_address",
            "tracing_rate", "tracing_rules", "tracing_format", "tracing_service", "sds_socket",
        )  # fmt: skip
        flags = Settings(
            cluster=given.pop("service_cluster"),
            flush_interval_s=given.pop("stats_flush_interval"),
            **{name: given.pop(name) for name in names},
        )
        if given.pop("from_env"):
            given["node"] = given["node"] or image_environment.node_id(os.environ)
            flags = image_environment.read(os.environ, flags, lambda path: Path(path).read_text(encoding="utf-8"))
            for sentence in image_environment.unused(os.environ):
                note(sentence)
        return function(*args, observability=flags, **given)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
