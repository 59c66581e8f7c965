"""The managed policies that every account has: App Mesh's own, under AWS's names, and a few beside them. Facts only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mesh.iam.policy import CURRENT_VERSION

PREFIX = "arn:aws:iam::aws:policy/"


class AwsPolicy(NamedTuple):
    """A managed policy that nobody can change. `document` is JSON text."""

    arn: str
    description: str
    document: str


def _policy(name: str, description: str, *statements: Mapping[str, Any]) -> AwsPolicy:
    document = {"Version": CURRENT_VERSION, "Statement": list(statements)}
    return AwsPolicy(PREFIX + name, description, json.dumps(document, indent=2))


def _allow(*actions: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*"}


_KINDS = ("Mesh", "VirtualNode", "VirtualRouter", "Route", "VirtualService", "VirtualGateway", "GatewayRoute")
_PLURALS = ("Meshes", *(f"{kind}s" for kind in _KINDS[1:]))
_TAGS = ("TagResource", "UntagResource")
_READS = (*(f"Describe{kind}" for kind in _KINDS), *(f"List{plural}" for plural in _PLURALS), "ListTagsForResource")
_WRITES = tuple(f"{verb}{kind}" for verb in ("Create", "Update", "Delete") for kind in _KINDS)

_ALL = (
    _policy(
        "AWSAppMeshFullAccess",
        "All operations of the App Mesh API.",
        _allow(*(f"appmesh:{name}" for name in (*_READS, *_WRITES, *_TAGS))),
    ),
    _policy(
        "AWSAppMeshReadOnly",
        "Describe and list in the App Mesh API.",
        _allow(*(f"appmesh:{name}" for name in _READS)),
    ),
    _policy(
        "AWSAppMeshEnvoyAccess",
        "A proxy may connect, for any virtual node or gateway.",
        _allow("appmesh:StreamAggregatedResources"),
    ),
    _policy("AWSCloudMapFullAccess", "All operations of the Cloud Map API.", _allow("servicediscovery:*")),
    _policy(
        "AWSCloudMapReadOnlyAccess",
        "Get, list and discover in the Cloud Map API.",
        _allow("servicediscovery:Get*", "servicediscovery:List*", "servicediscovery:DiscoverInstances*"),
    ),
    _policy(
        "AWSCloudMapRegisterInstanceAccess",
        "Register, deregister and discover instances, and look at what there is.",
        _allow(
            "servicediscovery:Get*",
            "servicediscovery:List*",
            "servicediscovery:RegisterInstance",
            "servicediscovery:DeregisterInstance",
            "servicediscovery:DiscoverInstances*",
        ),
    ),
    _policy(
        "AWSCloudMapDiscoverInstanceAccess",
        "Discover instances.",
        _allow("servicediscovery:DiscoverInstances", "servicediscovery:DiscoverInstancesRevision"),
    ),
    _policy("AdministratorAccess", "Everything.", _allow("*")),
    _policy(
        "MeshlogReadOnly",
        "Look at meshes, their history and the cluster's status.",
        _allow(*(f"appmesh:{name}" for name in _READS), *(f"meshlog:{verb}*" for verb in ("Get", "List", "Diff"))),
    ),
    _policy(
        "MeshlogOperator",
        "All of App Mesh and Cloud Map, history, rollback, sharing and proxies; not who may do what.",
        _allow("appmesh:*", "meshlog:*", "servicediscovery:*"),
    ),
)

MANAGED: Mapping[str, AwsPolicy] = {each.arn: each for each in _ALL}
"""By ARN."""
