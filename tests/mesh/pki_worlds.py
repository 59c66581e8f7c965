"""Certificate authorities and certificates for tests, without any cryptography: the domain never looks into PEM."""

from __future__ import annotations

from typing import Any

from mesh.certificates import Root
from mesh.commands import Command
from mesh.commands_pki import (
    CreateAuthority,
    DeleteCertificate,
    DropRoot,
    ImportCertificate,
    IssueCertificate,
    PromoteRoot,
    RetireAuthority,
    RotateAuthority,
)
from tests.mesh.worlds import ACCOUNT, START_US

DAY_US = 24 * 3600 * 1_000_000
CA = f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/ca-1"
CERT = f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/cert-1"


def root(number: int = 1, **fields: Any) -> Root:
    whole: dict[str, Any] = {"not_before_us": START_US, "not_after_us": START_US + 3650 * DAY_US}
    return Root(f"{number:064x}", f"root {number} in PEM", **{**whole, **fields})


def rooted(arn: str = CA, name: str = "shop", number: int = 1, secret: str | None = "") -> CreateAuthority:
    return CreateAuthority(arn, name, root(number), f"the key of root {number}" if secret == "" else secret)


def rotated(number: int = 2, arn: str = CA) -> RotateAuthority:
    return RotateAuthority(arn, root(number), f"the key of root {number}")


def issued(arn: str = CERT, under: int = 1, **fields: Any) -> IssueCertificate:
    whole: dict[str, Any] = {
        "domain": "cart.internal",
        "names": ("*.cart.internal",),
        "authority": CA,
        "root": root(under).id,
        "chain": "a certificate in PEM",
        "secret": "the key of a certificate",
        "serial": f"{under:02x}",
        "not_before_us": START_US,
        "not_after_us": START_US + 90 * DAY_US,
        "create": True,
    }
    return IssueCertificate(arn, **{**whole, **fields})


def imported(arn: str, **fields: Any) -> ImportCertificate:
    whole: dict[str, Any] = {
        "names": ("old.internal",),
        "chain": "a chain in PEM",
        "secret": "the key of another",
        "serial": "ff",
        "not_before_us": START_US,
        "not_after_us": START_US + 30 * DAY_US,
        "create": True,
    }
    return ImportCertificate(arn, **{**whole, **fields})


PKI_COMMANDS: tuple[Command, ...] = (
    rooted(),
    issued(),
    rotated(),
    PromoteRoot(CA, root(2).id),
    issued(under=2, create=False),
    DropRoot(CA, root(1).id),
    imported(CERT + "-old"),
    DeleteCertificate(CERT + "-old"),
    DeleteCertificate(CERT),
    RetireAuthority(CA),
)
"""The life of an authority; done in this order, each is possible."""
