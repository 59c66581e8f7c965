"""Who there is and what they may do, as the state keeps it: access keys, users, roles and policies. Values only.

Policy documents are JSON texts, kept verbatim as AWS does; `mesh.iam` reads and evaluates them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

IAM = "iam"
"""The service of actions about access."""

_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):(?P<kind>user|role|policy)/(?P<name>[A-Za-z0-9_+=,.@-]{1,128})")


class AccessKey(NamedTuple):
    """A SigV4 key pair that Meshlog issued. `principal` is an ARN; times are log times.

    `disabled_us`: since when it opens nothing; None while it does. `used_us`: the hour of its last known use.
    """

    access_key_id: str
    secret: str
    account: str
    principal: str
    admin: bool
    created_us: int = 0
    disabled_us: int | None = None
    used_us: int | None = None

    def __repr__(self) -> str:
        return f"AccessKey({self.access_key_id})"


class Principal(NamedTuple):
    """A user or a role. `policies`: ARNs of attached managed policies, sorted; `inline`: (name, document), by name.

    `trust`: who may assume it, a role's; None for a user.
    """

    arn: str
    account: str
    created_us: int
    policies: tuple[str, ...] = ()
    inline: tuple[tuple[str, str], ...] = ()
    trust: str | None = None


class ManagedPolicy(NamedTuple):
    """A policy of an account's own. `version` counts its documents; the earlier ones are in the log."""

    arn: str
    account: str
    document: str
    version: int
    created_us: int
    updated_us: int


class IamName(NamedTuple):
    """What an ARN of IAM names; `kind`: user, role or policy."""

    account: str
    kind: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:{self.kind}/{self.name}"


def iam_name(arn: str) -> IamName | None:
    """The user, role or policy of an account that `arn` names; None if it names none."""
    match = _ARN.fullmatch(arn)
    return IamName(match["account"], match["kind"], match["name"]) if match else None
