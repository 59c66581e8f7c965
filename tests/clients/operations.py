"""Calls of every operation that succeed, and calls that get each error that the model declares for it.

One world for all; what an error needs (a quota of nothing, a store that does not answer, a caller without a policy) is
made once and met by every operation. `NEVER` is what no call can provoke, with the reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from mesh.model.operations import OPERATIONS, SHAPES
from mesh.quotas import QUOTAS
from runtime.settings import LimitSettings
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server
from tests.api.signing import ask
from tests.clients.servers import api_server
from tests.conditions import eventually

Call = tuple[str, dict[str, Any]]
HELD_S = 120.0
ARN = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/m"
LISTENERS = [{"portMapping": {"port": 8080, "protocol": "http"}}]
NODE = {"listeners": LISTENERS, "serviceDiscovery": {"dns": {"hostname": "n.local"}}}
TARGET = {"target": {"virtualService": {"virtualServiceName": "s.local"}}}
SPECS: dict[str, dict[str, Any]] = {
    "Mesh": {"egressFilter": {"type": "DROP_ALL"}},
    "VirtualNode": NODE,
    "VirtualRouter": {"listeners": LISTENERS},
    "Route": {
        "httpRoute": {
            "match": {"prefix": "/"},
            "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]},
        }
    },
    "VirtualService": {"provider": {"virtualRouter": {"virtualRouterName": "r"}}},
    "VirtualGateway": {"listeners": LISTENERS},
    "GatewayRoute": {"httpRoute": {"match": {"prefix": "/"}, "action": TARGET}},
}
"""In the order in which they can be made."""
NAMES = {
    "meshName": "m",
    "virtualNodeName": "n",
    "virtualRouterName": "r",
    "routeName": "x",
    "virtualServiceName": "s.local",
    "virtualGatewayName": "g",
    "gatewayRouteName": "y",
}
OTHER_SPECS: dict[str, dict[str, Any]] = {
    "Mesh": {"egressFilter": {"type": "ALLOW_ALL"}},
    "VirtualNode": {**NODE, "backends": []},
    "VirtualRouter": {},
    "Route": {**SPECS["Route"], "priority": 7},
    "VirtualService": {},
    "VirtualGateway": {"listeners": LISTENERS, "backendDefaults": {}},
    "GatewayRoute": {**SPECS["GatewayRoute"], "priority": 7},
}
"""Valid too, and different."""

NOTHING_GROWS = "an update makes nothing that a quota counts (but a virtual node's backends)"
NEVER: dict[tuple[str, str], str] = {
    ("CreateMesh", "NotFoundException"): "it refers to nothing",
    ("ListMeshes", "NotFoundException"): "it refers to nothing",
    ("DeleteRoute", "ResourceInUseException"): "nothing refers to a route",
    ("DeleteGatewayRoute", "ResourceInUseException"): "nothing refers to a gateway route",
    **{
        (f"Update{title}", "LimitExceededException"): NOTHING_GROWS
        for title in SPECS
        if title not in ("VirtualNode", "Mesh")  # the model declares none for UpdateMesh
    },
}


def members_of(operation: str) -> dict[str, Any]:
    """Arguments that are right in the world."""
    facts = OPERATIONS[operation]
    if facts.kind is None:
        more: dict[str, dict[str, Any]] = {
            "TagResource": {"tags": [{"key": "k", "value": "v"}]},
            "UntagResource": {"tagKeys": ["k"]},
        }
        return {"resourceArn": ARN, **more.get(operation, {})}
    needed = SHAPES[facts.input_shape]["members"]
    members: dict[str, Any] = {name: value for name, value in NAMES.items() if name in needed}
    if "spec" in needed:
        members["spec"] = SPECS[facts.kind.title]
    return members


# --- each error, for each operation that declares it: the calls to make, the last of which must get it


def bad_request(operation: str) -> list[Call]:
    members = members_of(operation)
    wrong = {"resourceArn": "nonsense"} if "resourceArn" in members else {"meshName": "a/b"}
    return [(operation, {**members, **({"nextToken": "nonsense"} if operation == "ListMeshes" else wrong)})]


def not_found(operation: str) -> list[Call]:
    members = members_of(operation)
    absent = {"resourceArn": ARN + "-gone"} if "resourceArn" in members else {"meshName": "gone"}
    return [(operation, {**members, **absent})]


def conflict(operation: str) -> list[Call]:
    members = members_of(operation)
    if operation.startswith("Create"):
        return [(operation, members)]
    token = {"clientToken": operation}
    other = OTHER_SPECS[operation.removeprefix("Update")]
    return [(operation, {**members, **token}), (operation, {**members, **token, "spec": other})]


def in_use(operation: str) -> list[Call]:
    return [(operation, members_of(operation))]


def limit_exceeded(operation: str) -> list[Call]:
    members = members_of(operation)
    if operation == "UpdateVirtualNode":
        backend = {"virtualService": {"virtualServiceName": "s.local"}}
        return [(operation, {**members, "spec": {**NODE, "backends": [backend]}})]
    kind = OPERATIONS[operation].kind
    assert kind is not None
    return [(operation, {**members, kind.name_member: "one-more"})]


def too_many_tags(operation: str) -> list[Call]:
    many = [[{"key": f"{letter}{number}", "value": ""} for number in range(30)] for letter in "ab"]
    return [(operation, {**members_of(operation), "tags": tags}) for tags in many]


def as_usual(operation: str) -> list[Call]:
    return [(operation, members_of(operation))]


class Part(NamedTuple):
    """Errors that are provoked at one server by one caller. `errors`: code → calls."""

    url: str
    key: tuple[str, str]
    errors: dict[str, Callable[[str], list[Call]]]


ADMIN_KEY = (ADMIN.access_key_id, ADMIN.secret)


@contextmanager
def provoking(new_directory: Callable[[str], Path]) -> Iterator[list[Part]]:
    """Servers, each with the world in it, and what they are for."""
    with ExitStack() as stack:

        def serve(**options: Any) -> Cloud:
            return stack.enter_context(api_server(new_directory("server"), **options))

        usual, limited, slow, cut, broken = (
            serve(),
            serve(),
            serve(limits=LimitSettings(requests_at_once=1), command_s=HELD_S, read_s=0.05),
            serve(command_s=0.05, read_s=0.05, append_s=0.04),
            serve(),
        )
        for cloud in (usual, limited, cut, broken):
            make_world(client_of(cloud.server.url, ADMIN_KEY))
        nobody = powerless(usual.server)
        for code, quota in QUOTAS.items():
            if quota.adjustable:
                post(limited.server, "quotas", {"code": code, "value": 0})
        cut.store.reachable = slow.store.reachable = False
        break_(broken.server)
        holding = stack.enter_context(ThreadPoolExecutor(1)).submit(hold_the_only_place, slow.server)
        client = client_of(slow.server.url, ADMIN_KEY)
        eventually(lambda: refused_as(client) == "TooManyRequestsException", what="the place being taken")
        yield [
            Part(
                usual.server.url,
                ADMIN_KEY,
                {
                    "BadRequestException": bad_request,
                    "NotFoundException": not_found,
                    "ConflictException": conflict,
                    "ResourceInUseException": in_use,
                    "TooManyTagsException": too_many_tags,
                },
            ),
            Part(usual.server.url, nobody, {"ForbiddenException": as_usual}),
            Part(limited.server.url, ADMIN_KEY, {"LimitExceededException": limit_exceeded}),
            Part(slow.server.url, ADMIN_KEY, {"TooManyRequestsException": as_usual}),
            Part(cut.server.url, ADMIN_KEY, {"ServiceUnavailableException": as_usual}),
            Part(broken.server.url, ADMIN_KEY, {"InternalServerErrorException": as_usual}),
        ]
        cut.store.reachable = slow.store.reachable = True
        holding.result(HELD_S)


def powerless(server: Server) -> tuple[str, str]:
    """A key of a user without any policy."""
    post(server, "iam/users", {"user": "nobody"})
    key = post(server, "access-keys", {"user": "nobody"})
    return key["access_key_id"], key["secret_access_key"]


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = asyncio.run(ask(server, "POST", f"/meshlog/v1/{path}", body))
    assert reply.status == 200, reply
    document: dict[str, Any] = reply.document
    return document


def hold_the_only_place(server: Server) -> None:
    """A write that waits for the store, and so keeps its caller from doing anything else meanwhile."""
    client = client_of(server.url, ADMIN_KEY)
    while True:
        try:
            client.create_mesh(meshName="held")
        except client.exceptions.TooManyRequestsException:
            continue  # somebody looked whether it was taken yet
        return


def refused_as(client: Any) -> str:
    """With which error a read is refused."""
    try:
        client.list_meshes()
    except ClientError as refused:
        code: str = refused.response["Error"]["Code"]
        return code
    return ""


def break_(server: Server) -> None:
    """From now on whatever reads or writes runs into a bug."""

    async def bug(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    server.replica.confirmed = bug  # type: ignore[method-assign]
    server.app.state.commands.submit = bug


def client_of(url: str, key: tuple[str, str], service: str = "appmesh") -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}, read_timeout=HELD_S),
    )


def make_world(client: Any) -> None:
    for title in SPECS:
        call(client, f"Create{title}", members_of(f"Create{title}"))


def call(client: Any, operation: str, members: dict[str, Any]) -> Any:
    return getattr(client, xform_name(operation))(**members)


def argv(operation: str, members: dict[str, Any]) -> list[str]:
    """The aws CLI's arguments for a call."""
    words = ["appmesh", xform_name(operation, "-")]
    for name, value in members.items():
        words += [f"--{xform_name(name, '-')}", value if isinstance(value, str) else json.dumps(value)]
    return [*words, *(["--no-paginate"] if "nextToken" in members else [])]


def environment(part_url: str, key: tuple[str, str]) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_APP_MESH": part_url,
        "AWS_ACCESS_KEY_ID": key[0],
        "AWS_SECRET_ACCESS_KEY": key[1],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_MAX_ATTEMPTS": "1",
    }


def life(account: str = ACCOUNT) -> Iterator[Call]:
    """Every operation once or more, all of which succeed where `account` has no mesh `m`."""
    tags = [{"key": "team", "value": "mesh"}]
    for title in SPECS:
        yield f"Create{title}", {**members_of(f"Create{title}"), "tags": tags}
        yield f"Describe{title}", members_of(f"Describe{title}")
        plural = next(name for name, facts in OPERATIONS.items() if name.startswith("List") and facts.kind
                      and facts.kind.title == title)  # fmt: skip
        yield plural, members_of(plural)
    for operation in ("TagResource", "ListTagsForResource", "UntagResource"):
        yield operation, {**members_of(operation), "resourceArn": ARN.replace(ACCOUNT, account)}
    for title, spec in OTHER_SPECS.items():
        yield f"Update{title}", {**members_of(f"Update{title}"), "spec": spec}
    for title in reversed(SPECS):
        yield f"Delete{title}", members_of(f"Delete{title}")


def assert_lives(answers: list[tuple[Call, Any]], account: str = ACCOUNT) -> None:
    """What each of `life` was answered with, as a client decoded it."""
    assert {operation for (operation, _), _ in answers} == set(OPERATIONS)
    for (operation, members), answer in answers:
        facts = OPERATIONS[operation]
        if facts.payload is not None:
            resource = answer[facts.payload]
            assert resource["status"]["status"] == ("DELETED" if operation.startswith("Delete") else "ACTIVE")
            if "spec" in members:
                assert resource["spec"] == members["spec"]
            assert resource["metadata"]["meshOwner"] == resource["metadata"]["resourceOwner"] == account
        elif facts.kind is not None:
            assert "m" in [ref["meshName"] for ref in answer[facts.kind.plural]]
        elif operation == "ListTagsForResource":
            assert answer["tags"] == [{"key": "k", "value": "v"}, {"key": "team", "value": "mesh"}]


def cases(part: Part) -> Iterator[tuple[str, str, list[Call]]]:
    """(operation, code, calls) of a part."""
    for operation in OPERATIONS.values():
        for code in operation.errors:
            if code in part.errors and (operation.name, code) not in NEVER:
                yield operation.name, code, part.errors[code](operation.name)
