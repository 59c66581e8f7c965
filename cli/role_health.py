"""What every role has: its addresses, its health port, and what it says of itself there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any, Protocol

from prometheus_client import REGISTRY

from mesh.events import LEVEL
from mesh.position import Position
from runtime.health import Check, HealthServer
from runtime.listen import check_free
from runtime.settings import ApiSettings, ProcessSettings, split_address

BUILD = version("meshlog")


class Folding(Protocol):
    """What is used of `projector.replica.Replica`."""

    @property
    def ready(self) -> bool: ...

    @property
    def halted(self) -> str | None: ...


def status_of(settings: ProcessSettings, position: Position) -> dict[str, Any]:
    """What every role says of itself on /status."""
    return {
        "role": settings.role,
        "id": settings.id,
        "zone": settings.zone,
        "pid": os.getpid(),
        "build": BUILD,
        "level": LEVEL,
        "epoch": position.epoch,
        "position": position.position,
    }


def fold_checks(replica: Folding) -> dict[str, Check]:
    """Ready when the log is folded up to its head, and goes on being folded."""
    return {
        "log": lambda: None if replica.ready else "the log is not folded up to its head yet",
        "fold": lambda: replica.halted,
    }


def check_addresses(settings: ProcessSettings) -> None:
    """SettingsError naming an address that is taken, before anything else starts."""
    check_free(settings.listen, "listen")
    check_free(settings.health, "health")
    if isinstance(settings, ApiSettings) and settings.peer_listen:
        check_free(settings.peer_listen, "peer_listen")


async def serve_health(
    stack: AsyncExitStack,
    settings: ProcessSettings,
    checks: Mapping[str, Check],
    status: Callable[[], Mapping[str, Any]],
) -> HealthServer:
    """Serve the health port until the stack is left."""
    health = HealthServer(checks, status, REGISTRY)
    host, port = split_address(settings.health, "health")
    await health.start(host, port)
    stack.push_async_callback(health.stop)
    return health
