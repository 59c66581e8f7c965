"""Every operation with success, through boto3 and the aws CLI, and with each error that the model declares, through
boto3. (`test_operations_aws_cli` meets the errors through the CLI too: `make test-long`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from mesh.model.operations import OPERATIONS, SHAPES
from tests.aws_cli import run_all
from tests.clients.operations import (
    ADMIN_KEY,
    NEVER,
    Part,
    argv,
    assert_lives,
    call,
    cases,
    client_of,
    environment,
    life,
    provoking,
)
from tests.clients.servers import api_server


@pytest.fixture
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Part]]:
    with provoking(tmp_path_factory.mktemp) as parts:
        yield parts


def test_every_operation_succeeds_through_boto3_and_the_aws_cli(tmp_path: Path) -> None:
    with api_server(tmp_path) as cloud:
        client = client_of(cloud.server.url, ADMIN_KEY)
        calls = list(life())
        assert_lives([((operation, members), call(client, operation, members)) for operation, members in calls])
        ran = run_all([argv(*each) for each in calls], environment(cloud.server.url, ADMIN_KEY))
        assert [each.err for each in ran if each.code] == []
        assert_lives([(made, json.loads(each.out or "{}")) for made, each in zip(calls, ran, strict=True)])


def test_every_declared_error_through_boto3(parts: list[Part]) -> None:
    met = set()
    for part in parts:
        client = client_of(part.url, part.key)
        for operation, code, calls in cases(part):
            for made in calls[:-1]:
                with suppress(ClientError):
                    call(client, *made)
            with pytest.raises(getattr(client.exceptions, code)) as caught:
                call(client, *calls[-1])
            response = caught.value.response
            assert response["Error"]["Code"] == code
            assert response["Error"]["Message"]
            assert response["ResponseMetadata"]["HTTPStatusCode"] == SHAPES[code]["status"], (operation, code)
            assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == code
            assert response["ResponseMetadata"]["RequestId"]
            met.add((operation, code))
    assert met | NEVER.keys() == {(name, code) for name, facts in OPERATIONS.items() for code in facts.errors}
