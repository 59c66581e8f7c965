"""The registry beside the Cloud Map API: heartbeats, who is registered by whom and how he is, and what happened.

POST registry/heartbeats    {service, instances: [id]} → {service, instances, lasting_s}
GET  registry/services      ?namespace=&service= → {services: [{namespace, service, id, source, revision, instances}]}
GET  registry/events        ?namespace=&service=&instance=&after=&limit= → {events, head}

`service` of a heartbeat is an id, an ARN or namespace/name. Whoever may register instances may keep them alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from api.authorization import Target
from api.calls import Answer, Call
from api.ports import ApiPorts, RegistryPorts
from api.requests import Fields, in_time, nothing, read_body, read_query, route, router_of
from api.routes import Router
from identity.caller import Caller
from identity.sigv4 import CLOUD_MAP
from mesh.errors import BadRequest, NotReady
from mesh.events import Event
from mesh.position import Position
from mesh.registry.documents import health_status, revision
from mesh.registry.errors import InstanceNotFound
from mesh.registry.lookup import service_of
from mesh.registry.names import SERVICE, arn, id_of
from mesh.registry.queries import named_service
from mesh.registry.rules import HEARTBEAT, IPV4, IPV6, PORT, heartbeat_s
from mesh.registry.state import Instance, RegistryState, Service, ServiceKey
from runtime.limits import EVENTS_PAGE_MAX, HEARTBEATS_AT_ONCE, REGISTRY_EVENTS_LOOKED

_BEAT_FIELDS: Fields = {"service": (str, True), "instances": (list, True)}
_LIMIT = 100


class RegistryApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, registry: RegistryPorts) -> None:
        self._ports, self._registry = ports, registry

    def router(self) -> Router:
        """Its routes. A heartbeat is the registration said again, so it needs the same right."""
        window = read_query("namespace", "service", "instance", "after", "limit")
        listed = read_query("namespace", "service")
        beat = f"{CLOUD_MAP}:RegisterInstance"
        return router_of(
            [
                route("POST registry/heartbeats", beat, read_body(_BEAT_FIELDS), self._of_service, self._beat),
                route("GET registry/services", "ListRegistered", listed, nothing, self._services),
                route("GET registry/events", "ListRegistryEvents", window, nothing, self._events),
            ]
        )

    async def _state(self) -> RegistryState:
        await self._registry.replica.confirmed(self._ports.read_deadline_s)
        return self._registry.replica.state

    def _answer(self, document: Mapping[str, Any]) -> Answer:
        return Answer(document, self._ports.replica.state.position)

    def _of_service(self, caller: Caller, members: Mapping[str, Any]) -> list[Target]:
        state, named = self._registry.replica.state, members["service"]
        namespace, slash, name = named.rpartition("/")
        found = state.services.get(ServiceKey(caller.account, namespace, name)) if slash else None
        service_id = found.id if found is not None else id_of(named)
        return [Target(arn(self._ports.region, caller.account, SERVICE, service_id))]

    async def _beat(self, call: Call) -> Answer:
        if self._registry.heartbeats is None:
            raise NotReady("This server keeps no heartbeats")
        named, instances = call.members["service"], call.members["instances"]
        if len(instances) > HEARTBEATS_AT_ONCE:
            raise BadRequest(f"instances: {len(instances)} are more than the {HEARTBEATS_AT_ONCE} of one call")
        state, account = await self._state(), call.caller.account
        namespace, slash, name = named.rpartition("/")
        if slash and not named.startswith("arn:"):
            service = named_service(state, account, {"NamespaceName": namespace, "ServiceName": name})
        else:
            service = service_of(state, account, named)
        lasting = {each: _owed(state, service, each) for each in instances}
        await self._registry.heartbeats.beat({(*service.key, each): owed for each, owed in lasting.items()})
        return self._answer({"service": service.id, "instances": instances, "lasting_s": lasting})

    async def _services(self, call: Call) -> Answer:
        state, account, members = await self._state(), call.caller.account, call.members
        beats = await self._registry.heartbeats.kept() if self._registry.heartbeats is not None else {}
        found = [
            _service_document(state, state.services[key], beats)
            for key in sorted(state.services)
            if key.account == account and _wanted(key, members)
        ]
        return self._answer({"services": found})

    async def _events(self, call: Call) -> Answer:
        state, history, limit = await self._state(), self._registry.history, _whole(call.members, "limit", _LIMIT)
        if history is None:
            raise NotReady("This server has no history of the registry")
        if not 1 <= limit <= EVENTS_PAGE_MAX:
            raise BadRequest(f"limit: must be a number from 1 to {EVENTS_PAGE_MAX}")
        after = max(_whole(call.members, "after", 0), state.position.position - REGISTRY_EVENTS_LOOKED)
        begins = await in_time(self._ports, history.begins())
        first = state.at(max(after, begins.position))
        found = await in_time(self._ports, self._read(call, first, state.position))
        return self._answer({"events": found[-limit:], "head": str(state.position)})

    async def _read(self, call: Call, after: Position, upto: Position) -> list[dict[str, Any]]:
        assert self._registry.history is not None  # noqa: S101 - asked before
        found: list[dict[str, Any]] = []
        async for batch in self._registry.history.read(after, upto):
            found += [_event_document(event) for event in batch if _is_wanted(event, call)]
            await asyncio.sleep(0)
        return found


def _owed(state: RegistryState, service: Service, instance_id: str) -> int:
    instance = state.instance(service.key, instance_id)
    if instance is None:
        raise InstanceNotFound(f"Service {service.key.service} ({service.id}) has no instance {instance_id[:80]}")
    owed = heartbeat_s(instance)
    if owed is None:
        raise BadRequest(
            f"instances: {instance_id[:80]} owes no heartbeats: register it with the attribute {HEARTBEAT}"
        )
    return owed


def _wanted(key: ServiceKey, members: Mapping[str, str]) -> bool:
    return (
        members.get("namespace", key.namespace) == key.namespace and members.get("service", key.service) == key.service
    )


def _is_wanted(event: Event, call: Call) -> bool:
    data = event.data or {}
    names = data.get("service") or data.get("namespace") or data.get("of") or (call.caller.account,)
    if names[0] != call.caller.account:
        return False
    members, of = call.members, dict(zip(("account", "namespace", "service"), names, strict=False))
    if any(name in members and members[name] != of.get(name) for name in ("namespace", "service")):
        return False
    ids = [data.get("instance"), *data.get("instances", ()), *(put[0] for put in data.get("put", ()))]
    return "instance" not in members or members["instance"] in [*ids, *data.get("removed", ())]


def _event_document(event: Event) -> dict[str, Any]:
    return {
        "position": str(event.position),
        "time_us": event.time_us,
        "type": event.type,
        "actor": event.actor,
        "source_ip": event.source_ip,
        "request_id": event.request_id,
        "data": event.data,
    }


def _service_document(state: RegistryState, service: Service, beats: Mapping[tuple[str, ...], int]) -> dict[str, Any]:
    return {
        "namespace": service.key.namespace,
        "service": service.key.service,
        "id": service.id,
        "source": service.source or None,
        "revision": revision(state, service),
        "instances": [
            _instance_document(service, each, beats.get((*service.key, each.id)))
            for each in state.discovered(service.key)
        ],
    }


def _instance_document(service: Service, instance: Instance, heard_us: int | None) -> dict[str, Any]:
    attributes = instance.attributes
    return {
        "id": instance.id,
        "address": attributes.get(IPV4) or attributes.get(IPV6),
        "port": attributes.get(PORT),
        "zone": attributes.get("AVAILABILITY_ZONE"),
        "health": health_status(service, instance),
        "silent": instance.silent,
        "heartbeat_s": heartbeat_s(instance),
        "heard_us": heard_us,
        "registered_us": instance.registered_us,
        "registered_by": instance.registered_by,
        "health_us": instance.health_us,
        "attributes": dict(attributes),
    }


def _whole(members: Mapping[str, Any], name: str, default: int) -> int:
    text = str(members.get(name, default)).rpartition(".")[2]
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequest(f"{name}: '{text[:80]}' must be a whole number")
    return int(text)
