"""Whether callers will take the certificate that a server of ours shows: said in alarms before any handshake fails.

Only what the state knows is judged: certificates and authorities of Meshlog's own. Nothing is held back for it: the
peers' own validation decides, and a mend of either side goes out as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesh.certificates import Authority, Certificate, covers
from mesh.in_use import listed
from mesh.state import Resource
from projector.envoy.view import View

_FIELD = "spec.listeners[].tls.certificate.acm"


def check_served(
    view: View, target: Resource, certificate: Certificate, names: Sequence[str], believed: Sequence[Authority] | None
) -> None:
    """Alarm where the certificate of `target` is for none of the `names` that a caller verifies (none: any will do),
    and where its issuer is not among what the caller believes (None: that is not ours to know)."""
    if names and not any(covers(certificate.names, name) for name in names):
        view.alarm(
            target,
            _FIELD,
            f"{certificate.arn} is for {listed(certificate.names)} and for none of {listed(names)}, which callers "
            "verify: they are refused. Issue one with that name, or name the certificate's own in the client policy",
        )
    if believed is not None and certificate.authority and certificate.authority not in {ca.arn for ca in believed}:
        view.alarm(
            target,
            _FIELD,
            f"{certificate.arn} is issued by {certificate.authority}, which is not among the authorities that callers "
            "believe: they are refused. Add it to the client policy's certificateAuthorityArns",
        )


def check_life(view: View, owner: Resource, certificate: Certificate) -> None:
    """Alarm where a certificate outlives what it is believed by."""
    authority = view.authority(certificate.authority) if certificate.authority else None
    root = authority.root(certificate.root) if authority else None
    if authority is not None and root is None:
        view.alarm(owner, _FIELD, f"{certificate.arn} is under a root that {authority.arn} has no more: issue it again")
    elif authority is not None and root is not None and certificate.not_after_us > root.not_after_us:
        view.alarm(
            owner,
            _FIELD,
            f"{certificate.arn} outlives the root that issued it: rotate {authority.arn} before that expires",
        )
