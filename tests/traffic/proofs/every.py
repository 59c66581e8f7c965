"""All proofs, registered by import."""

from __future__ import annotations

from tests.traffic.proofs import (
    discovery,
    health,
    logs,
    outliers,
    pools,
    registry,
    retries,
    rewrites,
    routes,
    services,
    timeouts,
    tls,
)

__all__ = (
    "discovery",
    "health",
    "logs",
    "outliers",
    "pools",
    "registry",
    "retries",
    "rewrites",
    "routes",
    "services",
    "timeouts",
    "tls",
)
