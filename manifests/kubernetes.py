"""Kubernetes manifests (`appmesh.k8s.aws/v1beta2`) into desired resources, as the App Mesh controller makes them. Pure.

All documents of all files are read together, since they refer to each other as the objects of a cluster do. A reference
to an object that is in no file is taken to have the name that the controller gives by default. What is no App Mesh
object is listed as skipped: pods get no sidecars here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from manifests.document import Desired, Manifest, Problem, Reading, Skipped
from manifests.kubernetes_objects import (
    BACKEND_GROUP,
    GROUP,
    KIND_NAMES,
    VERSION,
    KubernetesObject,
    Membership,
    NoMembership,
    Place,
    default_name,
    line_source,
    mappings,
    place,
)
from manifests.kubernetes_specs import Converted, Resolve, convert
from manifests.text import Document
from mesh.kinds import GATEWAY_ROUTE, KINDS, MESH, ROUTE, VIRTUAL_NODE, VIRTUAL_ROUTER, VIRTUAL_SERVICE

_OWN_FIELDS = frozenset(
    {
        "awsName",
        "backendGroups",
        "gatewayRouteSelector",
        "meshOwner",
        "meshRef",
        "namespaceSelector",
        "podSelector",
        "routes",
        "virtualGatewayRef",
    }
)
"""Fields of a custom resource's spec that are for the controller and not part of App Mesh's."""

_EVERY_SERVICE = "*"
"""As the name of a backend group: all virtual services of the namespace."""


def recognised(value: object) -> bool:
    """Whether a document is a Kubernetes object."""
    return isinstance(value, Mapping) and isinstance(value.get("apiVersion"), str) and "kind" in value


def read(documents: Iterable[Document], reading: Reading) -> Manifest:
    """Every App Mesh resource of these documents, which `recognised` knows."""
    return _Cluster(documents, reading).manifest()


class _Cluster:
    """The objects of all documents, and what is found about them."""

    def __init__(self, documents: Iterable[Document], reading: Reading) -> None:
        self._reading = reading
        self._resources: list[Desired] = []
        self._skipped: list[Skipped] = []
        self._problems: list[Problem] = []
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._objects: dict[tuple[str, str, str], KubernetesObject] = {}
        for document in documents:
            self._take(document.value, document)
        self._members = Membership(self._objects.values(), self._namespaces, reading)

    def manifest(self) -> Manifest:
        for item in self._objects.values():
            try:
                if item.kind != BACKEND_GROUP:
                    self._make(item)
            except NoMembership as error:
                self._problem(f"{item.title}: {error}", item.source)
        return Manifest(tuple(self._resources), tuple(self._skipped), tuple(self._problems))

    def _problem(self, text: str, source: str) -> None:
        self._problems.append(Problem(text, source))

    def _take(self, value: Any, document: Document) -> None:
        source = line_source(value, document.file, document.line)
        if not recognised(value):
            self._problem("items: holds something that is no Kubernetes object", source)
            return
        version, kind = value["apiVersion"], str(value["kind"])
        if kind.endswith("List") and isinstance(value.get("items"), list):
            for item in value["items"]:
                listed = item.get("kind") if isinstance(item, Mapping) else None
                if listed is None and isinstance(item, Mapping):  # items of a typed list need not repeat it
                    item.update(apiVersion=version, kind=kind.removesuffix("List"))  # type: ignore[attr-defined]
                self._take(item, document)
            return
        group, _, number = version.rpartition("/")
        item = self._object(value, kind, source)
        if group == GROUP and version != VERSION:
            self._problem(f"{item.title}: is of {GROUP}/{number}, and only {VERSION} is understood", source)
        elif group == GROUP and (kind in KIND_NAMES or kind == BACKEND_GROUP):
            self._keep(item)
        elif (group, kind) == ("", "Namespace"):
            self._namespaces[item.name] = item.labels
            self._skipped.append(Skipped(item.title, "is Kubernetes' own; its labels are used", source))
        else:
            self._skipped.append(Skipped(item.title, "is no App Mesh resource", source))

    def _object(self, value: Mapping[str, Any], kind: str, source: str) -> KubernetesObject:
        metadata = value.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        labels = metadata.get("labels")
        spec = value.get("spec")
        namespaced = kind not in (MESH.title, "Namespace")
        return KubernetesObject(
            kind=kind,
            namespace=str(metadata.get("namespace") or self._reading.namespace) if namespaced else "",
            name=str(metadata.get("name") or ""),
            spec=spec if isinstance(spec, Mapping) else {},
            labels=labels if isinstance(labels, Mapping) else {},
            source=source,
        )

    def _keep(self, item: KubernetesObject) -> None:
        for text, path in ((item.name, "metadata.name"), (item.namespace, "metadata.namespace")):
            if "${" in text:
                self._problem(f"{path}: {text} is a variable that nobody has replaced: see envsubst", item.source)
                return
        if not item.name:
            self._problem(f"{item.kind}: metadata.name: is required", item.source)
            return
        before = self._objects.setdefault((item.kind, item.namespace, item.name), item)
        if before is not item and before.spec != item.spec:
            self._problem(f"{item.title}: is in {before.source} too, with another spec", item.source)

    def _make(self, item: KubernetesObject) -> None:
        if item.kind == MESH.title:
            self._mesh(item)
            return
        where = self._members.mesh_of(item)
        parent = self._members.gateway_of(item) if item.kind == GATEWAY_ROUTE.title else ""
        converted = convert(f"{item.kind}Spec", _without_own(item.spec), self._resolver(item, where))
        if item.kind == VIRTUAL_NODE.title:
            self._add_groups(item, where, converted)
        self._report(item, converted)
        is_router = item.kind == VIRTUAL_ROUTER.title
        self._resources.append(
            Desired(
                kind=KIND_NAMES[item.kind],
                account=where.account,
                mesh=where.mesh,
                parent=parent,
                name=item.app_mesh_name,
                spec=converted.spec,
                source=item.source,
                all_children=is_router,
            )
        )
        if is_router:
            self._routes(item, where)

    def _mesh(self, item: KubernetesObject) -> None:
        where = place(item)
        if where.account not in (None, self._reading.account):
            why = f"belongs to account {where.account}: it is used, and neither made nor changed"
            self._skipped.append(Skipped(item.title, why, item.source))
            return
        converted = convert("MeshSpec", _without_own(item.spec), self._resolver(item, where))
        self._report(item, converted)
        name = where.mesh
        self._resources.append(Desired(MESH.name, where.account, name, "", name, converted.spec, source=item.source))

    def _routes(self, router: KubernetesObject, where: Place) -> None:
        names: set[str] = set()
        routes = router.spec.get("routes") or []
        for index, route in enumerate(routes if isinstance(routes, list) else [None]):
            path = f"spec.routes[{index}]"
            name = route.get("name") if isinstance(route, Mapping) else None
            if not isinstance(route, Mapping) or not isinstance(name, str) or not name:
                self._problem(f"{router.title}: {path}.name: is required", router.source)
                continue
            if name in names:
                self._problem(f"{router.title}: {path}.name: {name} is there twice", router.source)
            names.add(name)
            rest = {member: value for member, value in route.items() if member != "name"}
            converted = convert("RouteSpec", rest, self._resolver(router, where), path)
            self._report(router, converted)
            file, _, line = router.source.rpartition(":")
            source = line_source(route, file, int(line))
            parent, spec = router.app_mesh_name, converted.spec
            self._resources.append(Desired(ROUTE.name, where.account, where.mesh, parent, name, spec, source=source))

    def _report(self, item: KubernetesObject, converted: Converted) -> None:
        for text in converted.problems:
            self._problem(f"{item.title}: {text}", item.source)
        for path in converted.ignored:
            self._skipped.append(Skipped(f"{item.title} {path}", "is no field of App Mesh", item.source))

    def _resolver(self, item: KubernetesObject, home: Place) -> Resolve:
        def resolve(kind: str, reference: Mapping[str, Any]) -> str:
            return self._name_of(KINDS[kind].title, reference, item, home)

        return resolve

    def _name_of(self, kind: str, reference: Mapping[str, Any], item: KubernetesObject, home: Place) -> str:
        """The App Mesh name of what `item` refers to. What is in no file is looked for among what is there."""
        where, name = str(reference.get("namespace") or item.namespace), str(reference["name"])
        found = self._objects.get((kind, where, name))
        if found is not None:
            return found.app_mesh_name
        usual = default_name(kind, where, name)
        if self._reading.live is not None:
            owner = home.account or self._reading.account
            there = self._reading.live.get((owner, home.mesh, KIND_NAMES[kind]), ())
            longer = [each for each in there if each.startswith(f"{usual}.")]  # cart.web.svc.cluster.local
            if usual not in there and len(longer) == 1:
                return longer[0]
            if usual not in there:
                why = f"is in no file, and taken to be named {usual}"
                self._skipped.append(Skipped(f"{item.title}'s {kind} {where}/{name}", why, item.source))
        return usual

    def _add_groups(self, node: KubernetesObject, home: Place, converted: Converted) -> None:
        """The services of a node's backend groups become backends, after its own, each once."""
        own = converted.spec.get("backends", [])
        services = [backend.get("virtualService") for backend in mappings(own)]
        named = [service.get("virtualServiceName") for service in mappings(services)]
        added = [name for name in dict.fromkeys(self._group_services(node, home)) if name not in named]
        if added and isinstance(own, list):
            converted.spec["backends"] = own + [{"virtualService": {"virtualServiceName": name}} for name in added]

    def _group_services(self, node: KubernetesObject, home: Place) -> Iterator[str]:
        for reference in mappings(node.spec.get("backendGroups")):
            if not isinstance(reference.get("name"), str):
                self._problem(f"{node.title}: spec.backendGroups[].name: is required", node.source)
                continue
            where = str(reference.get("namespace") or node.namespace)
            if reference["name"] == _EVERY_SERVICE:
                yield from (service.app_mesh_name for service in self._services_of(where))
                continue
            group = self._objects.get((BACKEND_GROUP, where, reference["name"]))
            if group is None:
                self._problem(
                    f"{node.title}: spec.backendGroups: BackendGroup {where}/{reference['name']} is in no file",
                    node.source,
                )
                continue
            for service in mappings(group.spec.get("virtualservices")):
                if isinstance(service.get("name"), str):
                    yield self._name_of(VIRTUAL_SERVICE.title, service, group, home)

    def _services_of(self, namespace: str) -> Sequence[KubernetesObject]:
        return [
            item
            for (kind, where, _name), item in self._objects.items()
            if (kind, where) == (VIRTUAL_SERVICE.title, namespace)
        ]


def _without_own(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {member: value for member, value in spec.items() if member not in _OWN_FIELDS}
