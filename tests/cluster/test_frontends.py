"""Frontends are members through the projector that serves them, and a move leaves no gap and no ghost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.frontends import FrontendRegistrations
from cluster.members import list_members
from runtime.clock import SystemClock, SystemEntropy
from runtime.supervise import Supervisor
from tests.conditions import PATIENCE_S
from tests.etcd_cluster import EtcdCluster

PREFIX = "/meshlog/"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EtcdConnection]:
    with EtcdCluster(tmp_path, size=1) as etcd:
        members = [EtcdMember(zone, address) for zone, address in etcd.endpoints]
        connection = EtcdConnection(members, "z1", None, SystemClock(), SystemEntropy())
        yield connection
        connection.close()


def projector(store: EtcdConnection, supervisor: Supervisor) -> FrontendRegistrations:
    return FrontendRegistrations(store, PREFIX, level=1, build="0.1.0", clock=SystemClock(), supervisor=supervisor)


async def until_listed(store: EtcdConnection, expected: list[tuple[str, str]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while [(found.id, found.address) for found in await list_members(store, PREFIX, "frontend")] != expected:
            pass


async def test_a_frontend_is_listed_while_it_is_connected(store: EtcdConnection) -> None:
    async with Supervisor() as supervisor:
        registry = projector(store, supervisor)
        registry.frontend_connected("frontend-z1", "z1", "127.0.0.1:7412")
        await until_listed(store, [("frontend-z1", "127.0.0.1:7412")])
        registry.frontend_connected("frontend-z1", "z1", "127.0.0.1:7499")
        await until_listed(store, [("frontend-z1", "127.0.0.1:7499")])
        registry.frontend_disconnected("frontend-z1")
        await until_listed(store, [])
        registry.frontend_disconnected("frontend-z1")


async def test_a_frontend_that_moved_to_another_projector_stays_listed_when_the_old_one_lets_go(
    store: EtcdConnection,
) -> None:
    async with Supervisor() as old_tasks, Supervisor() as new_tasks:
        old, new = projector(store, old_tasks), projector(store, new_tasks)
        old.frontend_connected("frontend-z1", "z1", "127.0.0.1:1")
        await until_listed(store, [("frontend-z1", "127.0.0.1:1")])
        new.frontend_connected("frontend-z1", "z1", "127.0.0.1:2")
        await until_listed(store, [("frontend-z1", "127.0.0.1:2")])
        old.frontend_disconnected("frontend-z1")
        await old_tasks.close()
        await until_listed(store, [("frontend-z1", "127.0.0.1:2")])
