"""Who calls: the values that authentication gives and authorisation takes. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class SessionFacts(NamedTuple):
    """What temporary credentials add to who somebody is. `policy`, a JSON text as given,
    can only take rights away; None takes none."""

    name: str
    expires_us: int
    policy: str | None = None
    issued_us: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed.

    `principal` is the ARN to show (a user's, or `arn:aws:sts::<account>:assumed-role/<role>/<session>`); `identity` the
    ARN whose policies count (the user's or the role's, `arn:aws:iam::…`). `admin`: an account's root key. `region` is
    the one that the caller signed for. `session` is None for a long-lived key.
    """

    account: str
    principal: str
    identity: str
    access_key_id: str
    admin: bool
    region: str
    session: SessionFacts | None = None
