"""Authorities and certificates as documents for people: everything but their keys. Pure."""

from __future__ import annotations

from typing import Any

from api.history import iso
from mesh.certificates import Authority, Certificate, certificate_arns
from mesh.state import State

ISSUED, IMPORTED, EXPIRED = "issued", "imported", "expired"


def authority_document(state: State, authority: Authority) -> dict[str, Any]:
    """{arn, name, issuing, rotating, roots: [{id, not_before, not_after, added, certificate}], certificates, …}."""
    return {
        "arn": authority.arn,
        "name": authority.name,
        "issuing": authority.issuing or None,
        "rotating": len(authority.roots) > 1,
        "roots": [
            {
                "id": root.id,
                "not_before": iso(root.not_before_us),
                "not_after": iso(root.not_after_us),
                "added": iso(root.added_us),
                "certificate": root.certificate,
            }
            for root in authority.trusted()
        ],
        "certificates": sum(each.authority == authority.arn for each in state.certificates.values()),
        "created": iso(authority.created_us),
        "updated": iso(authority.updated_us),
    }


def certificate_document(certificate: Certificate, now_us: int) -> dict[str, Any]:
    """{arn, domain, names, authority, root, serial, version, status, not_before, not_after, created, updated}."""
    status = ISSUED if certificate.authority else IMPORTED
    return {
        "arn": certificate.arn,
        "domain": certificate.domain,
        "names": list(certificate.names),
        "authority": certificate.authority or None,
        "root": certificate.root or None,
        "serial": certificate.serial,
        "version": certificate.version,
        "status": EXPIRED if certificate.not_after_us <= now_us else status,
        "not_before": iso(certificate.not_before_us),
        "not_after": iso(certificate.not_after_us),
        "created": iso(certificate.created_us),
        "updated": iso(certificate.updated_us),
    }


def chain_document(state: State, certificate: Certificate, now_us: int) -> dict[str, Any]:
    """The same with `chain` (PEM, public), `roots` (PEM, what to believe it by) and who shows it (`in_use_by`)."""
    authority = state.authorities.get(certificate.authority)
    users = sorted(
        resource.key.path for resource in state.resources.values() if certificate.arn in certificate_arns(resource.spec)
    )
    return {
        **certificate_document(certificate, now_us),
        "chain": certificate.chain,
        "roots": [root.certificate for root in authority.trusted()] if authority else [],
        "in_use_by": users,
    }
