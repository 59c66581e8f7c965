"""What the trust roots sign, and what they refuse to."""

from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from cluster import pki
from identity.node_id import NodeId, parse_spiffe_id
from mesh.errors import BadRequest, LimitExceeded, SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.limits import PROXY_LIFETIME_S
from runtime.settings import TlsFiles

ENTROPY = SystemEntropy()
NOW_US = SystemClock().now_us()
NODE = NodeId("123456789012", "shop/β", "virtualGateway", "edge one")
DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture(scope="module")
def proxies() -> pki.Authority:
    return pki.create_authority(pki.PROXIES_ROOT, NOW_US, ENTROPY)


@pytest.fixture(scope="module")
def roles() -> pki.Authority:
    return pki.create_authority(pki.ROLES_ROOT, NOW_US, ENTROPY)


def sign(authority: pki.Authority, csr_pem: bytes) -> x509.Certificate:
    pem = pki.sign_proxy_request(
        authority,
        csr_pem,
        node=NODE,
        trust_domain="meshlog.local",
        serial=77,
        now_us=NOW_US,
        not_after_us=NOW_US + PROXY_LIFETIME_S * 1_000_000,
    )
    return x509.load_pem_x509_certificate(pem)


def request_with(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, uri: str | None = None
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("frontend.meshlog")])
        builder = builder.add_extension(names, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_proxy_gets_the_identity_decided_for_it_and_nothing_that_it_asked_for(proxies: pki.Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = "spiffe://meshlog.local/999999999999/mesh/other/virtualNode/admin"
    certificate = sign(proxies, request_with(key, asked))

    names = alternatives(certificate)
    assert names.get_values_for_type(x509.DNSName) == []
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert parse_spiffe_id(uri, "meshlog.local") == NODE
    assert usages(certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert certificate.public_key() == key.public_key()
    assert certificate.serial_number == 77
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - datetime.datetime.fromtimestamp(
        NOW_US // 1_000_000, datetime.UTC
    ) == datetime.timedelta(seconds=PROXY_LIFETIME_S)


@pytest.mark.parametrize("bits", [2048, 4096])
def test_an_rsa_key_of_usual_size_is_signed(proxies: pki.Authority, bits: int) -> None:
    sign(proxies, request_with(rsa.generate_private_key(65537, bits)))


@pytest.mark.parametrize(
    ("csr_pem", "says"),
    [
        (b"", "not a PEM certificate signing request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "not a PEM"),
        (request_with(rsa.generate_private_key(65537, 1024)), "P-256"),  # noqa: S505
        (request_with(ed25519.Ed25519PrivateKey.generate()), "P-256"),
        (request_with(ec.generate_private_key(ec.SECP521R1())), "P-256"),
    ],
)
def test_a_request_that_must_not_be_signed_is_refused_by_name(
    proxies: pki.Authority, csr_pem: bytes, says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        sign(proxies, csr_pem)


def test_a_request_signed_by_another_key_is_refused(proxies: pki.Authority) -> None:
    good = x509.load_pem_x509_csr(pki.make_request("x")[0])
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    with pytest.raises(BadRequest):
        sign(proxies, forged)


def test_a_request_too_large_is_refused_before_it_is_parsed(proxies: pki.Authority) -> None:
    with pytest.raises(LimitExceeded, match="csr_pem is"):
        sign(proxies, b"x" * 20_000)


def test_a_role_is_verified_by_its_fixed_name_whatever_its_address(roles: pki.Authority) -> None:
    leaf = pki.role_leaf("frontend", "meshlog.local", ["zone1.example", "10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(pki.issue(roles, leaf, NOW_US, ENTROPY).certificate_pem)

    for name in ("frontend.meshlog", "localhost", "zone1.example"):
        verifier = PolicyBuilder().store(Store([roles.certificate])).build_server_verifier(x509.DNSName(name))
        verifier.verify(certificate, [])
    (uri,) = alternatives(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    assert uri == "spiffe://meshlog.local/role/frontend"
    with pytest.raises(VerificationError):
        PolicyBuilder().store(Store([roles.certificate])).build_server_verifier(x509.DNSName("api.meshlog")).verify(
            certificate, []
        )


def test_one_root_does_not_vouch_for_anothers_leaf(roles: pki.Authority, proxies: pki.Authority) -> None:
    certificate = x509.load_pem_x509_certificate(
        pki.issue(proxies, pki.role_leaf("frontend", "meshlog.local"), NOW_US, ENTROPY).certificate_pem
    )
    verifier = PolicyBuilder().store(Store([roles.certificate])).build_server_verifier(x509.DNSName("frontend.meshlog"))
    with pytest.raises(VerificationError):
        verifier.verify(certificate, [])


def test_a_role_id_is_never_read_as_a_proxys() -> None:
    assert parse_spiffe_id(pki.role_uri("frontend", "meshlog.local"), "meshlog.local") is None


def test_etcd_certificates_name_the_user_and_serve_no_second_purpose() -> None:
    root = pki.create_authority(pki.ETCD_ROOT, NOW_US, ENTROPY)
    user = x509.load_pem_x509_certificate(
        pki.issue(root, pki.etcd_user_leaf("projector"), NOW_US, ENTROPY).certificate_pem
    )
    member = x509.load_pem_x509_certificate(
        pki.issue(root, pki.etcd_member_leaf("etcd-z1"), NOW_US, ENTROPY).certificate_pem
    )
    assert user.subject.rfc4514_string() == "CN=projector"
    assert usages(user) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert usages(member) == {ExtendedKeyUsageOID.SERVER_AUTH}
    assert pki.ETCD_PEER_NAME not in alternatives(member).get_values_for_type(x509.DNSName)


def test_serials_do_not_repeat() -> None:
    serials = {pki.fresh_serial(ENTROPY) for _ in range(1000)}
    assert len(serials) == 1000
    assert all(0 < serial < 2**159 for serial in serials)


def test_a_certificate_is_renewed_in_the_last_third_of_its_life(roles: pki.Authority) -> None:
    issued = pki.issue(roles, pki.role_leaf("api", "d"), NOW_US, ENTROPY, lifetime_s=30 * 24 * 3600)
    assert not pki.needs_renewal(issued.certificate_pem, NOW_US + 19 * DAY_US)
    assert pki.needs_renewal(issued.certificate_pem, NOW_US + 21 * DAY_US)


def test_keys_are_written_for_the_owner_alone(tmp_path: Path, roles: pki.Authority) -> None:
    files = TlsFiles(certificate=tmp_path / "a.crt", key=tmp_path / "a.key", authority=tmp_path / "ca.crt")
    pki.save_issued(pki.issue(roles, pki.role_leaf("api", "d"), NOW_US, ENTROPY), roles, files)
    root = pki.authority_files(tmp_path, pki.ROLES_ROOT)
    pki.save_authority(roles, root)
    for key in (files.key, root.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    assert pki.load_authority(root).certificate == roles.certificate


def test_a_root_whose_key_others_can_read_or_that_is_no_pair_is_refused(tmp_path: Path, roles: pki.Authority) -> None:
    files = pki.authority_files(tmp_path, pki.ROLES_ROOT)
    pki.save_authority(roles, files)
    files.key.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        pki.load_authority(files)
    files.key.chmod(0o600)
    files.key.write_bytes(pki.make_request("x")[1])
    with pytest.raises(SettingsError, match="is not the key of"):
        pki.load_authority(files)
