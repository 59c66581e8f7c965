"""What App Mesh put where a spec says nothing: values that users' traffic depends on and no API shows.

Sources: the user guide (envoy-defaults, routes, virtual_nodes) and published config dumps.
"""

from __future__ import annotations

from projector.envoy.plans import RetryPlan

REQUEST_TIMEOUT_MS = 15_000
LOCAL_CONNECT_TIMEOUT_MS = 250
EGRESS_CONNECT_TIMEOUT_MS = 1_000
SNIFF_TIMEOUT_MS = 1_000
"""Ours: how long a connection to a port that HTTP and other TCP share may stay silent before it is taken for TCP."""
NO_LIMIT = 2_147_483_647
"""Circuit breakers: App Mesh's "no limit"."""

PRIORITY = 1_000
"""A route without a priority comes after those with one (0 is first, 1000 last)."""

RETRY = RetryPlan(
    retry_on=("reset", "unavailable", "connect-failure", "refused-stream", "retriable-status-codes"),
    status_codes=(503,),
    max_retries=2,
    per_try_timeout_ms=None,
)
"""For a route without a retry policy, and a virtual service that a virtual node provides."""

HOST_SELECTION_ATTEMPTS = 5

AMAZON_HOSTS = "*.amazonaws.com"
TLS_PORT = 443

MAX_DURATION_MS = 365 * 24 * 3_600 * 1_000
"""A year. Longer durations are cut to it: Envoy rejects what overflows its clock, and no request lives that long."""

MAX_UINT32 = 4_294_967_295
"""Counts in specs have no upper bound, Envoy's are 32 bits wide."""
