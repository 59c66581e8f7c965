"""Who encrypts and who is believed: from a listener's `tls` and a caller's client policy to plans.

Whoever asks for TLS and cannot be given it is held back with an alarm; plaintext never stands in for it. Certificates
are files of the proxy's own, secrets that it fetches from its SDS socket, or our own (`acm`). How a
server's mode and a client's policy meet is the user guide's (tls: "How App Mesh configures Envoys to negotiate TLS").
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from mesh.certificates import Certificate
from mesh.state import Resource
from projector.envoy import acm
from projector.envoy.endpoints import service_name
from projector.envoy.plans import CertificatePlan, HttpChainPlan, TcpChainPlan, TlsPlan, ValidationPlan
from projector.envoy.san import check_life, check_served
from projector.envoy.specs import HTTP2_PROTOCOLS, TCP, is_address
from projector.envoy.view import SHARE_503, Spec, View

Chain = TypeVar("Chain", HttpChainPlan, TcpChainPlan)

_NEITHER = "is neither a file, nor an SDS secret, nor an ACM certificate"

DISABLED, PERMISSIVE = "DISABLED", "PERMISSIVE"
SERVER_NAME_MAX_BYTES = 255
"""Envoy refuses a cluster with a longer one."""


class Transport(NamedTuple):
    """What connections are made of: TLS, plain text, or (a PERMISSIVE listener's) either."""

    tls: TlsPlan | None = None
    plaintext: bool = True


PLAINTEXT = Transport()


class ClientPolicy(NamedTuple):
    """A client policy that speaks of TLS: where it stands, what it says, and the ports it is for (none: all)."""

    owner: Resource
    field: str
    tls: Spec
    ports: tuple[int, ...]

    def covers(self, port: int) -> bool:
        return not self.ports or port in self.ports

    @property
    def enforced(self) -> bool:
        """Whether TLS is spoken to servers that do not offer it, too (who will then be unreachable)."""
        return bool(self.tls.get("enforce", True))


def client_policy(owner: Resource, field: str, policy: Spec | None) -> ClientPolicy | None:
    """None where nothing is said of TLS."""
    tls = (policy or {}).get("tls")
    return None if tls is None else ClientPolicy(owner, f"{field}.tls", tls, tuple(tls.get("ports") or ()))


class PolicyAt(NamedTuple):
    """Where a client policy stands: a node's or gateway's own defaults, or (`backend` is its index) one backend's."""

    kind: str
    name: str
    backend: int | None = None


def policy_at(view: View, at: PolicyAt) -> ClientPolicy | None:
    """The client policy that stands there; None where nothing is said of TLS."""
    owner = view.get(at.kind, at.name)
    if owner is None:
        return None
    if at.backend is None:
        defaults = (owner.spec.get("backendDefaults") or {}).get("clientPolicy")
        return client_policy(owner, "spec.backendDefaults.clientPolicy", defaults)
    own = (owner.spec["backends"][at.backend].get("virtualService") or {}).get("clientPolicy")
    return client_policy(owner, f"spec.backends[{at.backend}].virtualService.clientPolicy", own)


def offers_tls(listener: Spec) -> bool:
    return bool((listener.get("tls") or {}).get("mode", DISABLED) != DISABLED)


def listener_transport(view: View, owner: Resource, field: str, listener: Spec) -> Transport | None:
    """What a listener takes; None (with an alarm) where it must stay closed. `field` is the listener's."""
    if not offers_tls(listener):
        return PLAINTEXT
    tls, port = listener["tls"], listener["portMapping"]["port"]
    held = f"(plaintext is not accepted instead), so nothing is accepted on port {port}"
    certificate = _shown(view, owner, tls.get("certificate") or {})
    if isinstance(certificate, str):
        view.alarm(owner, f"{field}.tls.certificate", f"{certificate} {held}")
        return None
    validation = None
    if "validation" in tls:
        validation = _validation(tls["validation"], _names(tls["validation"]))
        if validation is None:
            view.alarm(owner, f"{field}.tls.validation.trust", f"is neither a file nor an SDS secret {held}")
            return None
    protocols = _application_protocols(listener["portMapping"]["protocol"], server=True)
    return Transport(TlsPlan(protocols, certificate, validation), tls["mode"] == PERMISSIVE)


def chains_over(transport: Transport, chain: Chain) -> tuple[Chain, ...]:
    """The filter chain as `transport` has it: one, or one for each of TLS and plain text."""
    if transport.tls is None or not transport.plaintext:
        return (chain._replace(tls=transport.tls),)
    either = chain._replace(either=True)
    return (either._replace(tls=transport.tls), either)


def client_transport(view: View, target: Resource, listener: Spec, policy: ClientPolicy | None) -> Transport | None:
    """How callers reach the `listener` of a target; None (with an alarm) where they must not.

    A policy that is not enforced, and one for other ports, leave it to the server whether TLS is spoken. Then, without
    a policy for the port, anybody's certificate will do: so did App Mesh with files and SDS secrets. A certificate of
    our own is validated even then, as ACM's were.
    """
    port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
    name = _discovered_name(target)
    plan = TlsPlan(_application_protocols(protocol, server=False), server_name=_server_name(name))
    if policy is not None and policy.covers(port) and (policy.enforced or offers_tls(listener)):
        return _by_policy(view, target, listener, policy, plan)
    if not offers_tls(listener):
        return PLAINTEXT
    served = listener["tls"].get("certificate") or {}
    certificate = _acm_certificate(view, target, served)
    if isinstance(certificate, Certificate):
        return Transport(plan._replace(validation=_by_issuer(view, target, certificate, name)), plaintext=False)
    problem = certificate or _NEITHER
    if certificate is None and _certificate(served) is not None:
        return Transport(plan, plaintext=False)
    held = f"{problem} (plaintext is not sent instead), {SHARE_503}"
    view.alarm(target, "spec.listeners[].tls.certificate", held)
    return None


def _by_policy(view: View, target: Resource, listener: Spec, policy: ClientPolicy, plan: TlsPlan) -> Transport | None:
    """Without names of its own a policy believes the name by which the target is discovered."""
    held = f"(plaintext is not sent instead), {SHARE_503}"
    spec = policy.tls.get("validation") or {}
    names = _names(spec) or (_discovered_name(target),)
    arns = ((spec.get("trust") or {}).get("acm") or {}).get("certificateAuthorityArns") or ()
    authorities, missing = acm.authorities_of(view, policy.owner, arns)
    for why in missing:
        rest = "the others are believed" if authorities else held
        view.alarm(policy.owner, f"{policy.field}.validation.trust", f"{why}; {rest}")
    validation = acm.believed(authorities, names) if authorities else _validation(spec, names)
    if validation is None:
        if not missing:
            why = f"is neither a file, nor an SDS secret, nor private CAs of ACM {held}"
            view.alarm(policy.owner, f"{policy.field}.validation.trust", why)
        return None
    served = _acm_certificate(view, target, (listener.get("tls") or {}).get("certificate") or {})
    if isinstance(served, Certificate) and offers_tls(listener):
        check_served(view, target, served, names, authorities or None)
    certificate = None
    if "certificate" in policy.tls:
        certificate = _certificate(policy.tls["certificate"])
        if certificate is None:
            view.alarm(policy.owner, f"{policy.field}.certificate", f"is neither a file nor an SDS secret {held}")
            return None
    return Transport(plan._replace(certificate=certificate, validation=validation), plaintext=False)


def _discovered_name(target: Resource) -> str:
    """What callers find a target by, and so verify by default."""
    discovery = target.spec["serviceDiscovery"]
    return discovery["dns"]["hostname"].rstrip(".") if "dns" in discovery else service_name(discovery["awsCloudMap"])


def _by_issuer(view: View, target: Resource, certificate: Certificate, name: str) -> ValidationPlan | None:
    """Believe whom the target's certificate is issued by; one that was imported says nothing about that."""
    authority = view.authority(certificate.authority) if certificate.authority else None
    if authority is None:
        return None
    check_served(view, target, certificate, (name,), (authority,))
    return acm.believed((authority,), (name,))


def _acm_certificate(view: View, owner: Resource, certificate: Spec) -> Certificate | str | None:
    """The certificate of our own that is named, or why there is none; None where it is not ours at all."""
    arn = (certificate.get("acm") or {}).get("certificateArn")
    return acm.certificate_of(view, owner, arn) if arn else None


def _shown(view: View, owner: Resource, certificate: Spec) -> CertificatePlan | str:
    """What a listener shows, or why it cannot."""
    ours = _acm_certificate(view, owner, certificate)
    if isinstance(ours, str):
        return ours
    if ours is None:
        return _certificate(certificate) or _NEITHER
    check_life(view, owner, ours)
    return acm.shown(ours)


def _certificate(certificate: Spec) -> CertificatePlan | None:
    file, secret = certificate.get("file") or {}, (certificate.get("sds") or {}).get("secretName")
    if file.get("certificateChain") and file.get("privateKey"):
        return CertificatePlan(file["certificateChain"], file["privateKey"])
    return CertificatePlan(secret=secret) if secret else None


def _validation(validation: Spec, names: tuple[str, ...]) -> ValidationPlan | None:
    trust = validation.get("trust") or {}
    authority = (trust.get("file") or {}).get("certificateChain") or ""
    secret = (trust.get("sds") or {}).get("secretName") or ""
    return ValidationPlan(authority, secret, names) if authority or secret else None


def _names(validation: Spec) -> tuple[str, ...]:
    """The subject alternative names that a validation asks for; none where it says nothing of them."""
    return tuple(((validation.get("subjectAlternativeNames") or {}).get("match") or {}).get("exact") or ())


def _application_protocols(protocol: str, *, server: bool) -> tuple[str, ...]:
    """ALPN. Servers outside the mesh insist on `h2` for gRPC; an HTTP/2 listener takes HTTP/1.1 too, as without TLS."""
    if protocol == TCP:
        return ()
    if protocol not in HTTP2_PROTOCOLS:
        return ("http/1.1",)
    return ("h2", "http/1.1") if server else ("h2",)


def _server_name(name: str) -> str:
    """SNI: a host name, if it can be one."""
    return name if name.isascii() and len(name) <= SERVER_NAME_MAX_BYTES and not is_address(name) else ""
