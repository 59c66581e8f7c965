"""One CloudFormation template and what it knows of itself: the scope of its functions. Pure.

Parameters, conditions, mappings, names and attributes of its App Mesh resources, exports. Values of resources that only
AWS knows can be given from outside as if they were parameters (`LoadBalancer.DNSName=…`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import Any, Final

from manifests.cloudformation_intrinsics import NO_VALUE, CannotResolveError, resolve, text, truth
from manifests.document import Reading
from manifests.text import Document
from mesh.arn import arn
from mesh.kinds import KINDS, MESH, Kind, ResourceKey

APP_MESH = "AWS::AppMesh::"
_KIND_OF_TYPE: Final = {APP_MESH + kind.title: kind for kind in KINDS.values()}
_REF_IS_PROPERTY: Final = {
    "AWS::Route53::RecordSet": "Name",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::Logs::LogGroup": "LogGroupName",
}
"""Foreign resources whose Ref is one of their own properties (the CloudFormation reference, "Return values")."""


class Template:
    """A template with its outside (`reading`) and its neighbours' exports; a `Scope`.

    `imported_from` is asked for the exports of the other templates of the same run.
    """

    def __init__(self, document: Document, reading: Reading) -> None:
        self.document, self.reading = document, reading
        resources = _section(document.value, "Resources")
        self.resources: Mapping[str, Mapping[str, Any]] = _objects(resources)
        self.not_resources = [name for name in resources if name not in self.resources]
        self.parameters: Mapping[str, Mapping[str, Any]] = _objects(_section(document.value, "Parameters"))
        self._mappings = _section(document.value, "Mappings")
        self._conditions = _section(document.value, "Conditions")
        self._outputs = _objects(_section(document.value, "Outputs"))
        self._asking: list[tuple[str, ...]] = []
        self.imported_from: Callable[[str], Any] = _exported_by_nobody

    @property
    def stack(self) -> str:
        """The stack's name: as given, else the file's name without its endings, as a stack could be called."""
        if self.reading.stack:
            return self.reading.stack
        stem = PurePath(self.document.file).name.split(".")[0]
        return re.sub(r"[^A-Za-z0-9-]+", "-", stem).strip("-") or "stack"

    def type_of(self, logical_id: str) -> str:
        return str(self.resources[logical_id].get("Type", ""))

    def kind(self, logical_id: str) -> Kind | None:
        """The App Mesh kind of a resource; None for what is not App Mesh."""
        return _KIND_OF_TYPE.get(self.type_of(logical_id))

    def exists(self, logical_id: str) -> bool:
        """Whether the resource's condition, if it has one, holds."""
        condition = self.resources[logical_id].get("Condition")
        return condition is None or self.condition(str(condition))

    def properties(self, logical_id: str) -> Any:
        return resolve(self.resources[logical_id].get("Properties") or {}, self, "")

    def key(self, logical_id: str, kind: Kind) -> ResourceKey:
        """What an App Mesh resource of this template is called."""
        name = self._name(logical_id, kind, kind.title + "Name")
        if kind is MESH:
            return ResourceKey(self.reading.account, name, kind.name, "", name)
        parent = self._name(logical_id, kind, f"{KINDS[kind.parent].title}Name") if kind.parent else ""
        mesh = self._name(logical_id, kind, "MeshName")
        return ResourceKey(self._name(logical_id, kind, "MeshOwner"), mesh, kind.name, parent, name)

    def exports(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What the template exports, by name; the values are computed when they are asked for."""
        for output in self._outputs.values():
            export = output.get("Export")
            condition = output.get("Condition")
            try:
                if isinstance(export, Mapping) and (condition is None or self.condition(str(condition))):
                    name = text(resolve(export.get("Name"), self, "Export.Name"), "Export.Name")
                    yield name, partial(resolve, output.get("Value"), self, "Value")
            except CannotResolveError:
                continue  # a name that hangs on what only AWS knows is nobody's to import here

    # The scope of the functions.

    def ref(self, name: str) -> Any:
        if name in self.reading.parameters and name not in self.parameters:
            return self.reading.parameters[name]
        if name.startswith("AWS::"):
            return self._pseudo_parameter(name)
        if name in self.parameters:
            return self._parameter(name)
        kind = self._existing(name)
        if kind is not None:
            return self.attribute(name, "Arn")
        properties, of_type = self._foreign(name)
        if _REF_IS_PROPERTY.get(of_type) in properties:
            with self._once("Ref", name):
                return resolve(properties[_REF_IS_PROPERTY[of_type]], self, _REF_IS_PROPERTY[of_type])
        raise CannotResolveError(_at_aws(f"Ref of {name} ({of_type})", name))

    def attribute(self, name: str, attribute: str) -> Any:
        given = self.reading.parameters.get(f"{name}.{attribute}")
        if given is not None:
            return given
        kind = self._existing(name)
        if kind is not None:
            return self._app_mesh_attribute(name, kind, attribute)
        properties, of_type = self._foreign(name)
        if attribute in properties:  # an attribute that is called like a property has its value
            with self._once(name, attribute):
                return resolve(properties[attribute], self, attribute)
        raise CannotResolveError(_at_aws(f"{attribute} of {name} ({of_type})", f"{name}.{attribute}"))

    def mapped(self, table: str, first: str, second: str) -> Any:
        found: Any = self._mappings
        for name in (table, first, second):
            if not isinstance(found, Mapping) or name not in found:
                raise CannotResolveError(f"Mappings have no {table}.{first}.{second}")
            found = found[name]
        return found

    def condition(self, name: str) -> bool:
        if name not in self._conditions:
            raise CannotResolveError(f"there is no condition {name} in Conditions")
        with self._once("Condition", name):
            return truth(self._conditions[name], self, f"Conditions.{name}")

    def imported(self, name: str) -> Any:
        given = self.reading.imports.get(name)
        return given if given is not None else self.imported_from(name)

    def _name(self, logical_id: str, kind: Kind, member: str) -> str:
        found: Any = NO_VALUE
        for spelling, value in _section(self.resources[logical_id], "Properties").items():
            if spelling.lower() == member.lower():
                with self._once(logical_id, member):
                    found = resolve(value, self, member)
        if found is not NO_VALUE:
            name = text(found, member)
            if name.startswith("arn:") and member != "MeshOwner":
                raise CannotResolveError(
                    f"{member}: '{name}' is an ARN, and a name is wanted: !Ref of an App Mesh resource gives its ARN, "
                    f"!GetAtt <resource>.{member} its name"
                )
            return name
        if member == "MeshOwner":
            return self.reading.account
        if member == f"{kind.title}Name" and member != "VirtualServiceName":
            return f"{self.stack}-{logical_id}"
        raise CannotResolveError(f"{member}: is required")

    def _app_mesh_attribute(self, logical_id: str, kind: Kind, attribute: str) -> str:
        if attribute in ("Arn", "Id"):
            return arn(self.reading.region, self.key(logical_id, kind))
        if attribute == "ResourceOwner":
            return self.reading.account
        if attribute == "Uid":
            raise CannotResolveError(
                f"the Uid of {logical_id} is not known before it is created: give it with "
                f"--parameter {logical_id}.Uid=VALUE"
            )
        named = {f"{kind.title}Name", "MeshName"} | ({f"{KINDS[kind.parent].title}Name"} if kind.parent else set())
        if attribute not in named | {"MeshOwner"}:
            raise CannotResolveError(f"{logical_id} ({APP_MESH}{kind.title}) has no attribute {attribute}")
        return self._name(logical_id, kind, attribute)

    def _existing(self, logical_id: str) -> Kind | None:
        if logical_id not in self.resources:
            raise CannotResolveError(f"there is no {logical_id} in Parameters or Resources")
        kind = self.kind(logical_id)
        if kind is not None and not self.exists(logical_id):
            raise CannotResolveError(f"{logical_id} is not created, as its condition is false")
        return kind

    def _foreign(self, logical_id: str) -> tuple[Mapping[str, Any], str]:
        return _section(self.resources[logical_id], "Properties"), self.type_of(logical_id)

    def _pseudo_parameter(self, name: str) -> Any:
        region = self.reading.region
        partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
        known = {
            "AWS::NoValue": NO_VALUE,
            "AWS::AccountId": self.reading.account,
            "AWS::Region": region,
            "AWS::Partition": partition,
            "AWS::URLSuffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
            "AWS::StackName": self.stack,
            "AWS::NotificationARNs": [],
        }
        if name not in known:
            raise CannotResolveError(_at_aws(name, name))
        return known[name]

    def _parameter(self, name: str) -> Any:
        declared = self.parameters[name]
        of_type = str(declared.get("Type", "String"))
        given = self.reading.parameters.get(name)
        if given is None and of_type.startswith("AWS::SSM::Parameter::Value"):
            raise CannotResolveError(_at_aws(f"{name} (an SSM parameter)", name))
        value = declared.get("Default") if given is None else given
        if value is None:
            raise CannotResolveError(f"the template's parameter {name} has no value: give it with --parameter {name}=V")
        if "List" in of_type:
            items = text(value, name).split(",") if not isinstance(value, list) else value
            found = [text(item, name).strip() for item in items]
            for item in found:
                _check_parameter(name, declared, of_type, item)
            return found
        _check_parameter(name, declared, of_type, text(value, name))
        return text(value, name)

    @contextmanager
    def _once(self, *what: str) -> Iterator[None]:
        """Refuse to compute a value from itself."""
        if what in self._asking:
            circle = " -> ".join(".".join(each) for each in (*self._asking, what))
            raise CannotResolveError(f"is defined by itself: {circle}")
        self._asking.append(what)
        try:
            yield
        finally:
            self._asking.pop()


def _check_parameter(name: str, declared: Mapping[str, Any], of_type: str, value: str) -> None:
    """What a template demands of its parameter; the value itself is not shown, as it may be a secret (NoEcho)."""
    problem = ""
    number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", value)
    allowed = declared.get("AllowedValues")
    pattern = declared.get("AllowedPattern")
    if "Number" in of_type and number is None:
        problem = "must be a number"
    elif isinstance(allowed, list) and value not in [text(item, name) for item in allowed]:
        problem = f"must be one of {', '.join(text(item, name) for item in allowed)}"
    elif isinstance(pattern, str) and not _matches(pattern, value):
        problem = f"must match {pattern}"
    elif number is not None and "Number" in of_type:
        low, high = _bound(name, declared, "MinValue"), _bound(name, declared, "MaxValue")
        if (low is not None and float(value) < low) or (high is not None and float(value) > high):
            problem = f"must be from {'any' if low is None else f'{low:g}'} to {'any' if high is None else f'{high:g}'}"
    else:
        low, high = _bound(name, declared, "MinLength"), _bound(name, declared, "MaxLength")
        if (low is not None and len(value) < low) or (high is not None and len(value) > high):
            problem = f"must have from {low or 0:g} to {'any number of' if high is None else f'{high:g}'} characters"
    if problem:
        raise CannotResolveError(f"the template's parameter {name} {declared.get('ConstraintDescription') or problem}")


def _bound(name: str, declared: Mapping[str, Any], member: str) -> float | None:
    if declared.get(member) is None:
        return None
    try:
        return float(text(declared[member], name))
    except ValueError:
        raise CannotResolveError(f"the template's parameter {name} has a {member} that is no number") from None


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True  # a pattern of Java's that Python does not read is not ours to judge


def _at_aws(what: str, flag: str) -> str:
    return f"the {what} is known to AWS alone: give it with --parameter {flag}=VALUE"


def _exported_by_nobody(name: str) -> Any:
    raise CannotResolveError(
        f"another stack's export '{name}' is wanted: give it with --import-value '{name}=VALUE', or apply the template "
        "that exports it together with this one"
    )


def _objects(section: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {name: each for name, each in section.items() if isinstance(each, Mapping) and not name.startswith("Fn::")}


def _section(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}
