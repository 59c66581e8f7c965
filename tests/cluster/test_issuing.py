"""X.509 for proxies: what is made is what was asked for, and what comes from elsewhere is looked at closely."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cluster import pki
from cluster.issuing import Material, RootMade, issue_certificate, make_root, read_certificate, read_root
from mesh.errors import BadRequest, Conflict
from runtime.clock import SystemEntropy

NOW_US = 1_800_000_000_000_000
DAY_S = 24 * 3600
ENTROPY = SystemEntropy()


@pytest.fixture(scope="module")
def root() -> RootMade:
    return make_root("shop CA", NOW_US, ENTROPY, 3650 * DAY_S)


def leaf(root: RootMade, *names: str, days: int = 90) -> Material:
    return issue_certificate(root, names or ("cart.apps.local",), NOW_US, ENTROPY, days * DAY_S)


def test_a_root_says_what_it_is_called_and_until_when_it_is_good(root: RootMade) -> None:
    certificate = x509.load_pem_x509_certificate(root.root.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=shop CA"
    assert root.root.not_after_us == NOW_US + 3650 * DAY_S * 1_000_000
    assert make_root("shop CA", NOW_US, ENTROPY, DAY_S).root.id != root.root.id


def test_a_certificate_is_for_all_its_names_and_is_believed_by_its_root(root: RootMade) -> None:
    made = leaf(root, "cart.apps.local", "*.apps.local", "10.0.0.7", "spiffe://shop/cart")
    certificate = x509.load_pem_x509_certificate(made.chain.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root.root.certificate.encode()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cart.apps.local", "*.apps.local"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.7")]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://shop/cart"]
    assert (made.serial, made.not_after_us) == (f"{certificate.serial_number:x}", NOW_US + 90 * DAY_S * 1_000_000)


def test_a_name_too_long_for_a_common_name_is_an_alternative_name_all_the_same(root: RootMade) -> None:
    long = f"{'a' * 60}.{'b' * 60}.local"
    certificate = x509.load_pem_x509_certificate(leaf(root, long).chain.encode())
    assert certificate.subject.rfc4514_string() == "CN=meshlog"


def test_no_certificate_outlives_its_root(root: RootMade) -> None:
    short = make_root("short", NOW_US, ENTROPY, 2 * DAY_S)
    assert leaf(short).not_after_us == short.root.not_after_us
    with pytest.raises(Conflict, match="expired"):
        issue_certificate(short, ("a.local",), NOW_US + 3 * DAY_S * 1_000_000, ENTROPY, DAY_S)


def test_a_root_that_is_only_believed_issues_nothing(root: RootMade) -> None:
    known = read_root(root.root.certificate)
    assert known == RootMade(root.root, None)
    with pytest.raises(Conflict, match="ca rotate"):
        leaf(known)


def test_what_was_issued_can_be_imported_elsewhere(root: RootMade) -> None:
    made = leaf(root, "cart.apps.local", "10.0.0.7")
    found = read_certificate(made.chain, root.root.certificate, made.secret)
    assert found == made._replace(chain=made.chain + root.root.certificate)


def test_without_alternative_names_a_certificate_is_for_its_common_name(root: RootMade) -> None:
    authority = pki.create_root("old.internal", NOW_US, ENTROPY, DAY_S)
    key = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert read_certificate(authority.certificate_pem.decode(), "", key).names == ("old.internal",)


def test_what_does_not_fit_is_refused_without_a_word_of_the_key(root: RootMade) -> None:
    made, other = leaf(root), leaf(root, "other.local")
    stranger = make_root("stranger", NOW_US, ENTROPY, DAY_S).root.certificate
    closed = _key(ec.generate_private_key(ec.SECP256R1()), b"password")
    for pem, chain, key, said in (
        ("", "", made.secret, "certificate: "),
        ("no PEM", "", made.secret, "certificate: "),
        (made.chain + other.chain, "", made.secret, "certificate: has 2"),
        (made.chain, "", other.secret, "not the key of"),
        (made.chain, stranger, made.secret, "chain: "),
        (made.chain, "garbage", made.secret, "chain: "),
        (made.chain, root.root.certificate * 9, made.secret, "chain: has 9"),
        (made.chain, "", closed, "private_key: "),
        (made.chain, "", "garbage", "private_key: "),
        (made.chain, "", _key(ed25519.Ed25519PrivateKey.generate()), "private_key: Envoy takes"),
        (made.chain, "", _key(ec.generate_private_key(ec.SECP521R1())), "private_key: Envoy takes"),
    ):
        with pytest.raises(BadRequest) as caught:
            read_certificate(pem, chain, key)
        assert said in caught.value.message
        assert "PRIVATE KEY-" not in caught.value.message
    for text in (made.chain, "x", ""):
        with pytest.raises(BadRequest):
            read_root(text)


def test_nothing_shows_a_key_when_it_is_printed(root: RootMade) -> None:
    assert "PRIVATE" not in repr([root, leaf(root)])


def _key(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()
