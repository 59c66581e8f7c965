"""One house of each kind: files, moto for AWS KMS, a stand-in for Vault's Transit engine, a program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.eventlog.keys.houses import CommandHouse, FileHouse, House, KmsHouse, VaultHouse, moto_server, transit_binary
from tests.eventlog.keys.transit import Transit, serving

_names = count(1)


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """KMS as boto finds it: credentials from the environment."""
    with pytest.MonkeyPatch.context() as patch, moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "an example's secret")
        yield url


@pytest.fixture(scope="session")
def transit_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stand-in, or Vault's own Transit code where MESHLOG_TEST_TRANSIT names its program (`make test-transit`)."""
    program = os.environ.get("MESHLOG_TEST_TRANSIT")
    if program:
        with transit_binary(program, tmp_path_factory.mktemp("transit") / "log") as url:
            yield url
        return
    with serving(Transit()) as url:
        yield url


@pytest.fixture(params=["file", "aws-kms", "vault", "command"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    name = f"key-{next(_names)}"
    if request.param == "aws-kms":
        return KmsHouse(request.getfixturevalue("moto_url"), name)
    if request.param == "vault":
        return VaultHouse(request.getfixturevalue("transit_url"), name, tmp_path)
    return FileHouse(tmp_path) if request.param == "file" else CommandHouse(tmp_path)
