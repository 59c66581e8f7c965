"""The ARNs of ACM and of its private CA in specifications: from names to secrets that this control plane serves itself.

A certificate's secret is named by its ARN and has its chain and key: it is in the snapshot of whoever shows it, and of
nobody else. What callers believe is a secret too, named by the authorities' ARNs, with every root that they have: while
an authority is rotated, the old and the new. Both come over ADS, so a change is a push of that secret alone.

A node shows certificates of the account that made it. Roots are nobody's secret: it may believe those of any account
that takes part in the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesh.certificates import AUTHORITY, CERTIFICATE, Authority, Certificate, pki_name
from mesh.limits import VALUE_SHOWN_CHARS
from mesh.state import Resource
from projector.envoy.plans import (
    CertificatePlan,
    ClusterPlan,
    IdentityPlan,
    ListenerPlan,
    TrustPlan,
    ValidationPlan,
)
from projector.envoy.view import View

_BETWEEN = ","
"""Stands between the ARNs in a secret's name."""


def certificate_of(view: View, owner: Resource, arn: str) -> Certificate | str:
    """The certificate that `owner` names, or why it cannot have it."""
    found = view.certificate(arn)
    name = pki_name(arn)
    if name is None or name.kind != CERTIFICATE:
        return f"is {_shown(arn)}, which is no certificate's ARN"
    if name.account != owner.owner:
        return f"is {arn}, which is of account {name.account}, and this was made by {owner.owner}"
    if found is None:
        return f"is {arn}, which does not exist: `meshlog pki certificate create --arn` makes it"
    return found


def shown(certificate: Certificate) -> CertificatePlan:
    """That the node shows this certificate."""
    return CertificatePlan(secret=certificate.arn, ours=True)


def authorities_of(view: View, owner: Resource, arns: Sequence[str]) -> tuple[list[Authority], list[str]]:
    """The authorities that `owner` names and may believe; and of each other one, why not."""
    found: list[Authority] = []
    missing: list[str] = []
    for arn in dict.fromkeys(arns):
        name, authority = pki_name(arn), view.authority(arn)
        if name is None or name.kind != AUTHORITY:
            missing.append(f"has {_shown(arn)}, which is no certificate authority's ARN")
        elif name.account != owner.owner and not view.takes_part(name.account):
            missing.append(f"has {arn}, which is of account {name.account}, and the mesh is not shared with it")
        elif authority is None:
            missing.append(f"has {arn}, which does not exist: `meshlog pki ca create --arn` makes it")
        else:
            found.append(authority)
    return found, missing


def believed(authorities: Sequence[Authority], names: tuple[str, ...]) -> ValidationPlan:
    """Whoever shows a certificate under any root of these is believed, if it is for one of `names` (none: for any)."""
    return ValidationPlan(secret=_BETWEEN.join(authority.arn for authority in authorities), names=names, ours=True)


def secrets(
    view: View, clusters: Iterable[ClusterPlan], listeners: Iterable[ListenerPlan]
) -> tuple[IdentityPlan | TrustPlan, ...]:
    """The secrets of ours that these name: the node's own certificates, and whom it believes."""
    plans = [cluster.tls for cluster in clusters]
    plans += [chain.tls for listener in listeners for chain in listener.chains]
    shown = {tls.certificate.secret for tls in plans if tls and tls.certificate and tls.certificate.ours}
    trusted = {tls.validation.secret for tls in plans if tls and tls.validation and tls.validation.ours}
    found: list[IdentityPlan | TrustPlan | None] = [view.part(identity, arn) for arn in sorted(shown)]
    found += [view.part(trust, name) for name in sorted(trusted)]
    return tuple(plan for plan in found if plan is not None)


def identity(view: View, arn: str) -> IdentityPlan | None:
    """A certificate with its key. A part."""
    certificate = view.certificate(arn)
    return IdentityPlan(arn, certificate.chain, certificate.secret) if certificate else None


def trust(view: View, name: str) -> TrustPlan:
    """All roots of the authorities that a secret is named by. A part."""
    authorities = [view.authority(arn) for arn in name.split(_BETWEEN)]
    roots = (root.certificate.strip() for each in authorities if each is not None for root in each.trusted())
    return TrustPlan(name, tuple(dict.fromkeys(roots)))


def _shown(arn: str) -> str:
    return f"'{arn[:VALUE_SHOWN_CHARS]}'"
