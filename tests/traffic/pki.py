"""Authorities and certificates for the world of the traffic tests, made as the API makes them; and their handshakes."""

from __future__ import annotations

import ssl
from typing import Any

from cryptography import x509

from api.pki import issuing
from cluster.issuing import RootMade, issue_certificate, make_root
from mesh.commands_pki import CreateAuthority, RotateAuthority
from mesh.state import State
from runtime.clock import SystemClock, SystemEntropy
from tests.traffic.control_plane import ACCOUNT
from tests.traffic.specs import gateway_route, listener, node, service
from tests.traffic.world import Declared, Spec, World

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
DAY_S = 24 * 3600


class Pki:
    """Authorities and certificates of the world, made as the API makes them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._keys: dict[str, RootMade] = {}

    @property
    def state(self) -> State:
        return self.world.control.state

    def authority(self, label: str) -> str:
        name = self.world.fresh(label)
        arn = f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/{name}"
        made = self._root(name)
        self.world.control.do(CreateAuthority(arn, name, made.root, made.secret))
        return arn

    def certificate(self, authority: str, *names: str, arn: str = "", ago_s: int = 0, life_s: int = 90 * DAY_S) -> str:
        """Issued at once, or anew for an `arn` that is there."""
        create = arn not in self.state.certificates
        arn = arn or f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/{self.world.fresh('c')}"
        issuer = self.state.authorities[authority]
        signer = RootMade(self._keys[issuer.issuing].root, self._keys[issuer.issuing].secret)
        now_us = CLOCK.now_us() - ago_s * 1_000_000
        made = issue_certificate(signer, names, now_us, ENTROPY, life_s)
        self.world.control.do(issuing(arn, issuer, made, create=create))
        return arn

    def renew(self, arn: str) -> str:
        """Issue it anew under the authority's present root; its new serial."""
        certificate = self.state.certificates[arn]
        self.certificate(certificate.authority, *certificate.names, arn=arn)
        return self.state.certificates[arn].serial

    def rotate(self, authority: str) -> str:
        made = self._root("rotated")
        self.world.control.do(RotateAuthority(authority, made.root, made.secret or ""))
        return made.root.id

    def roots(self, authority: str) -> str:
        return "".join(root.certificate for root in self.state.authorities[authority].trusted())

    def _root(self, name: str) -> RootMade:
        made = make_root(name, CLOCK.now_us() - 100 * DAY_S * 1_000_000, ENTROPY, 3650 * DAY_S)
        self._keys[made.root.id] = made
        return made


def tls(arn: str, mode: str = "STRICT") -> Spec:
    return {"mode": mode, "certificate": {"acm": {"certificateArn": arn}}}


def believing(*authorities: str) -> Spec:
    trust = {"acm": {"certificateAuthorityArns": list(authorities)}}
    return {"clientPolicy": {"tls": {"validation": {"trust": trust}}}}


def shop(world: World, shown: Spec, defaults: Spec | None = None, pod: str = "red") -> tuple[Declared, ...]:
    """`front` and the gateway call the pod: HTTP on 8080, TCP on 8083."""
    more: dict[str, Any] = {"backendDefaults": defaults} if defaults else {}
    listeners = (listener(8080, tls=shown), listener(8083, "tcp", tls=shown))
    return (
        node("front", backends=["web", "echo"], **more),
        node(pod, *listeners, host=world.host(pod)),
        *(
            node(name, listener(port, protocol, tls=shown), host=world.host(pod))
            for name, port, protocol in ((f"{pod}-web", 8080, "http"), (f"{pod}-echo", 8083, "tcp"))
        ),
        service("web", node=f"{pod}-web"),
        service("echo", node=f"{pod}-echo"),
        gateway_route("web"),
    )


def handshake(world: World, roots: str, port: int = 8080, pod: str = "red", name: str = "") -> str:
    """The serial of what the pod's proxy shows a client from outside that believes `roots`; ssl.SSLError otherwise."""
    context = ssl.create_default_context(cadata=roots)
    context.check_hostname = bool(name)
    with (
        world.connect("outside", port, world.pods[pod].v4) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return f"{x509.load_der_x509_certificate(shown).serial_number:x}"


def told(world: World, pod: str) -> list[str]:
    """The alarms of the pod's node."""
    return [alarm for node, alarms in world.control.alarms().items() if node.endswith(f"/{pod}") for alarm in alarms]
