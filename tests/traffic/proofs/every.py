"""All proofs, registered by import."""

from __future__ import annotations

from tests.traffic.proofs import routes

__all__ = ("routes",)
