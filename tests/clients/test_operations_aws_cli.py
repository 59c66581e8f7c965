"""Each error that the model declares for an operation, through the real aws CLI: the same calls as boto3 makes."""

from __future__ import annotations

import pytest

from tests.aws_cli import run_all
from tests.clients.operations import argv, cases, environment, provoking

CLIENT_ERROR = 255
"""What `aws` exits with when the service refuses."""


@pytest.mark.timeout(600)
def test_every_declared_error_through_the_aws_cli(tmp_path_factory: pytest.TempPathFactory) -> None:
    with provoking(tmp_path_factory.mktemp) as parts:
        for part in parts:
            found = [(operation, code, each) for operation, code, calls in cases(part) for each in calls]
            commands = [argv(*made) for *_, made in found]
            last = {(operation, code): index for index, (operation, code, _) in enumerate(found)}
            ran = run_all(commands, environment(part.url, part.key))
            for (operation, code), index in last.items():
                assert ran[index].code == CLIENT_ERROR, (operation, code, ran[index])
                said = f"An error occurred ({code}) when calling the {operation} operation"
                assert said in ran[index].err, ran[index]
