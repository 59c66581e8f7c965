"""Options that several rooms' tests share."""

from __future__ import annotations

import grpc
import pytest


@pytest.fixture(scope="session", autouse=True)
def _grpc_aio_for_the_whole_session() -> None:
    """Hold one reference to grpc.aio's poller.

    Without it the last channel's deallocation, wherever the garbage collector finds it, stops the poller and joins its
    thread, which can then wait for this one for ever. A role always holds a server or a channel, so it never stops one.
    """
    grpc.aio.init_grpc_aio()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write golden files anew instead of comparing with them; read the diff as a change of behaviour",
    )


_ONE_AFTER_THE_OTHER = ("tests/e2e/", "tests/deploy/", "tests/cli/test_local_cluster.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers: one runs what starts whole clusters, first and one after the other, one runs the rest by file."""
    for item in items:
        whole_cluster = item.nodeid.startswith(_ONE_AFTER_THE_OTHER)
        item.add_marker(pytest.mark.xdist_group("clusters" if whole_cluster else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: not item.nodeid.startswith(_ONE_AFTER_THE_OTHER))
