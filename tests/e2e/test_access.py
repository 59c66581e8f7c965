"""Rights and keys on a real cluster: what one API server was told counts on all three, from its answer on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from chaos.cluster import Cluster

USER = "e2e-access"


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> Iterator[list[Any]]:
    """A boto3 client for each API server, all with one key of a user who may do nothing."""
    made = json.loads(cluster.run("iam", "key", "create", "--user", USER, "-o", "json"))
    yield [
        boto3.client(
            "appmesh",
            endpoint_url=url,
            region_name=cluster.environment()["AWS_REGION"],
            aws_access_key_id=made["access_key_id"],
            aws_secret_access_key=made["secret_access_key"],
            config=Config(connect_timeout=2.0, read_timeout=10.0, retries={"total_max_attempts": 1}),
        )
        for url in cluster.api_urls()
    ]
    cluster.run("iam", "key", "delete", made["access_key_id"], "--yes")
    cluster.run("iam", "user", "delete", USER)


def codes(clients: list[Any], call: Callable[[Any], Any]) -> list[str]:
    """What each server says: an error's code, or 'done'."""
    found = []
    for client in clients:
        try:
            call(client)
        except ClientError as error:
            found.append(error.response["Error"]["Code"])
        else:
            found.append("done")
    return found


def test_what_is_given_and_taken_counts_on_every_server_at_once(cluster: Cluster, clients: list[Any]) -> None:
    assert codes(clients, lambda client: client.list_meshes()) == ["ForbiddenException"] * 3
    for _ in range(2):
        cluster.run("iam", "policy", "attach", "AWSAppMeshFullAccess", "--user", USER)
        assert codes(clients, lambda client: client.list_meshes()) == ["done"] * 3
        assert codes(clients[2:], lambda client: client.create_mesh(meshName=USER)) == ["done"]
        assert codes(clients[:1], lambda client: client.delete_mesh(meshName=USER)) == ["done"]
        cluster.run("iam", "policy", "detach", "AWSAppMeshFullAccess", "--user", USER)
        assert codes(clients[::-1], lambda client: client.create_mesh(meshName=USER)) == ["ForbiddenException"] * 3
        assert codes(clients, lambda client: client.list_meshes()) == ["ForbiddenException"] * 3
    log = cluster.run("log", "--actor", USER)
    assert "ResourceDeleted" in log, "who did it is in the log"


def test_a_key_that_is_disabled_opens_no_server_any_more(cluster: Cluster, clients: list[Any]) -> None:
    (key,) = json.loads(cluster.run("iam", "key", "list", "--user", USER, "-o", "json"))
    cluster.run("iam", "key", "disable", key["access_key_id"], "--yes")
    assert codes(clients, lambda client: client.list_meshes()) == ["InvalidClientTokenId"] * 3
    cluster.run("iam", "key", "enable", key["access_key_id"])
    assert codes(clients, lambda client: client.list_meshes()) == ["ForbiddenException"] * 3
