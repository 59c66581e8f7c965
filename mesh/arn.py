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
_FLAT_SPELLED, _NESTED_SPELLED = 2, 3
_BY_WORD = {
    word.lower(): kind for kind in KINDS.values() if kind is not MESH for word in (kind.name, kind.plural, kind.short)
}


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


def spelled(key: ResourceKey) -> str:
    """A resource within its mesh as people type it: `virtualNode/x`, `route/<router>/x`, `mesh` for the mesh itself."""
    if key.kind == MESH.name:
        return MESH.name
    return "/".join(word for word in (key.kind, key.parent, key.name) if word)


def parse_spelled(account: str, mesh: str, text: str) -> ResourceKey:
    """The inverse of `spelled`. Takes short names of kinds, and what follows the account in an ARN; else BadRequest."""
    words = text.strip().split("/")
    if words[0] == MESH.name and len(words) > 1:
        key = _parse_path(account, words)
        if key is not None and key.mesh == mesh:
            return key
    elif words == [MESH.name]:
        return mesh_key(account, mesh)
    kind = _BY_WORD.get(words[0].lower())
    if kind is not None and all(words) and len(words) == (_FLAT_SPELLED if kind.parent is None else _NESTED_SPELLED):
        return ResourceKey(account, mesh, kind.name, words[1] if kind.parent else "", words[-1])
    raise BadRequest(
        f"'{text[:300]}' names no resource of mesh {mesh}: write virtualNode/<name>, virtualService/<name>, "
        "virtualRouter/<name>, virtualGateway/<name>, route/<router>/<name>, gatewayRoute/<gateway>/<name>, or mesh"
    )


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
