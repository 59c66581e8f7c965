"""What is asked of certificate authorities and certificates, as values: part of `mesh.commands`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.certificates import Root


@dataclass(frozen=True, slots=True)
class CreateAuthority:
    """Make a certificate authority with its first root. Without `secret` (PEM) it is only believed, and issues none."""

    arn: str
    name: str
    root: Root
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RotateAuthority:
    """Let another root be believed beside the one that there is: the first step of a rotation."""

    arn: str
    root: Root
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PromoteRoot:
    """Issue certificates under the newest root from here on; the caller knows that it is believed everywhere."""

    arn: str
    root: str


@dataclass(frozen=True, slots=True)
class DropRoot:
    """Let a root be believed no more. One that is not there is no error."""

    arn: str
    root: str


@dataclass(frozen=True, slots=True)
class RetireAuthority:
    """Delete a certificate authority that nobody needs any more, with its keys."""

    arn: str


@dataclass(frozen=True, slots=True)
class IssueCertificate:
    """Put on record a certificate that the shell has issued under `root` of `authority`; `create`: it is a new one.

    Otherwise it replaces one, whose names it has: the one of version `seen`, if that is said. `chain` and `secret` (its
    key) are PEM.
    """

    arn: str
    domain: str
    names: tuple[str, ...]
    authority: str
    root: str
    chain: str
    secret: str = field(repr=False)
    serial: str
    not_before_us: int
    not_after_us: int
    create: bool = False
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class ImportCertificate:
    """Put on record a certificate from elsewhere, with its chain and key; `create`: it must not be there yet."""

    arn: str
    names: tuple[str, ...]
    chain: str
    secret: str = field(repr=False)
    serial: str
    not_before_us: int
    not_after_us: int
    create: bool = False


@dataclass(frozen=True, slots=True)
class DeleteCertificate:
    """Delete a certificate that no specification names."""

    arn: str
