"""`meshlog registry`: who is registered in which service, how he is, who put him there; register and deregister.

A service is named NAMESPACE/SERVICE. What is changed goes through the Cloud Map API, as any SDK's call does.
"""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Mapping
from typing import Any

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, note, output_option, print_data
from mesh.errors import BadRequest, NotFound, SettingsError
from runtime.clock import SystemEntropy

_SERVICES, _EVENTS, _BEATS = (f"/meshlog/v1/registry/{name}" for name in ("services", "events", "heartbeats"))
_LIST = {
    "namespace": "NAMESPACE", "service": "SERVICE", "count": "INSTANCES", "healthy": "HEALTHY", "silent": "SILENT",
    "source": "COPIED FROM", "id": "ID",
}  # fmt: skip
_INSTANCES = {
    "id": "INSTANCE", "address": "ADDRESS", "port": "PORT", "zone": "ZONE", "health": "HEALTH", "heard": "HEARD",
    "registered": "REGISTERED", "registered_by": "BY",
}  # fmt: skip
_LOG = {"position": "POSITION", "time": "TIME", "type": "TYPE", "what": "WHAT", "actor": "ACTOR"}
_BEAT_PART = 3
"""How many heartbeats are sent in the time that is owed for one."""


@click.group()
def registry() -> None:
    """Show and change what is registered: services that virtual nodes find by awsCloudMap, and their instances."""


@registry.command("list")
@click.argument("namespace", required=False)
@data_dir_option
@endpoint_options
@output_option()
def list_(layout: Layout, *, endpoint: str | None, namespace: str | None, output: str) -> None:
    """List services, of NAMESPACE alone or of all."""
    query = {"namespace": namespace} if namespace else {}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        document = client.get(_SERVICES, query)
    found = document["services"]
    print_data(document, output, lambda: columns([_row(each) for each in found], _LIST), lambda: _names(found))


@registry.command()
@click.argument("service", metavar="NAMESPACE/SERVICE")
@data_dir_option
@endpoint_options
@output_option()
def describe(layout: Layout, *, endpoint: str | None, service: str, output: str) -> None:
    """Show the instances of a service: where they are, how they are, when they were heard, and who registered them."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        found = _service(client, service)
    rows = [_instance_row(each) for each in found["instances"]]
    print_data(found, output, lambda: columns(rows, _INSTANCES), lambda: [each["id"] for each in found["instances"]])


@registry.command()
@click.argument("service", metavar="NAMESPACE/SERVICE")
@click.argument("instance")
@click.option("--ip", help="AWS_INSTANCE_IPV4 or AWS_INSTANCE_IPV6.")
@click.option("--port", type=click.IntRange(1, 65_535), help="AWS_INSTANCE_PORT.")
@click.option("--zone", help="AVAILABILITY_ZONE.")
@click.option("--heartbeat", type=click.IntRange(5, 3_600), metavar="S", help="It owes a heartbeat within S seconds.")
@click.option("--attribute", "-a", "attributes", multiple=True, metavar="KEY=VALUE", help="Any other.  Repeatable.")
@click.option("--create", is_flag=True, help="Make the service, and an HTTP namespace, where they are missing.")
@data_dir_option
@endpoint_options
@output_option()
def register(
    layout: Layout,
    *,
    endpoint: str | None,
    service: str,
    instance: str,
    ip: str | None,
    port: int | None,
    zone: str | None,
    heartbeat: int | None,
    attributes: tuple[str, ...],
    create: bool,
    output: str,
) -> None:
    """Register INSTANCE in a service, or replace all that is registered of it."""
    told = _attributes(attributes)
    if ip is not None:
        told["AWS_INSTANCE_IPV6" if ":" in ip else "AWS_INSTANCE_IPV4"] = ip
    given = {"AWS_INSTANCE_PORT": port, "AVAILABILITY_ZONE": zone, "MESHLOG_HEARTBEAT_S": heartbeat}
    told |= {name: str(value) for name, value in given.items() if value is not None}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        if create:
            _create(client, service)
        members = {"ServiceId": _service(client, service)["id"], "InstanceId": instance, "Attributes": told}
        client.cloud_map("RegisterInstance", {**members, "CreatorRequestId": SystemEntropy().uuid()}, repeatable=True)
        _show(client, service, instance, output)


@registry.command()
@click.argument("service", metavar="NAMESPACE/SERVICE")
@click.argument("instance")
@data_dir_option
@endpoint_options
def deregister(layout: Layout, *, endpoint: str | None, service: str, instance: str) -> None:
    """Take INSTANCE out of a service."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        members = {"ServiceId": _service(client, service)["id"], "InstanceId": instance}
        client.cloud_map("DeregisterInstance", members)
    note(f"{instance} is not registered in {service} any more")


@registry.command()
@click.argument("service", metavar="NAMESPACE/SERVICE")
@click.argument("instance")
@click.argument("status", type=click.Choice(("healthy", "unhealthy"), case_sensitive=False))
@data_dir_option
@endpoint_options
@output_option()
def health(layout: Layout, *, endpoint: str | None, service: str, instance: str, status: str, output: str) -> None:
    """Say how INSTANCE is, in a service that has a custom health check."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        members = {"ServiceId": _service(client, service)["id"], "InstanceId": instance, "Status": status.upper()}
        client.cloud_map("UpdateInstanceCustomHealthStatus", members, repeatable=True)
        _show(client, service, instance, output)


@registry.command()
@click.argument("service", metavar="NAMESPACE/SERVICE")
@click.argument("instances", nargs=-1, required=True, metavar="INSTANCE...")
@click.option("--keep-on", is_flag=True, help="Go on until interrupted, three times as often as is owed.")
@data_dir_option
@endpoint_options
def heartbeat(layout: Layout, *, endpoint: str | None, service: str, instances: tuple[str, ...], keep_on: bool) -> None:
    """Say that instances are alive, which are registered with a heartbeat."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        while True:
            told = client.post(_BEATS, {"service": service, "instances": list(instances)}, repeatable=True)
            lasting_s = min(told["lasting_s"].values())
            if not keep_on:
                note(f"heard: {', '.join(instances)}; owed again within {lasting_s} s")
                return
            threading.Event().wait(lasting_s / _BEAT_PART)


@registry.command()
@click.argument("service", metavar="[NAMESPACE[/SERVICE]]", required=False)
@click.option("--instance", help="Only what happened to this instance.")
@click.option("--after", metavar="POSITION", help="Only what came after this position of the registry's log.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="The last so many.")
@data_dir_option
@endpoint_options
@output_option("table", "json", "yaml")
def log(
    layout: Layout,
    *,
    endpoint: str | None,
    service: str | None,
    instance: str | None,
    after: str | None,
    limit: int,
    output: str,
) -> None:
    """Show who registered, deregistered or marked what, and when."""
    namespace, _, name = (service or "").partition("/")
    given = {"namespace": namespace, "service": name, "instance": instance, "after": after}
    query = {key: value for key, value in given.items() if value} | {"limit": str(limit)}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        document = client.get(_EVENTS, query)
    rows = [_log_row(each) for each in document["events"]]
    print_data(document, output, lambda: columns(rows, _LOG), list)


# --- inside


def _service(client: ApiClient, named: str) -> dict[str, Any]:
    namespace, slash, name = named.rpartition("/")
    if not (slash and namespace and name):
        raise SettingsError(f"'{named}' is no service: write NAMESPACE/SERVICE")
    found: list[dict[str, Any]] = client.get(_SERVICES, {"namespace": namespace, "service": name})["services"]
    if not found:
        raise NotFound(f"there is no service {name} in namespace {namespace}: see `meshlog registry list`")
    return found[0]


def _create(client: ApiClient, named: str) -> None:
    namespace, _, name = named.rpartition("/")
    query = {"Filters": [{"Name": "NAME", "Values": [namespace]}]}
    found = client.cloud_map("ListNamespaces", query, repeatable=True)["Namespaces"]
    if not found:
        client.cloud_map("CreateHttpNamespace", {"Name": namespace})
        found = client.cloud_map("ListNamespaces", query, repeatable=True)["Namespaces"]
    try:
        client.cloud_map("CreateService", {"Name": name, "NamespaceId": found[0]["Id"]})
    except BadRequest as error:
        if "There is a service" not in error.message:
            raise


def _show(client: ApiClient, service: str, instance: str, output: str) -> None:
    found = [each for each in _service(client, service)["instances"] if each["id"] == instance]
    rows = [_instance_row(each) for each in found]
    print_data(found[0] if found else {}, output, lambda: columns(rows, _INSTANCES), lambda: [instance])


def _attributes(given: tuple[str, ...]) -> dict[str, str]:
    told = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise SettingsError(f"--attribute {each}: write KEY=VALUE")
        told[key] = value
    return told


def _names(found: list[dict[str, Any]]) -> list[str]:
    return [f"{each['namespace']}/{each['service']}" for each in found]


def _row(service: Mapping[str, Any]) -> dict[str, Any]:
    instances = service["instances"]
    counts = {
        "count": len(instances),
        "healthy": sum(each["health"] != "UNHEALTHY" for each in instances),
        "silent": sum(each["silent"] for each in instances),
    }
    return {**service, **counts}


def _instance_row(instance: Mapping[str, Any]) -> dict[str, Any]:
    heard = "silent" if instance["silent"] else _time(instance["heard_us"])
    registered = {"registered": _time(instance["registered_us"])}
    return {**instance, **registered, "heard": heard if instance["heartbeat_s"] else None}


def _log_row(event: Mapping[str, Any]) -> dict[str, Any]:
    data = event["data"]
    names = data.get("service") or data.get("namespace") or data.get("of") or []
    ids = [data["instance"]] if "instance" in data else data.get("instances", [])
    copied = [f"+{put[0]}" for put in data.get("put", [])] + [f"-{each}" for each in data.get("removed", [])]
    what = " ".join(["/".join(names[1:]), *ids, *copied, *([data["health"]] if "health" in data else [])])
    return {**event, "time": _time(event["time_us"]), "what": what}


def _time(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
