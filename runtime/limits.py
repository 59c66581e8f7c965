"""Every bound of the running parts, in one place, each with its reason. (The domain's own bounds are in mesh/limits.py.)"""

from __future__ import annotations

# --- runtime
SHUTDOWN_GRACE_S = 5.0
"""How long a role may take to finish what is in flight after SIGTERM."""
