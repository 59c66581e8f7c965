"""The admin key of a cluster: made once, kept in `credentials.json` (0600), first event of the log."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from identity.access_key import draw_key
from mesh.errors import SettingsError
from runtime.clock import Entropy
from runtime.files import PRIVATE, read_private, write_atomic


@dataclass(frozen=True, slots=True)
class AdminCredentials:
    """An access key that may do everything in its account. `repr` leaves the secret out."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    account_id: str
    region: str
    session_token: str = field(default="", repr=False)
    """Of temporary credentials (STS); never in a file."""


def create_credentials(account_id: str, region: str, entropy: Entropy) -> AdminCredentials:
    """A new key."""
    return AdminCredentials(*draw_key(entropy), account_id, region)


def save_credentials(path: Path, key: AdminCredentials) -> None:
    document = dataclasses.asdict(key)
    del document["session_token"]
    write_atomic(path, (json.dumps(document, indent=2) + "\n").encode(), PRIVATE)


def load_credentials(path: Path) -> AdminCredentials:
    """Read what `save_credentials` wrote; SettingsError if it is missing, damaged or open to others."""
    try:
        return AdminCredentials(**json.loads(read_private(path)))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{path} is not a credentials file of Meshlog: restore it from a backup") from error
