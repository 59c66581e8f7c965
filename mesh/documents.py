"""Resources as App Mesh's JSON bodies. Specs leave exactly as they came; only metadata is added here."""

from __future__ import annotations

from typing import Any

from mesh.arn import arn
from mesh.frozen import thaw
from mesh.kinds import KINDS, MESH
from mesh.state import Resource

ACTIVE = "ACTIVE"
DELETED = "DELETED"

_MICROSECONDS = 1_000_000


def resource_document(resource: Resource, region: str, status: str = ACTIVE) -> dict[str, Any]:
    """The body of create, describe, update and delete (`status` DELETED).

    {meshName, [parent's name], <name>, spec, status: {status}, metadata}, with plain lists and dicts.
    Times are epoch seconds as JSON numbers: Go SDKs refuse anything else.
    """
    return {
        **_names(resource),
        "spec": thaw(resource.spec),
        "status": {"status": status},
        "metadata": {**_metadata(resource, region), "uid": resource.uid},
    }


def resource_ref(resource: Resource, region: str) -> dict[str, Any]:
    """One item of a list operation: names and metadata side by side, no uid, no spec."""
    return {**_names(resource), **_metadata(resource, region)}


def tag_list(resource: Resource) -> list[dict[str, str]]:
    """The tags as the API lists them, sorted by key."""
    return [{"key": key, "value": resource.tags[key]} for key in sorted(resource.tags)]


def _names(resource: Resource) -> dict[str, str]:
    key = resource.key
    kind = KINDS[key.kind]
    names = {MESH.name_member: key.mesh}
    if kind.parent:
        names[KINDS[kind.parent].name_member] = key.parent
    names[kind.name_member] = key.name
    return names


def _metadata(resource: Resource, region: str) -> dict[str, Any]:
    return {
        "arn": arn(region, resource.key),
        "createdAt": resource.created_us / _MICROSECONDS,
        "lastUpdatedAt": resource.updated_us / _MICROSECONDS,
        "meshOwner": resource.key.account,
        "resourceOwner": resource.owner,
        "version": resource.version,
    }
