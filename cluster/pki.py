"""The three trust roots (etcd, roles, proxies) and what they sign. Values in, PEM out; where files go is the caller's.

- etcd: members and users; the user's name is the certificate's CN.
- roles: API servers, projectors, frontends; `spiffe://<trust-domain>/role/<role>`, and the fixed DNS name
  `<role>.meshlog` by which every client verifies a role, so that addresses can change without new certificates.
- proxies: Envoys; `spiffe://<trust-domain>/<account>/mesh/<mesh>/<kind>/<name>`, signed from a request whose key alone
  is used: names that a proxy asks for are never believed.

It must never reuse a serial, sign for another root's purpose, or write a key where others can read it.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from identity.node_id import NodeId
from mesh.errors import BadRequest, LimitExceeded, SettingsError
from runtime.clock import Entropy
from runtime.files import PRIVATE, PUBLIC, read_private, write_atomic
from runtime.limits import (
    AUTHORITY_LIFETIME_S,
    CERTIFICATE_BACKDATE_S,
    CSR_SIZE_BYTES,
    LEAF_LIFETIME_S,
    LEAF_RENEW_SHARE,
    RSA_BITS_MAX,
    RSA_BITS_MIN,
)
from runtime.settings import AuthorityFiles, TlsFiles

ETCD_ROOT, ROLES_ROOT, PROXIES_ROOT = "etcd", "roles", "proxies"
ROOTS = (ETCD_ROOT, ROLES_ROOT, PROXIES_ROOT)
HTTP_ROOT = "http"
"""What callers of the API trust, where it speaks HTTPS by a certificate of ours: nothing else is signed by it."""
ETCD_PEER_NAME = "peer.etcd.meshlog"
"""Every member's peer certificate carries it and demands it: a client certificate of the same root is no raft peer."""
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Authority:
    """A trust root with its key. `certificate_pem` is what others verify by."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a certificate of ours is to say. `hosts` are DNS names, IP addresses or URIs; `uri` is a SPIFFE id."""

    common_name: str
    hosts: tuple[str, ...] = ()
    uri: str | None = None
    server: bool = False
    client: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate and its key, PEM."""

    certificate_pem: bytes
    key_pem: bytes


def role_name(role: str) -> str:
    """The DNS name by which clients verify a server of `role`, whatever its address: `frontend.meshlog`."""
    return f"{role}.meshlog"


def role_uri(role: str, trust_domain: str) -> str:
    """The SPIFFE id of a role's certificate."""
    return f"spiffe://{trust_domain}/role/{role}"


def role_leaf(role: str, trust_domain: str, hosts: Iterable[str] = ()) -> Leaf:
    """A role's certificate: serves and dials under the roles' root."""
    names = (role_name(role), *LOOPBACK_HOSTS, *hosts)
    return Leaf(common_name=role, hosts=names, uri=role_uri(role, trust_domain), server=True, client=True)


def http_leaf(hosts: Iterable[str]) -> Leaf:
    """What an API server shows its callers."""
    return Leaf(common_name="meshlog api", hosts=(*LOOPBACK_HOSTS, *hosts), server=True)


def etcd_member_leaf(member: str, hosts: Iterable[str] = ()) -> Leaf:
    """What a member shows its clients. Its CN is no etcd user, so it opens nothing."""
    return Leaf(common_name=member, hosts=(*LOOPBACK_HOSTS, *hosts), server=True)


def etcd_peer_leaf(member: str, hosts: Iterable[str] = ()) -> Leaf:
    """What a member shows other members, both when it serves and when it dials."""
    return Leaf(common_name=member, hosts=(ETCD_PEER_NAME, *LOOPBACK_HOSTS, *hosts), server=True, client=True)


def etcd_user_leaf(user: str) -> Leaf:
    """A client certificate that etcd takes for `user`."""
    return Leaf(common_name=user, client=True)


def fresh_serial(entropy: Entropy) -> int:
    """A positive serial of 159 random bits (RFC 5280: at most 20 bytes)."""
    return (int.from_bytes(entropy.token_bytes(20), "big") >> 1) | 1


def create_authority(name: str, now_us: int, entropy: Entropy) -> Authority:
    """A new root of the cluster's own."""
    return create_root(f"meshlog {name} root", now_us, entropy, AUTHORITY_LIFETIME_S)


def create_root(common_name: str, now_us: int, entropy: Entropy, lifetime_s: int) -> Authority:
    """A new root that can sign leaves only (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(common_name, key.public_key(), now_us, lifetime_s, fresh_serial(entropy))
    certificate = (
        builder.issuer_name(_name(common_name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(authority: Authority, leaf: Leaf, now_us: int, entropy: Entropy, lifetime_s: int = LEAF_LIFETIME_S) -> Issued:
    """A new P-256 key and its certificate under `authority`."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(
        authority, leaf, key.public_key(), now_us=now_us, lifetime_s=lifetime_s, serial=fresh_serial(entropy)
    )
    return Issued(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def sign_proxy_request(
    authority: Authority,
    csr_pem: bytes,
    *,
    node: NodeId,
    trust_domain: str,
    serial: int,
    now_us: int,
    not_after_us: int,
) -> bytes:
    """The certificate (PEM) of `node` for the key in `csr_pem`, client use only. BadRequest if it cannot be signed.

    Everything else in the request is ignored: the caller has decided who this is.
    """
    if len(csr_pem) > CSR_SIZE_BYTES:
        raise LimitExceeded(
            f"csr_pem is {len(csr_pem)} bytes; a certificate signing request has at most {CSR_SIZE_BYTES}"
        )
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadRequest("csr_pem is not a PEM certificate signing request; make one with openssl req -new") from error
    if not signed:
        raise BadRequest("csr_pem is not signed by the key in it")
    fits = (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)) or (
        isinstance(key, rsa.RSAPublicKey) and RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX
    )
    if not fits or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise BadRequest("csr_pem has a key that Envoy or we do not take: use P-256, P-384 or RSA of 2048 to 4096 bits")
    leaf = Leaf(common_name="meshlog proxy", uri=node.spiffe_id(trust_domain), client=True)
    lifetime_s = (not_after_us - now_us) // 1_000_000
    certificate = _sign(authority, leaf, key, now_us=now_us, lifetime_s=lifetime_s, serial=serial)
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_request(common_name: str) -> tuple[bytes, bytes]:
    """A new P-256 key and a signing request for it: (csr_pem, key_pem). The name is for a reader's eye only."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def needs_renewal(certificate_pem: bytes, now_us: int) -> bool:
    """Whether less than LEAF_RENEW_SHARE of its life is left."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - _utc(now_us) < life * LEAF_RENEW_SHARE


def hosts_of(certificate_pem: bytes) -> tuple[str, ...]:
    """The DNS names and addresses that a certificate is for."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def save_authority(authority: Authority, files: AuthorityFiles) -> None:
    """Write certificate and key (0600)."""
    write_atomic(files.key, _key_pem(authority.key), PRIVATE)
    write_atomic(files.certificate, authority.certificate_pem, PUBLIC)


def load_authority(files: AuthorityFiles) -> Authority:
    """Read what `save_authority` wrote; SettingsError if it is missing, damaged, open to others, or no pair."""
    key_pem = read_private(files.key)
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the trust root {files.certificate}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise SettingsError(f"{files.key} is not the key of {files.certificate}: restore the pair from a backup")
    return Authority(certificate, key)


def save_issued(issued: Issued, authority: Authority, files: TlsFiles) -> None:
    """Write a leaf, its key (0600) and the root that verifies the other side."""
    write_atomic(files.key, issued.key_pem, PRIVATE)
    write_atomic(files.certificate, issued.certificate_pem, PUBLIC)
    write_atomic(files.authority, authority.certificate_pem, PUBLIC)


def authority_files(directory: Path, root: str) -> AuthorityFiles:
    """Where the root named `root` is kept under `directory`."""
    return AuthorityFiles(certificate=directory / f"{root}-ca.crt", key=directory / f"{root}-ca.key")


def _sign(
    authority: Authority,
    leaf: Leaf,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    *,
    now_us: int,
    lifetime_s: int,
    serial: int,
) -> x509.Certificate:
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
    builder = (
        _builder(leaf.common_name, key, now_us, lifetime_s, serial)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    names = [_alternative(host) for host in dict.fromkeys(leaf.hosts)]
    if leaf.uri is not None:
        names.append(x509.UniformResourceIdentifier(leaf.uri))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    common_name: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, now_us: int, lifetime_s: int, serial: int
) -> x509.CertificateBuilder:
    now = _utc(now_us)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(seconds=CERTIFICATE_BACKDATE_S))
        .not_valid_after(now + datetime.timedelta(seconds=lifetime_s))
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.UniformResourceIdentifier(host) if "://" in host else x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _utc(time_us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, tz=datetime.UTC)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
