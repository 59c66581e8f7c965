"""TLS: whom a listener takes, as whom it answers, and whom a caller (a sidecar or a gateway) believes."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cluster import pki
from mesh.certificates import Root
from mesh.commands_pki import CreateAuthority, IssueCertificate
from runtime.clock import SystemClock, SystemEntropy
from tests.projector.envoy.test_tls_live import CALLER, SERVER, STRANGER, named
from tests.traffic.control_plane import ACCOUNT
from tests.traffic.fields import proves
from tests.traffic.specs import backend, gateway, gateway_route, listener, node, service
from tests.traffic.world import TLS_HOSTS, Declared, World

POLICIES = (
    "virtualNode.backends[].virtualService.clientPolicy",
    "virtualNode.backendDefaults.clientPolicy",
    "virtualGateway.backendDefaults.clientPolicy",
)
LISTENERS = ("virtualNode", "virtualGateway")
YEAR_US = 365 * 24 * 3_600_000_000
ACM_CERTIFICATE = f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/red"
ACM_AUTHORITY = f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/one"
OTHER_AUTHORITY = f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/two"
DISABLED = {"mode": "DISABLED", "certificate": {"sds": {"secretName": "server"}}}


def offered(world: World, *, mutual: bool = False) -> dict[str, Any]:
    """What red's listener speaks; `mutual`: with none but the caller."""
    tls: dict[str, Any] = {"mode": "STRICT", "certificate": world.certificates.files("server")}
    return tls | ({"validation": {**world.certificates.trust("ours"), **named(CALLER)}} if mutual else {})


def status(world: World, place: str, policy: dict[str, Any] | None, tls: dict[str, Any]) -> int:
    """What a request to red gets, by a caller with that policy in that place."""
    client: dict[str, Any] | None = None if policy is None else {"tls": policy}
    target = [node("red", listener(8080, tls=tls), host=world.tls_host), service("orders", node="red")]
    if place.startswith("virtualGateway"):
        defaults: dict[str, Any] = {} if client is None else {"backendDefaults": {"clientPolicy": client}}
        world.mesh(*target, gateway(**defaults), gateway_route("orders"))
        return world.ask("any", pod="outside", port=8088, to=world.pods["edge"].v4).status
    defaults = {"backendDefaults": {"clientPolicy": client}} if client and "Defaults" in place else {}
    backends: list[Any] = ["orders"] if client is None or defaults else [backend("orders", client)]
    world.mesh(*target, node("front", backends=backends, **defaults))
    return world.ask("orders").status


def trust(world: World, kind: str, who: str) -> dict[str, Any]:
    """To believe `ours` or `other`, from a file or a secret."""
    return {"trust": {"sds": {"secretName": who}}} if kind == "sds" else world.certificates.trust(who)


@proves("{place}.tls.validation.trust.file.certificateChain", place=POLICIES)
def a_caller_believes_the_authority_of_a_file(world: World, place: str) -> None:
    assert status(world, place, {"validation": trust(world, "file", "ours")}, offered(world)) == 200
    assert status(world, place, {"validation": trust(world, "file", "other")}, offered(world)) == 503


@proves("{place}.tls.validation.trust.sds.secretName", place=POLICIES)
def a_caller_believes_the_authority_of_a_secret(world: World, place: str) -> None:
    assert status(world, place, {"validation": trust(world, "sds", "ours")}, offered(world)) == 200
    assert status(world, place, {"validation": trust(world, "sds", "other")}, offered(world)) == 503


@proves("{place}.tls.validation.subjectAlternativeNames.match.exact[]", place=POLICIES)
def a_caller_believes_names(world: World, place: str) -> None:
    ours = trust(world, "file", "ours")
    assert status(world, place, {"validation": ours}, offered(world)) == 200, "by default the name of discovery"
    assert status(world, place, {"validation": {**ours, **named("x.example", SERVER)}}, offered(world)) == 200
    assert status(world, place, {"validation": {**ours, **named(STRANGER)}}, offered(world)) == 503


@proves("{place}.tls.enforce", place=POLICIES)
def a_policy_that_is_not_enforced_lets_the_server_decide(world: World, place: str) -> None:
    ours = {"validation": trust(world, "file", "ours")}
    assert status(world, place, ours, DISABLED) == 503
    assert status(world, place, {**ours, "enforce": False}, DISABLED) == 200
    assert status(world, place, {**ours, "enforce": False}, offered(world)) == 200


@proves("{place}.tls.ports[]", place=POLICIES)
def a_policy_is_for_its_ports(world: World, place: str) -> None:
    other = {"validation": trust(world, "file", "other")}
    assert status(world, place, {**other, "ports": [8080]}, offered(world)) == 503
    assert status(world, place, {**other, "ports": [8081]}, offered(world)) == 200


@proves(
    "{place}.tls.certificate.file.certificateChain",
    "{place}.tls.certificate.file.privateKey",
    place=POLICIES,
)
def a_caller_shows_the_certificate_of_a_file(world: World, place: str) -> None:
    ours, tls = {"validation": trust(world, "file", "ours")}, offered(world, mutual=True)
    assert status(world, place, {**ours, "certificate": world.certificates.files("caller")}, tls) == 200
    assert status(world, place, {**ours, "certificate": world.certificates.files("stranger")}, tls) == 503
    assert status(world, place, ours, tls) == 503


@proves("{place}.tls.certificate.sds.secretName", place=POLICIES)
def a_caller_shows_the_certificate_of_a_secret(world: World, place: str) -> None:
    ours, tls = {"validation": trust(world, "file", "ours")}, offered(world, mutual=True)
    for who, expected in (("caller", 200), ("stranger", 503)):
        assert status(world, place, {**ours, "certificate": {"sds": {"secretName": who}}}, tls) == expected


def authority(world: World, arn: str) -> pki.Authority:
    """An authority of Meshlog's own, made once; the file `<name>.crt` beside the others."""
    name = arn.rpartition("/")[2]
    made = world.kept.get(arn)
    if made is None:
        made = world.kept[arn] = pki.create_authority(name, SystemClock().now_us(), SystemEntropy())
        (world.certificates.folder / f"{name}.crt").write_bytes(made.certificate_pem)
        now = SystemClock().now_us()
        root = Root(f"{name}-1", made.certificate_pem.decode(), now - YEAR_US, now + YEAR_US)
        world.control.do(CreateAuthority(arn, name, root, _pem(made)))
    assert isinstance(made, pki.Authority)
    return made


def _pem(signing: pki.Authority) -> str:
    """The authority's private key."""
    plain = serialization.NoEncryption()
    return signing.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def certificate(world: World) -> dict[str, Any]:
    """A certificate of Meshlog's own for red, as a listener names it."""
    signing = authority(world, ACM_AUTHORITY)
    authority(world, OTHER_AUTHORITY)
    if ACM_CERTIFICATE not in world.kept:
        issue(world, signing, create=True)
    return {"acm": {"certificateArn": ACM_CERTIFICATE}}


def issue(world: World, signing: pki.Authority, *, create: bool) -> str:
    """Issue (or issue anew) red's certificate; its serial number."""
    now = SystemClock().now_us()
    leaf = pki.Leaf(common_name=TLS_HOSTS[0], hosts=TLS_HOSTS, server=True)
    made = pki.issue(signing, leaf, now, SystemEntropy())
    serial = f"{x509.load_pem_x509_certificate(made.certificate_pem).serial_number:x}"
    command = IssueCertificate(
        ACM_CERTIFICATE,
        TLS_HOSTS[0],
        TLS_HOSTS,
        ACM_AUTHORITY,
        "one-1",
        made.certificate_pem.decode(),
        made.key_pem.decode(),
        serial,
        now - YEAR_US,
        now + YEAR_US,
        create=create,
    )
    world.control.do(command)
    world.kept[ACM_CERTIFICATE] = serial
    return serial


@proves("{place}.tls.validation.trust.acm.certificateAuthorityArns[]", place=POLICIES)
def a_caller_believes_authorities_of_acm(world: World, place: str) -> None:
    tls = {"mode": "STRICT", "certificate": certificate(world)}

    def believing(arn: str) -> dict[str, Any]:
        return {"validation": {"trust": {"acm": {"certificateAuthorityArns": [arn]}}}}

    assert status(world, place, believing(ACM_AUTHORITY), tls) == 200
    assert status(world, place, believing(OTHER_AUTHORITY), tls) == 503


@proves()
def without_a_policy_a_certificate_of_acm_is_validated_and_one_of_a_file_is_not(world: World) -> None:
    assert status(world, POLICIES[0], None, offered(world)) == 200
    assert status(world, POLICIES[0], None, {"mode": "STRICT", "certificate": certificate(world)}) == 200


# --- listeners


def listening(world: World, side: str, tls: dict[str, Any]) -> tuple[str, int]:
    """The address of a listener that speaks like this: red's, or the gateway's in front of it."""
    own: dict[str, Any] = {"tls": tls} if side == "virtualNode" else {}
    red: list[Declared] = [
        node("red", listener(8080, **own), host=world.tls_host),
        service("orders", node="red"),
    ]
    if side == "virtualNode":
        world.mesh(*red)
        return world.pods["red"].v4, 8080
    world.mesh(*red, gateway(listener(8088, tls=tls)), gateway_route("orders"))
    return world.pods["edge"].v4, 8088


def taken(world: World, at: tuple[str, int], context: ssl.SSLContext | None) -> bool:
    """Whether a client outside the mesh is answered, in plain text or over TLS."""
    connection = http.client.HTTPConnection(TLS_HOSTS[0])
    with contextlib.closing(connection):
        plain = world.connect("outside", at[1], at[0])
        try:
            connection.sock = plain if context is None else context.wrap_socket(plain, server_hostname=TLS_HOSTS[0])
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            plain.close()


def shown(world: World, pod: str, port: int = 8080) -> str:
    """The serial number of the certificate that a sidecar shows now."""
    context = client(world, believes="one")
    with world.connect("outside", port, world.pods[pod].v4) as plain:
        with context.wrap_socket(plain, server_hostname=TLS_HOSTS[0]) as connection:
            certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"


def client(world: World, who: str | None = None, believes: str = "ours") -> ssl.SSLContext:
    """A client that believes an authority, and may say who it is."""
    folder = world.certificates.folder
    context = ssl.create_default_context(cafile=str(folder / f"{believes}.crt"))
    if who is not None:
        context.load_cert_chain(folder / f"{who}.crt", folder / f"{who}.key")
    return context


@proves("{side}.listeners[].tls.mode", side=LISTENERS)
def a_mode_takes_tls_plain_text_or_both(world: World, side: str) -> None:
    for mode, plain, over_tls in (("STRICT", False, True), ("PERMISSIVE", True, True), ("DISABLED", True, False)):
        at = listening(world, side, {"mode": mode, "certificate": world.certificates.files("server")})
        assert (taken(world, at, None), taken(world, at, client(world))) == (plain, over_tls), mode


@proves(
    "{side}.listeners[].tls.certificate.file.certificateChain",
    "{side}.listeners[].tls.certificate.file.privateKey",
    side=LISTENERS,
)
def a_listener_shows_the_certificate_of_a_file(world: World, side: str) -> None:
    at = listening(world, side, {"mode": "STRICT", "certificate": world.certificates.files("server")})
    assert taken(world, at, client(world))
    at = listening(world, side, {"mode": "STRICT", "certificate": world.certificates.files("foreign")})
    assert not taken(world, at, client(world))
    assert taken(world, at, client(world, believes="other"))


@proves("{side}.listeners[].tls.certificate.sds.secretName", side=LISTENERS)
def a_listener_shows_the_certificate_of_a_secret(world: World, side: str) -> None:
    at = listening(world, side, {"mode": "STRICT", "certificate": {"sds": {"secretName": "server"}}})
    assert taken(world, at, client(world))


@proves("{side}.listeners[].tls.certificate.acm.certificateArn", side=LISTENERS)
def a_listener_shows_a_certificate_of_acm(world: World, side: str) -> None:
    at = listening(world, side, {"mode": "STRICT", "certificate": certificate(world)})
    assert taken(world, at, client(world, believes="one"))
    assert not taken(world, at, client(world))


def validating(world: World, side: str, validation: dict[str, Any]) -> dict[str, bool]:
    """Who is taken by a listener that validates its clients like this."""
    tls = {"mode": "STRICT", "certificate": world.certificates.files("server"), "validation": validation}
    at = listening(world, side, tls)
    return {who or "nobody": taken(world, at, client(world, who)) for who in (None, "caller", "stranger", "foreign")}


@proves("{side}.listeners[].tls.validation.trust.file.certificateChain", side=LISTENERS)
def a_listener_believes_the_authority_of_a_file(world: World, side: str) -> None:
    found = validating(world, side, trust(world, "file", "ours"))
    assert found == {"nobody": False, "caller": True, "stranger": True, "foreign": False}
    found = validating(world, side, trust(world, "file", "other"))
    assert found == {"nobody": False, "caller": False, "stranger": False, "foreign": True}


@proves("{side}.listeners[].tls.validation.trust.sds.secretName", side=LISTENERS)
def a_listener_believes_the_authority_of_a_secret(world: World, side: str) -> None:
    found = validating(world, side, trust(world, "sds", "ours"))
    assert found == {"nobody": False, "caller": True, "stranger": True, "foreign": False}
    assert validating(world, side, trust(world, "sds", "other"))["foreign"]


@proves("{side}.listeners[].tls.validation.subjectAlternativeNames.match.exact[]", side=LISTENERS)
def a_listener_believes_names(world: World, side: str) -> None:
    found = validating(world, side, {**trust(world, "file", "ours"), **named("x.example", CALLER)})
    assert found == {"nobody": False, "caller": True, "stranger": False, "foreign": False}
