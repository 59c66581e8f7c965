"""Who may do what, as one table that names every route and one function that all of them pass through.

For now a key is an admin's or it may do nothing. Policies come in here: `authorise` already gets the caller, the
operation and every resource that it touches. A route that the table does not name is refused to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from identity.caller import Caller
from identity.sigv4 import APPMESH, MESHLOG, STS
from mesh.arn import arn
from mesh.errors import Forbidden
from mesh.kinds import ResourceKey


class Rule(StrEnum):
    """What a route asks of its caller."""

    ADMIN = "admin"
    ANYONE = "anyone"
    """Whoever has a key: what the call may do beyond that is decided where it is handled."""


_APP_MESH = (
    "CreateMesh", "DescribeMesh", "UpdateMesh", "DeleteMesh", "ListMeshes",
    "CreateVirtualNode", "DescribeVirtualNode", "UpdateVirtualNode", "DeleteVirtualNode", "ListVirtualNodes",
    "CreateVirtualRouter", "DescribeVirtualRouter", "UpdateVirtualRouter", "DeleteVirtualRouter", "ListVirtualRouters",
    "CreateRoute", "DescribeRoute", "UpdateRoute", "DeleteRoute", "ListRoutes",
    "CreateVirtualService", "DescribeVirtualService", "UpdateVirtualService", "DeleteVirtualService",
    "ListVirtualServices",
    "CreateVirtualGateway", "DescribeVirtualGateway", "UpdateVirtualGateway", "DeleteVirtualGateway",
    "ListVirtualGateways",
    "CreateGatewayRoute", "DescribeGatewayRoute", "UpdateGatewayRoute", "DeleteGatewayRoute", "ListGatewayRoutes",
    "TagResource", "UntagResource", "ListTagsForResource",
)  # fmt: skip
_MESHLOG = (
    "GetStatus", "IssueProxyIdentity", "ListEvents", "ListResources", "DiffMesh", "DiffProxy", "RollbackMesh",
    "ListAccessKeys", "CreateAccessKey", "DisableAccessKey", "LookupEvents",
    "ListKeys", "RotateKeys", "RewrapKeys",
)  # fmt: skip
_STS = ("GetCallerIdentity", "GetSessionToken")

RULES: Mapping[str, Rule] = {
    **{f"{APPMESH}:{name}": Rule.ADMIN for name in _APP_MESH},
    **{f"{MESHLOG}:{name}": Rule.ADMIN for name in _MESHLOG},
    **{f"{STS}:{name}": Rule.ANYONE for name in _STS},
}
"""By IAM action."""


def authorise(caller: Caller, action: str, keys: Iterable[ResourceKey] = ()) -> None:
    """Return if `caller` may do `action` to all of `keys`; Forbidden otherwise, in IAM's words."""
    if RULES.get(action) is Rule.ANYONE:
        return
    if RULES.get(action) is Rule.ADMIN and caller.admin and all(key.account == caller.account for key in keys):
        return
    on = next((arn(caller.region, key) for key in keys), "*")
    raise Forbidden(
        f"User: {caller.principal} is not authorized to perform: {action} on resource: {on}. "
        "Call with an admin key of the account that owns it."
    )
