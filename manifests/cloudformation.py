"""CloudFormation templates (YAML, JSON, what CDK writes) into desired resources. Pure.

Every AWS::AppMesh resource becomes a `Desired` as CloudFormation would have called the API for it; every other resource
is `Skipped` with the reason. The functions are in cloudformation_intrinsics, what a template knows of itself in
cloudformation_template, and names and types of properties in cloudformation_properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from manifests.cloudformation_intrinsics import CannotResolveError
from manifests.cloudformation_properties import api_form
from manifests.cloudformation_template import APP_MESH, Template
from manifests.document import Desired, Manifest, Problem, Reading, Skipped
from manifests.text import Document, line_of
from mesh.kinds import MESH, Kind

_NO_PROPERTIES: Final = frozenset({"clientToken"})
_TRANSFORMS_OF_AWS: Final = ("AWS::Serverless", "AWS::CodeDeploy", "AWS::SecretsManager", "AWS::LanguageExtensions")
_WHY_SKIPPED: Final = {
    "AWS::CloudFormation::Stack": "a nested stack: apply its template too",
    "AWS::RAM::ResourceShare": "not App Mesh: a mesh is shared here with `meshlog mesh share`",
    "AWS::CDK::Metadata": "CDK's own bookkeeping",
}


def is_template(value: Any) -> bool:
    """Whether a document is a CloudFormation template: it says so, or its resources have CloudFormation's types."""
    if not isinstance(value, Mapping):
        return False
    resources = value.get("Resources")
    return "AWSTemplateFormatVersion" in value or (
        isinstance(resources, Mapping)
        and any(isinstance(each, Mapping) and "::" in str(each.get("Type")) for each in resources.values())
    )


def parse(documents: Sequence[Document], reading: Reading) -> Manifest:
    """All templates of one run together: what one of them exports, another may import."""
    templates = [Template(document, reading) for document in documents]
    exported: dict[str, Callable[[], Any]] = {}
    for template in templates:
        exported.update(template.exports())
    for template in templates:
        template.imported_from = _importer(exported, template.imported_from)
    declared = {name for template in templates for name in (*template.parameters, *template.resources)}
    return Manifest.joined(
        [
            *(_read(template) for template in templates),
            Manifest(problems=tuple(_unknown_parameters(reading, declared, documents))),
        ]
    )


def _read(template: Template) -> Manifest:
    found = [Manifest(problems=tuple(Problem(text, template.document.source) for text in _not_expanded(template)))]
    for logical_id, resource in template.resources.items():
        source = f"{template.document.file}:{line_of(resource, template.document.line)}"
        try:
            found.append(_read_resource(template, logical_id, source))
        except CannotResolveError as error:
            found.append(Manifest(problems=tuple(Problem(f"{logical_id}: {text}", source) for text in error.problems)))
    return Manifest.joined(found)


def _read_resource(template: Template, logical_id: str, source: str) -> Manifest:
    of_type = template.type_of(logical_id)
    kind = template.kind(logical_id)
    what = f"{of_type} {logical_id}"
    if kind is None and of_type.startswith(APP_MESH):
        raise CannotResolveError(f"there is no resource type {of_type}")
    if kind is None:
        return Manifest(skipped=(Skipped(what, _why_skipped(of_type), source),))
    if not template.exists(logical_id):
        condition = template.resources[logical_id]["Condition"]
        return Manifest(skipped=(Skipped(what, f"its condition {condition} is false", source),))
    return Manifest((_desired(template, logical_id, kind, source),))


def _desired(template: Template, logical_id: str, kind: Kind, source: str) -> Desired:
    retained = str(template.resources[logical_id].get("DeletionPolicy", "Delete")).startswith("Retain")
    members: Mapping[str, Any] = {}
    if not template.reading.names_only:
        members = api_form(f"Create{kind.title}Input", template.properties(logical_id), without=_NO_PROPERTIES)
        if "spec" not in members and kind is not MESH:
            raise CannotResolveError("Spec: is required")
    key = template.key(logical_id, kind)
    tags = members.get("tags")
    return Desired(
        kind=kind.name,
        account=None if key.account == template.reading.account else key.account,
        mesh=key.mesh,
        parent=key.parent,
        name=key.name,
        spec=members.get("spec", {}),
        tags=None if tags is None else {tag.get("key", ""): tag.get("value", "") for tag in tags},
        source=source,
        retained=retained,
    )


def _why_skipped(of_type: str) -> str:
    if of_type.startswith("AWS::ServiceDiscovery::"):
        return "not App Mesh: it stays with AWS Cloud Map"
    return _WHY_SKIPPED.get(of_type, "not App Mesh: it stays with CloudFormation")


def _not_expanded(template: Template) -> Iterable[str]:
    """What only CloudFormation itself can turn into resources."""
    transforms = template.document.value.get("Transform") or []
    macros = [
        str(name.get("Name") if isinstance(name, Mapping) else name)
        for name in (transforms if isinstance(transforms, list) else [transforms])
    ]
    unknown = [name for name in macros if not name.startswith(_TRANSFORMS_OF_AWS)]
    for name in (*unknown, *template.not_resources):
        yield (
            f"{name} makes the template's resources inside AWS: apply what it makes of it "
            "(aws cloudformation get-template --template-stage Processed)"
        )


def _importer(exported: Mapping[str, Callable[[], Any]], otherwise: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda name: exported[name]() if name in exported else otherwise(name)


def _unknown_parameters(reading: Reading, declared: set[str], documents: Sequence[Document]) -> Iterable[Problem]:
    for name in reading.parameters:
        if documents and name.split(".")[0] not in declared and not name.startswith("AWS::"):
            yield Problem(
                f"--parameter {name}: no template has a parameter or a resource of that name", documents[0].file
            )
