"""Kubernetes objects as the App Mesh controller sees them: their names, and which mesh they belong to. Pure.

The rules are those of the controller's admission webhooks and membership designators. Where they need a cluster, the
files stand in for it: a Namespace's labels are those of its document, and where there is none, a mesh (or gateway) that
is the only one in the files is taken; of gateways, where none is in the files, the only one that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.document import Reading
from manifests.text import Located
from mesh.kinds import GATEWAY_ROUTE, MESH, VIRTUAL_GATEWAY, VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE

GROUP = "appmesh.k8s.aws"
VERSION = f"{GROUP}/v1beta2"
BACKEND_GROUP = "BackendGroup"
KIND_NAMES: Mapping[str, str] = {
    kind.title: kind.name
    for kind in (MESH, VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE, VIRTUAL_GATEWAY, GATEWAY_ROUTE)
}
"""Kind in a manifest to kind of the API. Routes are no objects: they stand in their router."""

UNKNOWN = "?"
"""The gateway of a gateway route before anybody has looked what is there: only its mesh is known."""

_GATEWAY = VIRTUAL_GATEWAY.name
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


class NoMembership(ValueError):  # noqa: N818 - what it says, not that something broke
    """No mesh, or gateway, or more than one, for an object; the message says what to do."""


@dataclass(frozen=True, slots=True)
class KubernetesObject:
    """One object. `namespace` is '' for a mesh. `source` is `file:line`."""

    kind: str
    namespace: str
    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    source: str

    @property
    def title(self) -> str:
        """`VirtualNode ns/name`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def app_mesh_name(self) -> str:
        given = self.spec.get("awsName")
        return given if isinstance(given, str) and given else default_name(self.kind, self.namespace, self.name)


def default_name(kind: str, namespace: str, name: str) -> str:
    """The name that the controller gives where `awsName` is not set."""
    if kind == MESH.title:
        return name
    return f"{name}.{namespace}" if kind == VIRTUAL_SERVICE.title else f"{name}_{namespace}"


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """A label selector, by Kubernetes' rules: absent selects nothing, empty selects everything."""
    if not isinstance(selector, Mapping):
        return False
    wanted, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or ()
    if not isinstance(wanted, Mapping) or any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_fulfils(expression, labels) for expression in expressions if isinstance(expressions, list))


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; what else is there is the validator's to tell."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _fulfils(expression: Any, labels: Mapping[str, str]) -> bool:
    if not isinstance(expression, Mapping):
        return False
    key, values = str(expression.get("key")), expression.get("values")
    values = values if isinstance(values, list) else []
    tests: Mapping[str, Callable[[], bool]] = {
        "In": lambda: labels.get(key) in values,
        "NotIn": lambda: labels.get(key) not in values,  # a missing label is not in any list
        "Exists": lambda: key in labels,
        "DoesNotExist": lambda: key not in labels,
    }
    test = tests.get(str(expression.get("operator")))
    return test is not None and test()


@dataclass(frozen=True, slots=True)
class Place:
    """A mesh: its App Mesh name, and its owner's account where that is not the caller's."""

    mesh: str
    account: str | None


class Membership:
    """Which mesh an object belongs to, and which gateway a gateway route.

    `namespaces`: labels of those that are in the files. What is in no file is what `reading` says.
    """

    def __init__(
        self, objects: Iterable[KubernetesObject], namespaces: Mapping[str, Mapping[str, str]], reading: Reading
    ) -> None:
        every = list(objects)
        self._meshes = [each for each in every if each.kind == MESH.title]
        self._gateways = [each for each in every if each.kind == VIRTUAL_GATEWAY.title]
        self._namespaces = namespaces
        self._reading = reading

    def mesh_of(self, item: KubernetesObject) -> Place:
        """The mesh of an object; NoMembership in the controller's words where there is none, or no single one."""
        ref = item.spec.get("meshRef")
        if isinstance(ref, Mapping) and ref.get("name"):  # an object out of a cluster tells its mesh
            named = [mesh for mesh in self._meshes if mesh.name == ref["name"]]
            return place(named[0]) if named else Place(str(ref["name"]), None)
        found = self._selected(self._meshes, item)
        if len(found) == 1:
            return place(found[0])
        outside = self._reading.mesh
        if outside is not None:
            named = [mesh for mesh in self._meshes if outside in (mesh.name, mesh.app_mesh_name)]
            return place(named[0]) if named else Place(outside, self._reading.mesh_owner)
        raise NoMembership(self._why("mesh", "meshes", found, item) + self._hint(item, ", or say --mesh NAME"))

    def gateway_of(self, item: KubernetesObject) -> str:
        """The App Mesh name of a gateway route's virtual gateway; NoMembership likewise."""
        ref = item.spec.get("virtualGatewayRef")
        if isinstance(ref, Mapping) and ref.get("name"):
            where, name = str(ref.get("namespace") or item.namespace), str(ref["name"])
            named = [each for each in self._gateways if (each.namespace, each.name) == (where, name)]
            return named[0].app_mesh_name if named else default_name(VIRTUAL_GATEWAY.title, where, name)
        found = self._selected([gateway for gateway in self._gateways if _takes(gateway, item)], item)
        home = self.mesh_of(item)
        if len(found) == 1:
            if self.mesh_of(found[0]) != home:
                raise NoMembership(f"virtualGateway {found[0].name} does not belong to mesh {home.mesh}, as this does")
            return found[0].app_mesh_name
        if not self._gateways:
            if self._reading.live is None and self._reading.gateway is None:
                return UNKNOWN
            there = (self._reading.live or {}).get((home.account or self._reading.account, home.mesh, _GATEWAY), ())
            outside = [self._reading.gateway] if self._reading.gateway else sorted(there)
            if len(outside) == 1:
                return outside[0]
        why = self._why("virtualGateway", "virtualGateways", found, item)
        raise NoMembership(why + self._hint(item, ", or say --gateway NAME"))

    def _selected(self, choices: Sequence[KubernetesObject], item: KubernetesObject) -> list[KubernetesObject]:
        labels = {_NAMESPACE_LABEL: item.namespace, **self._namespaces.get(item.namespace, {})}
        found = [each for each in choices if selects(each.spec.get("namespaceSelector"), labels)]
        if found or item.namespace in self._namespaces:
            return found
        return [each for each in choices if isinstance(each.spec.get("namespaceSelector"), Mapping)]

    def _why(self, one: str, many: str, found: Sequence[KubernetesObject], item: KubernetesObject) -> str:
        where = f"for namespace: {item.namespace}, expecting 1 but found {len(found)}"
        if not found:
            return f"failed to find matching {one} {where}"
        return f"found multiple matching {many} {where}: {','.join(each.name for each in found)}"

    def _hint(self, item: KubernetesObject, more: str) -> str:
        known = item.namespace in self._namespaces
        what = "look at its namespaceSelector" if known else f"add the Namespace {item.namespace} with its labels"
        return f": {what}{more}"


def place(mesh: KubernetesObject) -> Place:
    owner = mesh.spec.get("meshOwner")
    return Place(mesh.app_mesh_name, owner if isinstance(owner, str) and owner else None)


def _takes(gateway: KubernetesObject, route: KubernetesObject) -> bool:
    """A gateway without a gatewayRouteSelector takes every gateway route of its namespaces."""
    selector = gateway.spec.get("gatewayRouteSelector")
    return selector is None or selects(selector, route.labels)


def line_source(value: object, file: str, otherwise: int) -> str:
    return f"{file}:{value.line if isinstance(value, Located) else otherwise}"
