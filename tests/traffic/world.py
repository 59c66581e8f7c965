"""The world of the traffic tests: pods with sidecars, a gateway, names, and the control plane that they are fed by.

Started once; a test swaps the whole mesh with `mesh(...)` and is answered when every proxy has taken it. Each mesh gets
host names of its own (`host("red")`), so that no upstream connection, ejection or health of an earlier one is left.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from chaos.envoy import Envoy
from identity.node_id import NodeId
from mesh.kinds import ResourceKey
from proxy.bootstrap import Credentials, build, inline_tls
from runtime.settings import Endpoint
from tests.conditions import eventually
from tests.projector.envoy.test_tls_live import Certificates
from tests.traffic.apps import App
from tests.traffic.control_plane import ACCOUNT, ControlPlane, Create, Delete, Sees, Update
from tests.traffic.dns_server import DOMAIN, DnsServer
from tests.traffic.http2 import Client, Reply
from tests.traffic.loop import Loop
from tests.traffic.namespaces import (
    EXTERNAL_V4,
    EXTERNAL_V6,
    OUTSIDE_V4,
    VIRTUAL_V4,
    NetNamespace,
    Network,
    Pod,
    remove_left_behind,
)
from tests.xds.feeds import TRUST_DOMAIN, Root

T = TypeVar("T")
Spec = Mapping[str, Any]
Declared = tuple[ResourceKey, Spec]

MESH = "shop"
SIDECARS = ("front", "red", "blue")
GATEWAY = "edge"
ADMIN_PORT = 9901
LOG_FLUSH = ("--file-flush-interval-msec", "50")
"""Access logs are written out at once; Envoy's own interval is ten seconds."""
PATIENCE_S = 60.0
HTTP_PORTS = (8080, 8081, 8082, 8083)
"""Every protocol but servers that speak first."""
GREETING_PORTS = (9000, 9001)
"""Servers that speak first."""
GATEWAY_PORTS = (8088, 8089)
TLS_PORT = 443
"""Where the outside world speaks TLS."""
TLS_HOSTS = tuple(f"red.tls{number}.{DOMAIN}" for number in range(8))
"""Red's names in certificates."""


@dataclass
class Answer:
    """An HTTP answer. `saw`: what the application says that it was asked; {} where no application answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    saw: dict[str, Any] = field(default_factory=dict)

    @property
    def app(self) -> str:
        """Which application answered."""
        return str(self.saw.get("app", ""))


class Proxy(Envoy):
    """An Envoy in a pod, spoken to through its pod."""

    def __init__(self, pod: Pod, bootstrap: dict[str, Any], folder: Path) -> None:
        path = folder / "envoy.json"
        path.write_text(json.dumps(bootstrap))
        self._pod = pod
        super().__init__(path, admin_port=ADMIN_PORT, log=folder / "envoy.log", prefix=pod.prefix(), options=LOG_FLUSH)

    def admin(self, path: str, method: str = "GET") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT)
        try:
            connection.sock = self._pod.connect("127.0.0.1", ADMIN_PORT, timeout_s=20)
            connection.request(method, path)
            return connection.getresponse().read().decode()
        except http.client.HTTPException as broken:
            raise OSError(str(broken)) from broken
        finally:
            connection.close()

    def warming(self) -> int:
        """How many clusters, listeners and routes it has taken, and not put to use yet."""
        found = self.stats("warming|init_fetch|total_listeners_warming")
        return sum(count for name, count in found.items() if name.endswith(("warming_clusters", "listeners_warming")))


class World:
    """Use as a context manager. Tests use `mesh`, `ask`, `call` and what the pods, applications and names offer."""

    def __init__(self) -> None:
        self.patience_s = PATIENCE_S
        """How long a test waits for a condition: shorter where it is expected to fail."""
        self._stack = contextlib.ExitStack()
        self._generation = itertools.count(1)
        self.kept: dict[str, Any] = {}
        """What proofs make once for all."""
        self._fresh = itertools.count(1)
        self._number = 0
        self._sees: Sees = lambda event: event
        self._declared: dict[ResourceKey, Spec] = {}
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> None:
        remove_left_behind()
        # Not pytest's own: what a proxy is to read must not depend on whose test found it.
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="meshlog-traffic-")))
        loop = self.loop = Loop()
        self._stack.callback(loop.close)
        self.network = Network()
        self._stack.callback(self.network.close)
        self.pods = {name: self.network.pod(name) for name in (*SIDECARS, GATEWAY)}
        self.outside = self.network.outside
        both = {name: (pod.v4, pod.v6) for name, pod in self.pods.items()}
        both |= {f"ext{number}": each for number, each in enumerate(zip(EXTERNAL_V4, EXTERNAL_V6, strict=True), 1)}
        self.dns = DnsServer(self.outside, loop)
        for name, (v4, v6) in both.items():
            self.dns.set(name, v4)
            self.dns.set(f"{name}-v6", v6)
            self.dns.set(f"{name}-dual", v4, v6)
        self._stack.callback(self.dns.close)
        self.apps = {name: self._app(name, self.pods[name]) for name in SIDECARS}
        self.apps["outside"] = self._app("outside", self.outside)
        self.outside_tls = self._outside_tls()
        self.apps["outside"].open(TLS_PORT, tls=self.outside_tls)
        self.certificates = Certificates(self.folder, hosts=TLS_HOSTS)
        self._stack.enter_context(self.certificates.served())
        self.control = ControlPlane(self.folder, loop)
        self._stack.callback(self.control.close)
        self.control.put(self._whole(()))
        self.proxies = {name: self._proxy(name) for name in self.pods}
        for proxy in self.proxies.values():
            proxy.wait_live()
        self.mesh()

    def _outside_tls(self) -> ssl.SSLContext:
        """As whom the server of the outside world speaks TLS: somebody whom nobody verifies."""
        chain, private = Root("outside").leaf(dns=["outside.example"])
        path = self.folder / "outside.pem"
        path.write_bytes(private + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _app(self, name: str, namespace: NetNamespace) -> App:
        app = App(name, namespace, self.loop)
        self._stack.callback(app.close)
        app.open(*HTTP_PORTS)
        app.open(*GREETING_PORTS, greets=True)
        return app

    def _proxy(self, name: str) -> Proxy:
        pod, folder = self.pods[name], self.folder / name
        folder.mkdir()
        if name != GATEWAY:
            pod.redirect((*HTTP_PORTS, *GREETING_PORTS))
        node = node_id(name)
        chain, key = self.control.certificates.proxies.leaf(uris=[node.spiffe_id(TRUST_DOMAIN)])
        authority = self.control.certificates.servers.pem
        credentials = Credentials(certificate=chain.decode(), key=key.decode(), authority=authority.decode())
        # Both protocols take part: the gateway and one sidecar speak SotW, as App Mesh's own image does.
        bootstrap = build(
            node_id=str(node),
            frontends=[Endpoint("a", "127.0.0.1:1")],
            tls_context=inline_tls(credentials),
            mode="sotw" if name in (GATEWAY, "blue") else "delta",
            admin_port=ADMIN_PORT,
        )
        self._adapt(bootstrap)
        proxy = Proxy(pod, bootstrap, folder)
        self._stack.callback(proxy.stop)
        return proxy

    def _adapt(self, bootstrap: dict[str, Any]) -> None:
        """The product's bootstrap, whose frontend is behind a unix socket, and names come from our DNS server."""
        cluster = bootstrap["static_resources"]["clusters"][0]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"] = {"pipe": {"path": str(self.control.socket)}}
        cluster["type"] = "STATIC"
        bootstrap["static_resources"]["clusters"].append(self.certificates.cluster())
        resolver = {"socket_address": {"address": OUTSIDE_V4, "port_value": 53}}
        bootstrap["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [resolver],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }

    def fresh(self, name: str) -> str:
        """A name that no test has used."""
        return f"{name}-{next(self._fresh)}"

    # --- meshes

    def host(self, label: str) -> str:
        """A host name of the next mesh, for `label`: a pod or `ext1`…`ext8` (IPv4; with `-v6` or `-dual`
        behind it the others), or what the test has told the DNS server.
        """
        return f"{label}.m{self._number + 1}.{DOMAIN}"

    @property
    def tls_host(self) -> str:
        """A host name of the next mesh for red, which its certificates have, and which the last meshes had not."""
        return TLS_HOSTS[self._number % len(TLS_HOSTS)]

    def mesh(self, *declared: Declared, spec: Spec | None = None) -> None:
        """Make the mesh exactly this and wait until every proxy has taken it. Nodes of pods not named are empty."""
        self._declared = self._whole(declared, spec)
        self.control.put(self._declared, self._sees)
        self._number = next(self._generation)
        self.settle()

    def update(self, *declared: Declared) -> None:
        """Change resources that are there, by calls of the API one after the other."""
        self.control.do(*(Update(key, spec) for key, spec in declared))
        self.settle()

    def create(self, *declared: Declared) -> None:
        self.control.do(*(Create(key, spec, {}) for key, spec in declared))
        self.settle()

    def delete(self, *keys: ResourceKey) -> None:
        self.control.do(*(Delete(key) for key in keys))
        self.settle()

    def settle(self) -> None:
        """Wait until every proxy has what it is to have, and uses it."""
        self.eventually(lambda: not self.control.unsettled(), "the proxies' agreement")
        for proxy in self.proxies.values():
            self.eventually(lambda proxy=proxy: proxy.warming() == 0, "warm clusters and listeners")  # type: ignore[misc]

    @contextlib.contextmanager
    def mutated(self, sees: Sees, patience_s: float) -> Iterator[None]:
        """The compiler is blind to something meanwhile."""
        before = self.patience_s
        self._sees, self.patience_s = sees, patience_s
        try:
            yield
        finally:
            self._sees, self.patience_s = lambda event: event, before

    def broken(self) -> list[str]:
        """Who could not be given what it is to have, since the compiler failed."""
        return [
            node for node, alarms in self.control.alarms().items() if any("cannot be compiled at" in a for a in alarms)
        ]

    def eventually(self, probe: Callable[[], T], what: str) -> T:
        return eventually(probe, self.patience_s, what)

    def _whole(self, declared: Sequence[Declared], spec: Spec | None = None) -> dict[ResourceKey, Spec]:
        found: dict[ResourceKey, Spec] = {key("mesh", MESH): spec or {}}
        found |= {key("virtualNode", name): {} for name in SIDECARS}
        found[key("virtualGateway", GATEWAY)] = {
            "listeners": [{"portMapping": {"port": GATEWAY_PORTS[0], "protocol": "http"}}]
        }
        return found | dict(declared)

    # --- clients

    def connect(self, pod: str, port: int = 8080, host: str = VIRTUAL_V4) -> socket.socket:
        """A connection that the application of `pod` opens (`outside`: a client without a mesh)."""
        namespace = self.outside if pod == "outside" else self.pods[pod]
        return namespace.connect(host, port, self.patience_s)

    def ask(
        self,
        authority: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        port: int = 8080,
        pod: str = "front",
        to: str = VIRTUAL_V4,
        body: bytes | None = None,
        do: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One HTTP/1.1 request of the pod's application. Status 0: the connection was turned away or cut."""
        connection = http.client.HTTPConnection(authority, port)
        try:
            connection.sock = self.connect(pod, port, to)
            wish = {"x-do": json.dumps(do)} if do else {}
            connection.request(method, path, body, {"host": authority, **(headers or {}), **wish})
            return answer_of(connection.getresponse())
        except (ConnectionError, http.client.HTTPException):
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def http2(self, pod: str = "front", port: int = 8080, to: str = VIRTUAL_V4, scheme: str = "http") -> Client:
        """An HTTP/2 connection of the pod's application, with prior knowledge."""
        return Client(self.connect(pod, port, to), scheme)

    def ask2(self, authority: str, path: str = "/", *, do: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """One HTTP/2 request. `more`: method, headers, pod, port, to."""
        where = {name: more.pop(name) for name in ("pod", "port", "to") if name in more}
        headers = [*more.pop("headers", {}).items(), *([("x-do", json.dumps(do))] if do else [])]
        with self.http2(**where) as client:
            return client.read(client.start(authority, path, headers=headers, **more))

    def call(
        self,
        authority: str,
        path: str = "/shop.Cart/Get",
        metadata: Mapping[str, str] | None = None,
        *,
        do: Mapping[str, Any] | None = None,
        **where: Any,
    ) -> Reply:
        """One unary gRPC call. `where`: pod, port, to."""
        headers = [*(metadata or {}).items(), *([("x-do", json.dumps(do))] if do else [])]
        with self.http2(**where) as client:
            return client.read(client.start_call(authority, path, headers))

    # ---

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_of(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body, json.loads(body) if body.startswith(b"{") else {})


def key(kind: str, name: str, parent: str = "") -> ResourceKey:
    return ResourceKey(ACCOUNT, MESH, kind, parent, name)


def node_id(pod: str) -> NodeId:
    return NodeId(ACCOUNT, MESH, "virtualGateway" if pod == GATEWAY else "virtualNode", pod)


def available() -> bool:
    """Whether this process may build such a world."""
    done = subprocess.run(["id", "-u"], check=True, capture_output=True, text=True)
    return done.stdout.strip() == "0" and all(shutil.which(tool) for tool in ("ip", "iptables", "ip6tables", "setpriv"))
