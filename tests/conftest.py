"""Options that several rooms' tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: no property here is about speed.
settings.register_profile("meshlog", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meshlog")


@pytest.fixture(scope="session", autouse=True)
def _grpc_aio_for_the_whole_session() -> None:
    """Hold one reference to grpc.aio's poller.

    Without it the last channel's deallocation, wherever the garbage collector finds it, stops the poller and joins its
    thread, which can then wait for this one for ever. A role always holds a server or a channel, so it never stops one.
    """
    grpc.aio.init_grpc_aio()


@pytest.fixture(autouse=True)
def _collections_go_on() -> Iterator[None]:
    """A test that ends in the middle of a load must not leave the garbage collector off for all that follow."""
    yield
    gc.enable()


def pytest_configure() -> None:
    # Tests start hundreds of processes: each would compile every module anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


LONG = (
    "runbooks/test_bad_change.py",
    "runbooks/test_damaged_record.py",
    "runbooks/test_lost_key.py",
    "runbooks/test_lost_member.py",
    "e2e/test_access.py",
    "e2e/test_archive.py",
    "e2e/test_key_providers.py",
    "e2e/test_key_rotation.py",
    "e2e/test_linearizability.py",
    "e2e/test_shared_mesh.py",
    "e2e/test_out_of_space.py",
    "e2e/test_stopped_replicas.py",
    "e2e/test_total_loss.py",
    "clients/test_operations_aws_cli.py",
    "bench/test_log_append.py",
    "bench/test_log_history.py",
    "eventlog/archive/test_interruptions.py",
    "projector/envoy/test_matches_live.py",
    "projector/envoy/test_tcp_live.py",
    "projector/envoy/test_tls_live.py",
    "projector/test_long_history.py",
    "proxy/test_observability_live.py",
    "traffic/test_certificates_under_load.py",
    "traffic/test_changes_under_load.py",
    "traffic/test_examples.py",
    "traffic/test_fields.py",
    "traffic/test_mutations.py",
    "clients/test_terraform.py",
    "clients/test_walkthrough.py",
)
"""Disasters, damage and figures of the log, and slow clients, that take minutes: `make test-long`, not `make test`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        if item.path.relative_to(root).as_posix() in LONG:
            item.add_marker(pytest.mark.long)
    # What is quick to tell of a fault goes first.
    items.sort(key=lambda item: item.path.is_relative_to(root / "e2e"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write golden files anew instead of comparing with them; read the diff as a change of behaviour",
    )
