"""Every App Mesh operation on a real cluster, by boto3 at one zone and by the aws CLI at another."""

from __future__ import annotations

import json

from chaos.cluster import Cluster
from tests.aws_cli import run_all
from tests.clients.operations import argv, assert_lives, call, life
from tests.e2e.conftest import Connect


def test_every_operation_by_boto3_and_by_the_aws_cli(cluster: Cluster, connect: Connect) -> None:
    client = connect()
    client.create_mesh(meshName="account")
    account = client.describe_mesh(meshName="account")["mesh"]["metadata"]["meshOwner"]
    client.delete_mesh(meshName="account")
    calls = list(life(account))
    assert_lives([((operation, members), call(client, operation, members)) for operation, members in calls], account)
    environment = connect.environment | {"AWS_ENDPOINT_URL_APP_MESH": connect.urls[1], "AWS_MAX_ATTEMPTS": "1"}
    ran = run_all([argv(*each) for each in calls], environment)
    assert [each.err for each in ran if each.code] == []
    assert_lives([(made, json.loads(each.out or "{}")) for made, each in zip(calls, ran, strict=True)], account)
    changes = [event for event in cluster.log() if event.get("mesh") == "m"]
    per_life = 7 + 7 + 7 + 2  # created, updated, deleted, tagged and untagged
    assert len(changes) == 2 * per_life
