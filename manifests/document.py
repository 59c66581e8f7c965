"""What a manifest asks for, as values: the one form that every format is turned into. Pure.

A format's reader takes the documents of a file and gives a `Manifest`. It never raises for what it reads: what is wrong
becomes a `Problem` with its place, so that a user sees all of them at once and the rest of the files can still be used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.kinds import ResourceKey


@dataclass(frozen=True, slots=True)
class Desired:
    """One App Mesh resource as it shall be.

    `kind` is a name of `mesh.kinds.KINDS`; `account` the mesh owner's twelve digits, None for the caller's own;
    `parent` the router of a route or the gateway of a gateway route, else ''. For a mesh, `name == mesh`. `spec` is the
    API's own form (camelCase, as a Create takes it). `tags` is None where the format says nothing of tags: they are
    left as they are. `source` is where it was read, `file:line`.

    `all_children`: the document lists every route of this router (Kubernetes): others that it has are taken away.
    `retained`: the document says that this outlives it (CloudFormation's DeletionPolicy): never deleted by it.
    """

    kind: str
    account: str | None
    mesh: str
    parent: str
    name: str
    spec: Mapping[str, Any]
    tags: Mapping[str, str] | None = None
    source: str = ""
    all_children: bool = False
    retained: bool = False

    def key(self, caller_account: str) -> ResourceKey:
        return ResourceKey(self.account or caller_account, self.mesh, self.kind, self.parent, self.name)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is in a file and no business of a mesh: `what` (e.g. `AWS::ECS::Service web`) and `why`."""

    what: str
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be read: `text` says what is wrong with which field, and what to do."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that was read, each format's in the order of its files."""

    resources: tuple[Desired, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[Problem, ...] = ()

    @staticmethod
    def joined(parts: Iterable[Manifest]) -> Manifest:
        every = list(parts)
        return Manifest(
            tuple(item for part in every for item in part.resources),
            tuple(item for part in every for item in part.skipped),
            tuple(item for part in every for item in part.problems),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader is told from outside.

    `account` and `region`: whose and which one is meant where a document says "mine" or "here". `mesh`: the mesh of
    documents that name none, `mesh_owner` its owner if that is somebody else; `gateway`: the virtual gateway of gateway
    routes whose own is in no file; `namespace`: that of Kubernetes objects without one. `live`: names of what is there
    by mesh owner, mesh and kind, for references to what is in no file; None before anybody has looked. `parameters` and
    `imports`: values for a CloudFormation template's Parameters and Fn::ImportValue; `stack`: its AWS::StackName.
    `names_only`: what resources are called is all that is asked (they shall go), so a template's values for their specs
    need not be known.
    """

    account: str
    region: str
    mesh: str | None = None
    mesh_owner: str | None = None
    gateway: str | None = None
    namespace: str = "default"
    live: Mapping[tuple[str, str, str], Collection[str]] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    imports: Mapping[str, str] = field(default_factory=dict)
    stack: str | None = None
    names_only: bool = False
