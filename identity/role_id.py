"""Which role a process plays, as its certificate says it: `spiffe://<trust-domain>/role/<role>`. Pure text to value."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROLE_API = "api"
ROLE_FRONTEND = "frontend"
ROLE_PROJECTOR = "projector"

_ROLE = re.compile(r"spiffe://(?P<domain>[^/]+)/role/(?P<role>[a-z][a-z0-9-]*)")


def role_of(uris: Iterable[str], trust_domain: str) -> str | None:
    """The one role that a certificate's URI SANs name; None when they name none, or more than one."""
    roles = {match["role"] for uri in uris if (match := _ROLE.fullmatch(uri)) and match["domain"] == trust_domain}
    return roles.pop() if len(roles) == 1 else None
