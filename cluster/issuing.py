"""X.509 for the certificates that proxies show each other: made and read here, so that the domain sees plain values.

    a name, a time                 →  a root and its key
    a root with its key, names     →  a certificate and its key
    PEM from elsewhere             →  the same values, or BadRequest that says what does not fit

It must never sign anything that outlives its root, or let a private key into a message.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

from cluster.pki import Authority, Leaf, create_root, issue
from mesh.certificates import Root
from mesh.errors import BadRequest, Conflict
from runtime.clock import Entropy
from runtime.limits import CHAIN_CERTIFICATES_MAX, RSA_BITS_MAX, RSA_BITS_MIN

COMMON_NAME_CHARS = 64
"""X.509's bound (ub-common-name)."""


class RootMade(NamedTuple):
    """A root, and its key (PEM); None where the key was never here."""

    root: Root
    secret: str | None

    def __repr__(self) -> str:
        return f"RootMade({self.root.id})"


class Material(NamedTuple):
    """A certificate with its chain and key, PEM, and what is in it. `names`: what it is for, at least one."""

    names: tuple[str, ...]
    chain: str
    secret: str
    serial: str
    not_before_us: int
    not_after_us: int

    def __repr__(self) -> str:
        return f"Material({self.serial})"


def make_root(name: str, now_us: int, entropy: Entropy, lifetime_s: int) -> RootMade:
    """A new self-signed root, P-256."""
    authority = create_root(name, now_us, entropy, lifetime_s)
    return RootMade(_root(authority.certificate), _key_text(authority.key))


def issue_certificate(
    signer: RootMade, names: tuple[str, ...], now_us: int, entropy: Entropy, lifetime_s: int
) -> Material:
    """A new P-256 key and its certificate for `names`, by a root whose key is here; Conflict if that has expired."""
    left_s = (signer.root.not_after_us - now_us) // 1_000_000
    if left_s <= 0:
        raise Conflict("The authority's root has expired: rotate it with `meshlog pki ca rotate`")
    if signer.secret is None:
        raise Conflict("The authority's key is not here, so it issues nothing: `meshlog pki ca rotate` gives it one")
    key = serialization.load_pem_private_key(signer.secret.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Conflict("The authority's key is none that we sign with: `meshlog pki ca rotate` gives it one")
    authority = Authority(x509.load_pem_x509_certificate(signer.root.certificate.encode()), key)
    common = next((name for name in names if len(name) <= COMMON_NAME_CHARS), "meshlog")
    leaf = Leaf(common_name=common, hosts=names, server=True, client=True)
    issued = issue(authority, leaf, now_us, entropy, min(lifetime_s, left_s))
    return _material([x509.load_pem_x509_certificate(issued.certificate_pem)], issued.key_pem.decode(), names)


def read_root(certificate_pem: str) -> RootMade:
    """A root from elsewhere, that is only to be believed; BadRequest if it is no authority's certificate."""
    (certificate,) = _certificates(certificate_pem, "certificate", 1)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise BadRequest("certificate: is no certificate authority's (basicConstraints does not say CA:TRUE)")
    return RootMade(_root(certificate), None)


def read_certificate(certificate_pem: str, chain_pem: str, key_pem: str) -> Material:
    """A certificate from elsewhere; BadRequest if key and chain do not belong to it, or Envoy could not use them."""
    (leaf,) = _certificates(certificate_pem, "certificate", 1)
    above = _certificates(chain_pem, "chain", CHAIN_CERTIFICATES_MAX) if chain_pem.strip() else []
    key = _private_key(key_pem)
    if key.public_key() != leaf.public_key():
        raise BadRequest("private_key: is not the key of the certificate")
    for child, parent in zip([leaf, *above], above, strict=False):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise BadRequest(
                f"chain: {parent.subject.rfc4514_string()} has not issued {child.subject.rfc4514_string()}; begin with "
                "the certificate's own issuer"
            ) from error
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _material([leaf, *above], plain.decode(), _names(leaf))


def _material(chain: list[x509.Certificate], secret: str, names: tuple[str, ...]) -> Material:
    leaf = chain[0]
    return Material(names, "".join(map(_pem, chain)), secret, f"{leaf.serial_number:x}", *_validity_us(leaf))


def _root(certificate: x509.Certificate) -> Root:
    return Root(certificate.fingerprint(hashes.SHA256()).hex(), _pem(certificate), *_validity_us(certificate))


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """What it is for; of one without alternative names, its common name."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common[:1])
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    return (*found.get_values_for_type(x509.DNSName), *addresses, *uris)


def _certificates(pem: str, member: str, count_max: int) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for certificate in found:
            certificate.public_key()
            certificate.extensions  # noqa: B018 - read, so that what cannot be read is found here
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError) as error:
        raise BadRequest(f"{member}: is no PEM certificate (-----BEGIN CERTIFICATE-----)") from error
    if len(found) > count_max:
        raise BadRequest(f"{member}: has {len(found)} certificates, and takes {count_max}")
    return found


def _private_key(pem: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    why = "private_key: is no PEM private key without a password (openssl pkey -in FILE takes one off)"
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, UnicodeEncodeError):
        raise BadRequest(why) from None  # what it says may be of the key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return key
    raise BadRequest("private_key: Envoy takes P-256, P-384 and RSA of 2048 to 4096 bits")


def _validity_us(certificate: x509.Certificate) -> tuple[int, int]:
    return _us(certificate.not_valid_before_utc), _us(certificate.not_valid_after_utc)


def _us(at: datetime.datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
