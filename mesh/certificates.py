"""Certificate authorities of our own and what they issue, as the state keeps it; their ARNs. Values and pure text.

They stand in for ACM and ACM Private CA: specifications go on naming the ARNs that they named. PEM is kept as text and
never read here; whoever makes it (`cluster.issuing`) says beside it what is in it. Times are microseconds since 1970.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mesh.errors import BadRequest
from mesh.limits import CERTIFICATE_NAME_CHARS, CERTIFICATE_NAMES_MAX, VALUE_SHOWN_CHARS

_ARN = re.compile(
    r"arn:aws[a-z-]*:(?P<service>acm|acm-pca):(?P<region>[a-z0-9-]{1,32}):(?P<account>[0-9]{12}):"
    r"(?P<kind>certificate|certificate-authority)/(?P<id>[A-Za-z0-9-]{1,64})",
    re.ASCII,
)
_SERVICES = {"certificate": "acm", "certificate-authority": "acm-pca"}
CERTIFICATE, AUTHORITY = "certificate", "certificate-authority"
_DNS_NAME = re.compile(
    r"(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+", re.ASCII)


RootValues = tuple[str, str, int, int, int]
"""A `Root` as the state keeps it, plain."""


class Root(NamedTuple):
    """One self-signed (or imported) root of an authority. `id`: SHA-256 of its DER, hex; `certificate`: PEM.

    `added_us`: since when it is told to be believed.
    """

    id: str
    certificate: str
    not_before_us: int
    not_after_us: int
    added_us: int = 0


class Authority(NamedTuple):
    """A certificate authority. `roots` are all that is to be believed, as tuples, oldest first.

    `issuing`: the root that certificates are issued under; '' where its key was never here.
    """

    arn: str
    account: str
    name: str
    roots: tuple[RootValues, ...]
    issuing: str
    created_us: int
    updated_us: int

    def trusted(self) -> list[Root]:
        """All roots, oldest first: two while it is rotated."""
        return [Root(*each) for each in self.roots]

    def root(self, root_id: str) -> Root | None:
        """The root of that id."""
        return next((root for root in self.trusted() if root.id == root_id), None)


class AuthorityKey(NamedTuple):
    """The private key (PEM) of one root: only in roles that open secrets."""

    root: str
    authority: str
    secret: str

    def __repr__(self) -> str:
        return f"AuthorityKey({self.root})"


class Certificate(NamedTuple):
    """A certificate that proxies show, with its key. `names`: what it is for, `domain` first. `chain`, `secret`: PEM.

    `authority` and `root`: who issued it; '' where it was imported. `version` counts its issues.
    """

    arn: str
    account: str
    domain: str
    names: tuple[str, ...]
    authority: str
    root: str
    chain: str
    secret: str
    serial: str
    not_before_us: int
    not_after_us: int
    version: int
    created_us: int
    updated_us: int

    def __repr__(self) -> str:
        return f"Certificate({self.arn}, version {self.version})"


class PkiName(NamedTuple):
    """What an ARN of ACM or ACM PCA names; `kind`: CERTIFICATE or AUTHORITY."""

    kind: str
    region: str
    account: str
    id: str


def pki_arn(kind: str, region: str, account: str, name: str) -> str:
    """`arn:aws:acm:<region>:<account>:certificate/<uuid>`, or acm-pca's for an authority."""
    return f"arn:aws:{_SERVICES[kind]}:{region}:{account}:{kind}/{name}"


def pki_name(arn: str) -> PkiName | None:
    """The certificate or authority that `arn` names; None if it names none."""
    match = _ARN.fullmatch(arn)
    if match is None or _SERVICES[match["kind"]] != match["service"]:
        return None
    return PkiName(match["kind"], match["region"], match["account"], match["id"])


def check_names(domain: str, names: Sequence[str]) -> tuple[str, ...]:
    """All names of a certificate, the domain first and each once; BadRequest for what no certificate can be for.

    A name is a DNS name (`*.` may begin it), an IP address, or a URI.
    """
    found = tuple(dict.fromkeys((domain, *names)))
    if len(found) > CERTIFICATE_NAMES_MAX:
        raise BadRequest(f"names: {len(found)} are more than the {CERTIFICATE_NAMES_MAX} that a certificate may have")
    for name in found:
        if len(name) > CERTIFICATE_NAME_CHARS or not (
            _DNS_NAME.fullmatch(name) or _URI.fullmatch(name) or _is_ip(name)
        ):
            raise BadRequest(
                f"names: '{name[:VALUE_SHOWN_CHARS]}' is no DNS name (such as cart.apps.local or *.apps.local), no IP "
                f"address and no URI of at most {CERTIFICATE_NAME_CHARS} characters"
            )
    return found


def covers(names: Sequence[str], wanted: str) -> bool:
    """Whether a certificate for `names` is taken for `wanted`: as it stands, or by a wildcard for one label."""
    lower = wanted.lower()
    _, _, parent = lower.partition(".")
    mine = {name.lower() for name in names}
    return lower in mine or (bool(parent) and f"*.{parent}" in mine)


def certificate_arns(spec: Mapping[str, Any]) -> Iterator[str]:
    """The certificates that a virtual node's or gateway's listeners show."""
    for listener in spec.get("listeners") or ():
        acm = ((listener.get("tls") or {}).get("certificate") or {}).get("acm")
        if acm:
            yield acm["certificateArn"]


def authority_arns(spec: Mapping[str, Any]) -> Iterator[str]:
    """The authorities that a virtual node's or gateway's client policies believe."""
    backends = ((each.get("virtualService") or {}) for each in spec.get("backends") or ())
    for holder in (spec.get("backendDefaults") or {}, *backends):
        trust = (((holder.get("clientPolicy") or {}).get("tls") or {}).get("validation") or {}).get("trust") or {}
        yield from (trust.get("acm") or {}).get("certificateAuthorityArns") or ()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
