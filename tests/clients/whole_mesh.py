"""One mesh with every union member, and nearly every field, of App Mesh's specs, in the order of its making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MESH = "shop"
Json = dict[str, Any]


class Part(NamedTuple):
    """A resource: its kind's title (`VirtualNode`), the members that name it, its spec, and another to update it to."""

    title: str
    names: Mapping[str, str]
    spec: Json
    changed: Json

    @property
    def lists(self) -> str:
        """Its kind in the plural, as in `ListMeshes`."""
        return {"Mesh": "Meshes"}.get(self.title, f"{self.title}s")

    @property
    def member(self) -> str:
        """The output member that holds it, as in {"virtualNode": {…}}."""
        return self.title[0].lower() + self.title[1:]

    @property
    def home(self) -> dict[str, str]:
        """What names the list that it is in."""
        own = "meshName" if self.title == "Mesh" else f"{self.member}Name"
        return {member: name for member, name in self.names.items() if member != own}


def _seconds(value: int) -> Json:
    return {"unit": "s", "value": value}


def _duration(value: int) -> Json:
    return {"unit": "ms", "value": value}


def _http_timeout(of: str) -> Json:
    return {of: {"perRequest": _seconds(20), "idle": _seconds(0)}}


def _port(port: int, protocol: str) -> Json:
    return {"portMapping": {"port": port, "protocol": protocol}}


def _check(port: int, protocol: str) -> Json:
    return {
        "protocol": protocol,
        "path": "/ping",
        "port": port,
        "healthyThreshold": 2,
        "unhealthyThreshold": 10,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
    }


_FILE = {"file": {"certificateChain": "/certs/chain.pem", "privateKey": "/certs/key.pem"}}
_SDS = {"sds": {"secretName": "own"}}
_TRUST_FILE = {"trust": {"file": {"certificateChain": "/certs/ca.pem"}}}
_TRUST_SDS = {
    "trust": {"sds": {"secretName": "ca"}},
    "subjectAlternativeNames": {"match": {"exact": ["web.shop.local", "spiffe://shop/web"]}},
}
_TRUST_ACM = {
    "trust": {
        "acm": {
            "certificateAuthorityArns": [
                "arn:aws:acm-pca:eu-north-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012"
            ]
        }
    }
}
_ACM = {"acm": {"certificateArn": "arn:aws:acm:eu-north-1:123456789012:certificate/0b1c2d3e"}}
_LOG_TEXT = {"accessLog": {"file": {"path": "/dev/stdout", "format": {"text": "%START_TIME% %RESPONSE_CODE%\n"}}}}
_LOG_JSON = {
    "accessLog": {"file": {"path": "/dev/stdout", "format": {"json": [{"key": "at", "value": "%START_TIME%"}]}}}
}


def _policy(certificate: Json | None, validation: Json, **more: Any) -> Json:
    own = {} if certificate is None else {"certificate": certificate}
    return {"clientPolicy": {"tls": {"enforce": True, "ports": [443], "validation": validation, **own, **more}}}


def _tls(mode: str, certificate: Json, validation: Json | None = None) -> Json:
    return {"mode": mode, "certificate": certificate, **({} if validation is None else {"validation": validation})}


def _node(name: str, spec: Json, changed: Json) -> Part:
    return Part("VirtualNode", {"meshName": MESH, "virtualNodeName": name}, spec, changed)


_CLOUD_MAP = {
    "awsCloudMap": {
        "namespaceName": "shop.local",
        "serviceName": "cart",
        "attributes": [{"key": "ECS_TASK_DEFINITION_FAMILY", "value": "cart"}],
        "ipPreference": "IPv4_ONLY",
    }
}
_OUTLIERS = {
    "maxServerErrors": 5,
    "interval": _seconds(10),
    "baseEjectionDuration": _seconds(30),
    "maxEjectionPercent": 50,
}
_WEB: Json = {
    "serviceDiscovery": {"dns": {"hostname": "web.shop.local", "responseType": "ENDPOINTS"}},
    "listeners": [
        {
            **_port(8080, "http"),
            "healthCheck": _check(8080, "http"),
            "timeout": _http_timeout("http"),
            "outlierDetection": _OUTLIERS,
            "connectionPool": {"http": {"maxConnections": 10, "maxPendingRequests": 20}},
            "tls": _tls("STRICT", _ACM, _TRUST_FILE),
        }
    ],
    "backends": [
        {"virtualService": {"virtualServiceName": "cart.shop.local", **_policy(_FILE, _TRUST_ACM)}},
        {"virtualService": {"virtualServiceName": "later.shop.local"}},
    ],
    "backendDefaults": _policy(_SDS, _TRUST_SDS),
    "logging": _LOG_TEXT,
}
_CART: Json = {
    "serviceDiscovery": _CLOUD_MAP,
    "listeners": [
        {
            **_port(9090, "grpc"),
            "timeout": _http_timeout("grpc"),
            "connectionPool": {"grpc": {"maxRequests": 5}},
            "tls": _tls("PERMISSIVE", _FILE, _TRUST_SDS),
        },
    ],
    "backends": [],
    "logging": _LOG_JSON,
}
_STOCK: Json = {
    "serviceDiscovery": {"dns": {"hostname": "stock.shop.local"}},
    "listeners": [
        {
            **_port(9091, "http2"),
            "timeout": _http_timeout("http2"),
            "connectionPool": {"http2": {"maxRequests": 7}},
            "tls": _tls("DISABLED", _SDS),
        }
    ],
    "backendDefaults": _policy(None, _TRUST_FILE, enforce=False),
}
_STORE: Json = {
    "serviceDiscovery": {"dns": {"hostname": "store.shop.local"}},
    "listeners": [
        {
            **_port(5432, "tcp"),
            "timeout": {"tcp": {"idle": _seconds(60)}},
            "connectionPool": {"tcp": {"maxConnections": 3}},
        }
    ],
}


def _router(name: str, *listeners: Json) -> Part:
    spec: Json = {"listeners": list(listeners)}
    names = {"meshName": MESH, "virtualRouterName": name}
    return Part("VirtualRouter", names, spec, spec)


def _route(router: str, name: str, spec: Json) -> Part:
    names = {"meshName": MESH, "virtualRouterName": router, "routeName": name}
    return Part("Route", names, spec, {**spec, "priority": 7})


def _service(name: str, spec: Json, changed: Json) -> Part:
    return Part("VirtualService", {"meshName": MESH, "virtualServiceName": name}, spec, changed)


def _to(node: str, weight: int = 1, **more: Any) -> Json:
    return {"action": {"weightedTargets": [{"virtualNode": node, "weight": weight, **more}]}}


_HEADERS = [
    {"name": "x-exact", "match": {"exact": "one"}},
    {"name": "x-prefix", "invert": True, "match": {"prefix": "one"}},
    {"name": "x-suffix", "match": {"suffix": "one"}},
    {"name": "x-regex", "match": {"regex": "on."}},
    {"name": "x-range", "invert": False, "match": {"range": {"start": -1, "end": 10}}},
    {"name": "x-present"},
]
_RETRY: Json = {"maxRetries": 0, "perRetryTimeout": _duration(1500), "tcpRetryEvents": ["connection-error"]}
_HTTP: Json = {
    "priority": 3,
    "httpRoute": {
        "match": {
            "prefix": "/",
            "method": "POST",
            "scheme": "https",
            "headers": _HEADERS,
            "queryParameters": [{"name": "q", "match": {"exact": "1"}}, {"name": "any"}],
            "port": 8080,
        },
        "action": {
            "weightedTargets": [
                {"virtualNode": "web", "weight": 0, "port": 8080},
                {"virtualNode": "stock", "weight": 3},
            ]
        },
        "retryPolicy": {**_RETRY, "httpRetryEvents": ["server-error", "gateway-error", "client-error", "stream-error"]},
        "timeout": {"perRequest": _seconds(15), "idle": _duration(0)},
    },
}
_HTTP2: Json = {"http2Route": {"match": {"path": {"regex": "/a.*"}}, **_to("stock"), "timeout": {"idle": _seconds(9)}}}
_GRPC: Json = {
    "grpcRoute": {
        "match": {"serviceName": "shop.Cart", "methodName": "Add", "metadata": [*_HEADERS], "port": 9090},
        **_to("cart", 100),
        "retryPolicy": {**_RETRY, "grpcRetryEvents": ["cancelled", "unavailable"]},
        "timeout": {"perRequest": _seconds(1)},
    }
}
_TCP: Json = {"tcpRoute": {"match": {"port": 5432}, **_to("store"), "timeout": {"idle": _seconds(5)}}}
_GATEWAY: Json = {
    "listeners": [
        {
            **_port(8443, "http"),
            "healthCheck": _check(8443, "http"),
            "connectionPool": {"http": {"maxConnections": 100, "maxPendingRequests": 1}},
            "tls": _tls("STRICT", _ACM, _TRUST_SDS),
        },
        {
            **_port(8444, "http2"),
            "connectionPool": {"http2": {"maxRequests": 1}},
            "tls": _tls("PERMISSIVE", _FILE, _TRUST_FILE),
        },
        {**_port(8445, "grpc"), "connectionPool": {"grpc": {"maxRequests": 1}}, "tls": _tls("DISABLED", _SDS)},
    ],
    "backendDefaults": _policy(_FILE, _TRUST_ACM),
    "logging": _LOG_JSON,
}
_GATEWAY_CHANGED: Json = {**_GATEWAY, "backendDefaults": _policy(_SDS, _TRUST_SDS), "logging": _LOG_TEXT}
_GATEWAY_2: Json = {"listeners": [_port(80, "http")], "backendDefaults": _policy(None, _TRUST_FILE)}


def _target(service: str, **rewrite: Any) -> Json:
    more = {"rewrite": rewrite} if rewrite else {}
    return {"action": {"target": {"virtualService": {"virtualServiceName": service}}, **more}}


def _gateway_route(gateway: str, name: str, spec: Json) -> Part:
    names = {"meshName": MESH, "virtualGatewayName": gateway, "gatewayRouteName": name}
    return Part("GatewayRoute", names, spec, {**spec, "priority": 1000})


PARTS: tuple[Part, ...] = (
    Part(
        "Mesh",
        {"meshName": MESH},
        {"egressFilter": {"type": "DROP_ALL"}},
        {"egressFilter": {"type": "ALLOW_ALL"}, "serviceDiscovery": {"ipPreference": "IPv6_PREFERRED"}},
    ),
    _node("web", _WEB, {**_WEB, "logging": _LOG_JSON}),
    _node("cart", _CART, {**_CART, "backendDefaults": _policy(_FILE, _TRUST_ACM)}),
    _node("stock", _STOCK, {**_STOCK, "backends": []}),
    _node("store", _STORE, {}),
    _router("main", _port(8080, "http"), _port(9090, "grpc"), _port(9091, "http2"), _port(5432, "tcp")),
    _router("plain", _port(9091, "http2")),
    _route("main", "http", _HTTP),
    _route("main", "grpc", _GRPC),
    _route("main", "tcp", _TCP),
    _route("plain", "http2", _HTTP2),
    _service("cart.shop.local", {"provider": {"virtualNode": {"virtualNodeName": "cart"}}}, {}),
    _service("shop.local", {"provider": {"virtualRouter": {"virtualRouterName": "plain"}}}, {}),
    Part("VirtualGateway", {"meshName": MESH, "virtualGatewayName": "front"}, _GATEWAY, _GATEWAY_CHANGED),
    Part("VirtualGateway", {"meshName": MESH, "virtualGatewayName": "plain"}, _GATEWAY_2, _GATEWAY_2),
    _gateway_route(
        "plain",
        "http",
        {
            "priority": 1,
            "httpRoute": {
                "match": {
                    "prefix": "/shop/",
                    "hostname": {"suffix": ".example.com"},
                    "method": "GET",
                    "headers": _HEADERS,
                    "queryParameters": [{"name": "q", "match": {"exact": "1"}}],
                },
                **_target("shop.local", hostname={"defaultTargetHostname": "DISABLED"}, prefix={"value": "/"}),
            },
        },
    ),
    _gateway_route(
        "front",
        "http2",
        {
            "http2Route": {
                "match": {"path": {"exact": "/one"}, "hostname": {"exact": "example.com"}, "port": 8444},
                **_target("shop.local", path={"exact": "/two"}),
            }
        },
    ),
    _gateway_route(
        "front",
        "grpc",
        {
            "grpcRoute": {
                "match": {"serviceName": "shop.Cart", "metadata": [*_HEADERS[:5]], "port": 8445},
                **_target("cart.shop.local", hostname={"defaultTargetHostname": "ENABLED"}),
            }
        },
    ),
)
