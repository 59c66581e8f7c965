"""Resource names on the wire: `ResourceKey` to ARN and back. Pure text.

The account in an ARN is the mesh owner's. A region is an echo of the caller's (App Mesh had one mesh per region;
a Meshlog cluster has one), so it is no part of a key.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mesh.errors import BadRequest
from mesh.kinds import KINDS, MESH, ResourceKey, mesh_key

_ARN = re.compile(
    r"arn:aws[a-z-]*:appmesh:(?P<region>[a-z0-9-]*):(?P<account>[0-9]{12}):(?P<path>.+)",
    re.DOTALL,
)
_MESH_LENGTH, _FLAT_LENGTH, _NESTED_LENGTH = 2, 4, 6


class Arn(NamedTuple):
    region: str
    key: ResourceKey


def arn(region: str, key: ResourceKey) -> str:
    """`arn:aws:appmesh:<region>:<mesh owner>:mesh/m/virtualRouter/r/route/x`."""
    return f"arn:aws:appmesh:{region}:{key.account}:{key.path}"


def parse_arn(text: str) -> Arn:
    """The inverse of `arn`; BadRequest when it names no App Mesh resource."""
    match = _ARN.fullmatch(text)
    key = _parse_path(match["account"], match["path"].split("/")) if match else None
    if match is None or key is None:
        raise BadRequest(
            f"resourceArn: '{text[:300]}' is not the ARN of an App Mesh resource, "
            "such as arn:aws:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<name>"
        )
    return Arn(match["region"], key)


def _parse_path(account: str, words: list[str]) -> ResourceKey | None:
    if not all(words) or words[0] != MESH.name:
        return None
    if len(words) == _MESH_LENGTH:
        return mesh_key(account, words[1])
    kind = KINDS.get(words[-2]) if len(words) > _MESH_LENGTH else None
    if kind is None or kind is MESH:
        return None
    if len(words) == _FLAT_LENGTH and kind.parent is None:
        return ResourceKey(account, words[1], kind.name, "", words[3])
    if len(words) == _NESTED_LENGTH and kind.parent == words[2]:
        return ResourceKey(account, words[1], kind.name, words[3], words[5])
    return None
