"""What is in the meshes that manifests are about, read over the API. Absent and unshared meshes are simply not there.

Whole meshes come from `/meshlog/v1/resources`, a page at a time. Whoever may only call the App Mesh API itself gets the
same from its list and describe operations, one call for each resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cli.client import APPMESH, ApiClient, Target, pages
from manifests.calls import ApiCall, describe_call, list_call, tags_call
from manifests.document import Reading
from manifests.live import LiveResource, live_resource
from manifests.plan import Surroundings
from mesh.errors import Forbidden, NotAuthenticated, NotFound, Unavailable
from mesh.kinds import KINDS, MESH, Kind, ResourceKey, mesh_key

_CHILDREN = {kind.parent: kind for kind in KINDS.values() if kind.parent}
Home = tuple[str, str]
"""A mesh: its owner's account and its name."""


def surroundings(client: ApiClient, reading: Reading, homes: Iterable[Home]) -> Surroundings:
    """All that is in these meshes, and the account's quotas where it may see them."""
    live: dict[ResourceKey, LiveResource] = {}
    for account, mesh in sorted(set(homes)):
        for document in _documents(client, reading, account, mesh):
            found = live_resource(document)
            live[found.key] = found
    return Surroundings(reading, live, _quotas(client))


def _documents(client: ApiClient, reading: Reading, account: str, mesh: str) -> list[dict[str, Any]]:
    try:
        return list(_whole_mesh(client, account, mesh))
    except NotFound:
        return []
    except Forbidden:  # either the mesh is nobody's business, or this way of reading it
        return list(_one_by_one(client, reading, mesh_key(account, mesh)))


def _whole_mesh(client: ApiClient, account: str, mesh: str) -> Iterator[dict[str, Any]]:
    query = {"mesh": mesh, "account": account}
    after: str | None = ""
    while after is not None:
        answer = client.get("/meshlog/v1/resources", query | ({"after": after} if after else {}))
        yield from answer["resources"]
        after, at = answer["next"], answer["at"]
        query["at"] = f"{at['epoch']}.{at['position']}"


def _one_by_one(client: ApiClient, reading: Reading, home: ResourceKey) -> Iterator[dict[str, Any]]:
    try:
        yield _described(client, reading, home)
    except (NotFound, Forbidden):
        return
    for kind in KINDS.values():
        if kind is MESH or kind.parent:
            continue
        for key in _keys(client, reading, kind, home):
            yield _described(client, reading, key)
            child = _CHILDREN.get(kind.name)
            for inside in _keys(client, reading, child, key) if child else ():
                yield _described(client, reading, inside)


def _keys(client: ApiClient, reading: Reading, kind: Kind, above: ResourceKey) -> list[ResourceKey]:
    def page(token: str | None) -> tuple[list[Any], str | None]:
        answer = _get(client, list_call(kind, above, reading.account, token))
        return answer[kind.plural], answer.get("nextToken")

    parent = above.name if kind.parent else ""
    return [ResourceKey(above.account, above.mesh, kind.name, parent, ref[kind.name_member]) for ref in pages(page)]


def _described(client: ApiClient, reading: Reading, key: ResourceKey) -> dict[str, Any]:
    document = _get(client, describe_call(key, reading.account))
    try:
        tags = _get(client, tags_call(key, reading.region))["tags"]
    except Forbidden:  # tags are their maker's alone to see
        tags = []
    return {**document, "tags": tags}


def _get(client: ApiClient, call: ApiCall) -> dict[str, Any]:
    return client.get(call.path, call.query, service=APPMESH)


def _quotas(client: ApiClient) -> Mapping[str, int]:
    try:
        answer = client.get("/meshlog/v1/quotas")
    except (Forbidden, NotFound):
        return {}
    return {quota["code"]: quota["value"] for quota in answer["quotas"]}


def caller_account(target: Target) -> str:
    """Whose key this is: the cluster's own credentials tell, of any other the API does (STS)."""
    if target.key.account_id:
        return target.key.account_id
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  (see `cli.client.sign`)
    from botocore.session import Session  # noqa: PLC0415

    key, failure = target.key, "there is none"
    for url in target.urls:
        sts = Session().create_client(
            "sts",
            region_name=key.region,
            endpoint_url=url,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=key.session_token or None,
            verify=str(target.ca_bundle) if target.ca_bundle else None,
        )
        try:
            return str(sts.get_caller_identity()["Account"])
        except ClientError as error:
            raise NotAuthenticated(error.response["Error"]["Message"]) from error
        except BotoCoreError as error:
            failure = str(error)
    raise Unavailable(f"no API server tells whose access key this is: {failure}")
