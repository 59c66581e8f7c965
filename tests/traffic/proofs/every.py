"""All proofs, registered by import."""

from __future__ import annotations

from tests.traffic.proofs import discovery, outliers, pools, retries, rewrites, routes, services, timeouts

__all__ = ("discovery", "outliers", "pools", "retries", "rewrites", "routes", "services", "timeouts")
