"""Who a proxy is: the node of the mesh that it stands for. Pure text to value and back.

Three spellings of a node id are accepted (App Mesh's `APPMESH_RESOURCE_ARN`, copied verbatim into `node.id`):
the resource ARN, `mesh/<mesh>/virtualNode/<name>` (in the certificate's account) and `mesh/<mesh>@<account>/…`.
The identity that counts comes from the certificate: `spiffe://<trust-domain>/<account>/mesh/<mesh>/<kind>/<name>`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from mesh.errors import BadRequest
from mesh.kinds import VIRTUAL_GATEWAY, VIRTUAL_NODE, ResourceKey

NODE_KINDS = (VIRTUAL_NODE.name, VIRTUAL_GATEWAY.name)

_ARN = re.compile(r"arn:[^:]+:appmesh:[^:]*:(?P<account>\d{12}):(?P<path>.+)")
_PATH = re.compile(r"mesh/(?P<mesh>[^/@]+)(?:@(?P<owner>\d{12}))?/(?P<kind>virtualNode|virtualGateway)/(?P<name>[^/]+)")
_SPIFFE = re.compile(r"spiffe://(?P<domain>[^/]+)/(?P<account>\d{12})/(?P<path>mesh/.+)")


class NodeId(NamedTuple):
    """A virtual node or virtual gateway as a proxy's identity; `account` owns the mesh."""

    account: str
    mesh: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"mesh/{self.mesh}@{self.account}/{self.kind}/{self.name}"

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.account, self.mesh, self.kind, "", self.name)

    def spiffe_id(self, trust_domain: str) -> str:
        mesh, name = quote(self.mesh, safe=""), quote(self.name, safe="")
        return f"spiffe://{trust_domain}/{self.account}/mesh/{mesh}/{self.kind}/{name}"


def parse_node_id(text: str, account: str) -> NodeId:
    """Read a node id as an Envoy or an operator writes it; `account` stands in where the text names none."""
    arn = _ARN.fullmatch(text)
    if arn:
        account, text = arn["account"], arn["path"]
    path = _PATH.fullmatch(text)
    if not path:
        raise BadRequest(
            f"'{text}' does not name a proxy's resource: write mesh/<mesh>/virtualNode/<name>, "
            "mesh/<mesh>/virtualGateway/<name>, the same with mesh/<mesh>@<account>/…, or the resource's ARN"
        )
    return NodeId(path["owner"] or account, path["mesh"], path["kind"], path["name"])


def parse_spiffe_id(uri: str, trust_domain: str) -> NodeId | None:
    """The node a certificate's URI SAN names, or None if it is not one of this trust domain's."""
    match = _SPIFFE.fullmatch(uri)
    if not match or match["domain"] != trust_domain:
        return None
    path = _PATH.fullmatch(match["path"])
    if not path or path["owner"]:
        return None
    return NodeId(match["account"], unquote(path["mesh"]), path["kind"], unquote(path["name"]))
