"""A TLS plan to Envoy's transport sockets, where files and secrets are named; and what our own secrets hold."""

from __future__ import annotations

import ipaddress

from projector.envoy import names
from projector.envoy.messages import ads_source, packed
from projector.envoy.plans import CertificatePlan, IdentityPlan, TlsPlan, TrustPlan, ValidationPlan
from projector.envoy.protos import core, matcher, tls
from projector.envoy.specs import is_address

_SOCKET = "envoy.transport_sockets.tls"


def server_socket(plan: TlsPlan) -> core.TransportSocket:
    """A listener's side. Who validates clients asks them for a certificate, and turns away who has none."""
    context = tls.DownstreamTlsContext(
        common_tls_context=_common(plan),
        require_client_certificate=True if plan.validation is not None else None,
    )
    return core.TransportSocket(name=_SOCKET, typed_config=packed(context))


def client_socket(plan: TlsPlan) -> core.TransportSocket:
    """A cluster's side."""
    context = tls.UpstreamTlsContext(common_tls_context=_common(plan), sni=plan.server_name)
    return core.TransportSocket(name=_SOCKET, typed_config=packed(context))


def _common(plan: TlsPlan) -> tls.CommonTlsContext:
    context = tls.CommonTlsContext(alpn_protocols=list(plan.protocols))
    if plan.certificate is not None:
        _show(context, plan.certificate)
    if plan.validation is not None:
        _believe(context, plan.validation)
    return context


def _show(context: tls.CommonTlsContext, plan: CertificatePlan) -> None:
    if plan.secret:
        context.tls_certificate_sds_secret_configs.append(_secret(plan.secret, ours=plan.ours))
        return
    files = tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=plan.chain), private_key=core.DataSource(filename=plan.key)
    )
    context.tls_certificates.append(files)


def _believe(context: tls.CommonTlsContext, plan: ValidationPlan) -> None:
    matchers = [each for name in plan.names for each in _matchers(name)]
    if not plan.secret:
        context.validation_context = tls.CertificateValidationContext(
            trusted_ca=core.DataSource(filename=plan.authority), match_typed_subject_alt_names=matchers
        )
        return
    # The authority is fetched, the names are the specification's: Envoy puts the two together.
    context.combined_validation_context = tls.CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=tls.CertificateValidationContext(match_typed_subject_alt_names=matchers),
        validation_context_sds_secret_config=_secret(plan.secret, ours=plan.ours),
    )


def _matchers(name: str) -> list[tls.SubjectAltNameMatcher]:
    """App Mesh's names had no type, and Envoy's must have one: it is told by what the name looks like."""
    types = tls.SubjectAltNameMatcherSanType
    if is_address(name):
        # Some authorities write an address as if it were a host name.
        return [_matcher(types.IP_ADDRESS, str(ipaddress.ip_address(name))), _matcher(types.DNS, name)]
    if ":" in name:
        return [_matcher(types.URI, name)]
    return [_matcher(types.EMAIL if "@" in name else types.DNS, name)]


def _matcher(san_type: tls.SubjectAltNameMatcherSanType, exact: str) -> tls.SubjectAltNameMatcher:
    return tls.SubjectAltNameMatcher(san_type=san_type, matcher=matcher.StringMatcher(exact=exact))


def secret_message(plan: IdentityPlan | TrustPlan) -> tls.Secret:
    """A secret that this control plane serves itself."""
    if isinstance(plan, IdentityPlan):
        pair = tls.TlsCertificate(
            certificate_chain=core.DataSource(inline_string=plan.chain),
            private_key=core.DataSource(inline_string=plan.key),
        )
        return tls.Secret(name=plan.name, tls_certificate=pair)
    roots = core.DataSource(inline_string="\n".join(plan.roots) + "\n")
    return tls.Secret(name=plan.name, validation_context=tls.CertificateValidationContext(trusted_ca=roots))


def _secret(name: str, *, ours: bool) -> tls.SdsSecretConfig:
    """A secret that comes with everything else, or one that the proxy asks its own SDS socket for (SPIRE's, say)."""
    if ours:
        return tls.SdsSecretConfig(name=name, sds_config=ads_source())
    service = core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=names.SDS_CLUSTER))
    source = core.ApiConfigSource(
        api_type=core.ApiConfigSourceApiType.GRPC, transport_api_version=core.ApiVersion.V3, grpc_services=[service]
    )
    config = core.ConfigSource(api_config_source=source, resource_api_version=core.ApiVersion.V3)
    return tls.SdsSecretConfig(name=name, sds_config=config)
