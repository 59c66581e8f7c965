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
