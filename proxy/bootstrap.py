"""The first configuration of an Envoy: who it is, and how it reaches all zones' frontends. Values in, a document out.

One ADS cluster has a priority for each zone, the nearest first. Priorities alone never leave a dead frontend, so
outlier detection ejects one at its first failed connection; HTTP/2 pings find one that went silent. Frontends are
verified by the roles' root and the fixed name `frontend.meshlog`, so that their addresses may change. An Envoy says
who it is by a certificate, or signs its streams with an access key that it finds for itself. Nothing here reads a file,
calls anybody, or holds a private key longer than the text that it returns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.errors import BadRequest
from runtime.settings import Endpoint, split_address

Document = dict[str, Any]

MODES = {"delta": "DELTA_GRPC", "sotw": "GRPC"}
ADMIN_PORT = 9901
"""Where App Mesh's own Envoy image had it."""
CLUSTER = "meshlog_frontends"
SERVER_NAME = "frontend.meshlog"
IDENTITY_FILE, AUTHORITY_FILE = "identity.pem", "authority.pem"
IDENTITY_SECRET_FILE, AUTHORITY_SECRET_FILE = "identity.sds.yaml", "authority.sds.yaml"
BOOTSTRAP_FILE = "bootstrap.yaml"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"

_RUNTIME = {"re2.max_program_size.error_level": 1000}
"""What App Mesh's own proxies had. Envoy's 100 refuses every regex of a hundred characters, its route with it."""
PING_INTERVAL, PING_TIMEOUT = "0.5s", "0.5s"
"""A frontend that went silent (its host is gone, its link is down) is left within a second; one ping is 17 bytes."""
CONNECT_TIMEOUT = "1s"
"""TCP and TLS to another zone are three round trips: 0.3 s at the 100 ms of neighbouring continents."""
RETRY_FIRST, RETRY_MAX = "0.1s", "2s"
"""A dead frontend costs two attempts (the broken stream, the refused connection): 0.3 s before the next zone."""
EJECTION, EJECTION_MAX, EJECTION_SWEEP = "1s", "5s", "0.5s"
"""How long a failed frontend is not tried, at first and at most, and how often Envoy looks at it. Short: a stream that
stands is not moved, and when two frontends fail in turn the first must be there again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an Envoy shows (its chain and key) and what it verifies frontends by, PEM texts."""

    certificate: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFile:
    """One file of a bootstrap directory. `private`: for its owner's eyes alone."""

    name: str
    text: str
    private: bool = False


def build(
    *,
    node_id: str,
    frontends: Sequence[Endpoint],
    tls_context: Document,
    mode: str = "delta",
    admin_port: int = ADMIN_PORT,
    zone: str | None = None,
    signing_region: str | None = None,
) -> Document:
    """The bootstrap of `node_id`; `frontends` in order of preference, `zone`'s first. BadRequest if there are none.

    With `signing_region` each stream is signed (SigV4), with the key of Envoy's environment or credentials file.
    """
    if mode not in MODES:
        raise BadRequest(f"mode '{mode}' is unknown: write {' or '.join(MODES)}")
    if not frontends:
        raise BadRequest("no frontend is known to the API server: start one, or check its 'frontends' setting")
    node: Document = {"id": node_id, "cluster": node_id}
    if zone is not None:
        node["locality"] = {"zone": zone}
    config_source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": node,
        "admin": {"address": _socket_address("127.0.0.1", admin_port or ADMIN_PORT)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": MODES[mode],
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": _grpc_service()}],
            },
            "cds_config": config_source,
            "lds_config": dict(config_source),
        },
        "static_resources": {"clusters": [_cluster(_by_zone(frontends, zone), tls_context, signing_region)]},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": dict(_RUNTIME)}]},
    }


def inline_tls(credentials: Credentials) -> Document:
    """The TLS context of a bootstrap that is one text: it cannot be renewed without a restart."""
    return _tls_context(
        {
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": credentials.certificate},
                    "private_key": {"inline_string": credentials.key},
                }
            ],
            "validation_context": _validation({"inline_string": credentials.authority}),
        }
    )


def verifying_tls(authority: str) -> Document:
    """The TLS context of an Envoy that shows no certificate; `authority` (PEM) is what it verifies frontends by."""
    return _tls_context({"validation_context": _validation({"inline_string": authority})})


def file_tls(directory: str) -> Document:
    """The TLS context of a bootstrap directory (absolute path): Envoy reads a file again when it is replaced."""

    def secret(name: str, file: str) -> Document:
        source = {"path": f"{directory}/{file}", "watched_directory": {"path": directory}}
        return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}

    return _tls_context(
        {
            "tls_certificate_sds_secret_configs": [secret("identity", IDENTITY_SECRET_FILE)],
            "validation_context_sds_secret_config": secret("authority", AUTHORITY_SECRET_FILE),
        }
    )


def secret_files(credentials: Credentials, directory: str) -> list[ProxyFile]:
    """What `file_tls(directory)` refers to, in the order to write it.

    Key and chain are one file, so that replacing it is one step and Envoy never pairs one with another's.
    """
    watched = {"watched_directory": {"path": directory}}
    pem = {"filename": f"{directory}/{IDENTITY_FILE}"}
    identity = {"tls_certificate": {"certificate_chain": pem, "private_key": dict(pem)} | watched}
    authority = {"validation_context": _validation({"filename": f"{directory}/{AUTHORITY_FILE}"}) | watched}
    return [
        ProxyFile(name=AUTHORITY_FILE, text=credentials.authority),
        ProxyFile(name=IDENTITY_FILE, text=credentials.key.rstrip() + "\n" + credentials.certificate, private=True),
        ProxyFile(name=AUTHORITY_SECRET_FILE, text=to_yaml(_secret("authority", authority))),
        ProxyFile(name=IDENTITY_SECRET_FILE, text=to_yaml(_secret("identity", identity))),
    ]


def to_yaml(document: Document, comments: Sequence[str] = ()) -> str:
    """YAML in the order written, PEM texts as blocks, `comments` above it."""
    import yaml  # noqa: PLC0415  (30 ms that only this needs)

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    body: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return "".join(f"# {line}\n" for line in comments) + body


def _by_zone(frontends: Sequence[Endpoint], zone: str | None) -> list[list[Endpoint]]:
    """Frontends grouped by zone, `zone` first, the rest in the order given."""
    groups: dict[str, list[Endpoint]] = {zone: []} if zone is not None else {}
    for frontend in frontends:
        groups.setdefault(frontend.zone, []).append(frontend)
    return [group for group in groups.values() if group]


def _grpc_service() -> Document:
    backoff = {"retry_back_off": {"base_interval": RETRY_FIRST, "max_interval": RETRY_MAX}}
    return {"cluster_name": CLUSTER, "authority": SERVER_NAME, "retry_policy": backoff}


def _signing_filters(region: str) -> Document:
    """Envoy's own AWS signer, in the way to frontends. It looks for a key in two places and asks no cloud for one:
    what a cloud gives is AWS's, and nobody here could verify it."""
    signer = {
        "@type": f"{_FILTERS}.aws_request_signing.v3.AwsRequestSigning",
        "service_name": "appmesh",
        "region": region,
        "use_unsigned_payload": True,
        "credential_provider": {
            "custom_credential_provider_chain": True,
            "environment_credential_provider": {},
            "credentials_file_provider": {},
        },
    }
    codec = {"@type": f"{_FILTERS}.upstream_codec.v3.UpstreamCodec"}
    return {
        "http_filters": [
            {"name": "envoy.filters.http.aws_request_signing", "typed_config": signer},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
        ]
    }


def _cluster(zones: list[list[Endpoint]], tls_context: Document, signing_region: str | None) -> Document:
    literal = all(_is_ip(split_address(frontend.address)[0]) for group in zones for frontend in group)
    return {
        "name": CLUSTER,
        "type": "STATIC" if literal else "STRICT_DNS",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [
                {
                    "priority": priority,
                    "locality": {"zone": group[0].zone},
                    "lb_endpoints": [
                        {"endpoint": {"address": _socket_address(*split_address(frontend.address))}}
                        for frontend in group
                    ],
                }
                for priority, group in enumerate(zones)
            ],
        },
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            # A frontend that refuses streams (503: not ready yet) is left like one that refuses connections.
            "consecutive_5xx": 1,
            "enforcing_consecutive_5xx": 100,
            "consecutive_gateway_failure": 1,
            "enforcing_consecutive_gateway_failure": 100,
            "max_ejection_percent": 100,
            "interval": EJECTION_SWEEP,
            "base_ejection_time": EJECTION,
            "max_ejection_time": EJECTION_MAX,
        },
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": f"type.googleapis.com/{_HTTP}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "connection_keepalive": {"interval": PING_INTERVAL, "timeout": PING_TIMEOUT}
                    }
                },
                **(_signing_filters(signing_region) if signing_region is not None else {}),
            }
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls_context},
    }


def _tls_context(common: Document) -> Document:
    parameters = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    return {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": SERVER_NAME,
        "common_tls_context": {"tls_params": parameters, "alpn_protocols": ["h2"]} | common,
    }


def _validation(trusted: Document) -> Document:
    matcher = {"san_type": "DNS", "matcher": {"exact": SERVER_NAME}}
    return {"trusted_ca": trusted, "match_typed_subject_alt_names": [matcher]}


def _secret(name: str, body: Document) -> Document:
    return {"resources": [{"@type": f"{_TLS}.Secret", "name": name} | body]}


def _socket_address(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
