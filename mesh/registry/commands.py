"""What is asked of the registry, as values: one of a closed set of commands. See `mesh.commands`.

Ids are taken as the API gives them, or as the id in an ARN; `decide` looks them up in the state that it decides on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from mesh.commands import RaiseLevel, RecordDataKeys
from mesh.registry.state import Health, ServiceKey


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """`type`: HTTP, DNS_PRIVATE or DNS_PUBLIC. `properties`: the DNS ones as given, and the VPC's id."""

    name: str
    type: str
    description: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    creator_request_id: str = ""


@dataclass(frozen=True, slots=True)
class UpdateNamespace:
    """What is None stays. `type` must be the namespace's own."""

    id: str
    type: str
    description: str | None = None
    properties: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    id: str


@dataclass(frozen=True, slots=True)
class CreateService:
    """`spec` has Type, DnsConfig, HealthCheckConfig and HealthCheckCustomConfig, where the caller gave them."""

    namespace_id: str
    name: str
    description: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    creator_request_id: str = ""


@dataclass(frozen=True, slots=True)
class UpdateService:
    """`change` is Cloud Map's ServiceChange: what it leaves out of DNS and health checks goes."""

    id: str
    change: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteService:
    id: str


@dataclass(frozen=True, slots=True)
class ChangeServiceAttributes:
    id: str
    put: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisterInstance:
    """Make an instance, or replace it whole."""

    service_id: str
    instance_id: str
    attributes: Mapping[str, str]
    creator_request_id: str = ""


@dataclass(frozen=True, slots=True)
class DeregisterInstance:
    service_id: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class ReportHealth:
    """What somebody says of an instance, where the service has a custom health check."""

    service_id: str
    instance_id: str
    health: Health


@dataclass(frozen=True, slots=True)
class MarkHeartbeats:
    """That instances fell silent, or were heard again. For the duty alone. Those that are so already are left alone."""

    service: ServiceKey
    instances: tuple[str, ...]
    silent: bool


@dataclass(frozen=True, slots=True)
class CopyInstances:
    """What another registry says now of a service: it and its namespace are made if they are not there.

    `put` is whatever differs: (id, attributes, health); `removed` is gone there.
    """

    service: ServiceKey
    source: str
    put: tuple[tuple[str, Mapping[str, str], Health], ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TagRegistered:
    """Change the tags of the namespace or service with that ARN."""

    arn: str
    put: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


RegistryCommand = (
    CreateNamespace
    | UpdateNamespace
    | DeleteNamespace
    | CreateService
    | UpdateService
    | DeleteService
    | ChangeServiceAttributes
    | RegisterInstance
    | DeregisterInstance
    | ReportHealth
    | MarkHeartbeats
    | CopyInstances
    | TagRegistered
    | RecordDataKeys
    | RaiseLevel
)
COMMANDS: tuple[type[RegistryCommand], ...] = get_args(RegistryCommand)
