"""Certificates for the feed's tests, made as `meshlog up` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import grpc

from cluster.pki import ROLES_ROOT, Authority, Issued, Leaf, create_authority, issue, role_leaf
from runtime.clock import SystemClock, SystemEntropy

DOMAIN = "meshlog.test"
_CLOCK, _ENTROPY = SystemClock(), SystemEntropy()


@cache
def roles_root() -> Authority:
    return create_authority(ROLES_ROOT, _CLOCK.now_us(), _ENTROPY)


@cache
def other_root() -> Authority:
    return create_authority(ROLES_ROOT, _CLOCK.now_us(), _ENTROPY)


@dataclass(frozen=True)
class Identity:
    """A certificate, and what it trusts."""

    issued: Issued
    trusts: bytes

    def serving(self) -> grpc.ServerCredentials:
        pair = (self.issued.key_pem, self.issued.certificate_pem)
        return grpc.ssl_server_credentials([pair], root_certificates=self.trusts, require_client_auth=True)

    def dialling(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.trusts, self.issued.key_pem, self.issued.certificate_pem)


@cache
def role(name: str, domain: str = DOMAIN) -> Identity:
    """The certificate of a role in this cluster (or in another, under the same root)."""
    issued = issue(roles_root(), role_leaf(name, domain), _CLOCK.now_us(), _ENTROPY)
    return Identity(issued, roles_root().certificate_pem)


@cache
def stranger() -> Identity:
    """A frontend's certificate from somebody else's root."""
    issued = issue(other_root(), role_leaf("frontend", DOMAIN), _CLOCK.now_us(), _ENTROPY)
    return Identity(issued, roles_root().certificate_pem)


@cache
def with_uri(uri: str | None) -> Identity:
    """A certificate of our own root that names `uri` instead of a role."""
    leaf = Leaf(common_name="x", hosts=("localhost",), uri=uri, server=True, client=True)
    return Identity(issue(roles_root(), leaf, _CLOCK.now_us(), _ENTROPY), roles_root().certificate_pem)
