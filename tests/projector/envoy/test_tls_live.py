"""TLS between real Envoys: modes, who is believed and who is not, certificates in files and from a secret socket."""

from __future__ import annotations

import collections
import contextlib
import http.client
import re
import shutil
import ssl
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from cluster import pki
from projector.envoy import names
from projector.envoy.protos import core, tls
from projector.snapshot import TYPE_SECRET
from runtime.clock import SystemClock, SystemEntropy
from tests.conditions import eventually
from tests.envoy_process import Envoy
from tests.netns import Namespace, available
from tests.projector.envoy.meshes import (
    Log,
    Spec,
    by_node,
    canary,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
)
from tests.projector.envoy.test_envoy_accepts import running, upstream
from tests.projector.envoy.test_tcp_live import greeting, speaks_first
from xds.wire import discovery_pb2 as wire

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        not available() or shutil.which("iptables") is None, reason="needs root, `ip` and `iptables` for namespaces"
    ),
]

SERVICE = "10.99.0.1"
SERVER, CALLER, STRANGER = (f"spiffe://shop.local/{who}" for who in ("server", "caller", "stranger"))
REFUSED = (OSError, http.client.HTTPException)
HTTP_MODES = ("STRICT", "PERMISSIVE", "MUTUAL", "DISABLED")


class Certificates:
    """An authority and what it signed, and another authority, as files; and a socket that serves secrets.

    `foreign` is the caller's certificate by the other authority.
    """

    def __init__(self, folder: Path, hosts: tuple[str, ...] = ("localhost",)) -> None:
        self.folder = folder
        self.socket = folder / "sds.sock"
        clock, entropy = SystemClock(), SystemEntropy()
        ours, other = (pki.create_authority(name, clock.now_us(), entropy) for name in ("ours", "other"))
        self._write("ours.crt", ours.certificate_pem)
        self._write("other.crt", other.certificate_pem)
        for uri in (SERVER, CALLER, STRANGER):
            who = uri.rpartition("/")[2]
            leaf = pki.Leaf(common_name=who, hosts=hosts, uri=uri, server=True, client=True)
            for name, authority in ((who, ours), *((("foreign", other),) if uri == CALLER else ())):
                issued = pki.issue(authority, leaf, clock.now_us(), entropy)
                self._write(f"{name}.crt", issued.certificate_pem)
                self._write(f"{name}.key", issued.key_pem)

    def _write(self, name: str, pem: bytes) -> None:
        (self.folder / name).write_bytes(pem)

    def files(self, who: str) -> dict[str, Any]:
        chain, private = self.folder / f"{who}.crt", self.folder / f"{who}.key"
        return {"file": {"certificateChain": str(chain), "privateKey": str(private)}}

    def trust(self, authority: str) -> dict[str, Any]:
        return {"trust": {"file": {"certificateChain": str(self.folder / f"{authority}.crt")}}}

    def secret(self, name: str) -> bytes:
        def inline(file: str) -> Any:
            return core.DataSource(inline_bytes=(self.folder / file).read_bytes())

        if name in ("ours", "other"):
            validation = tls.CertificateValidationContext(trusted_ca=inline(f"{name}.crt"))
            return bytes(tls.Secret(name=name, validation_context=validation))
        pair = tls.TlsCertificate(certificate_chain=inline(f"{name}.crt"), private_key=inline(f"{name}.key"))
        return bytes(tls.Secret(name=name, tls_certificate=pair))

    def cluster(self) -> dict[str, Any]:
        """What the bootstrap of a proxy with a secret socket has."""
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        endpoint = {"endpoint": {"address": {"pipe": {"path": str(self.socket)}}}}
        return {
            "name": names.SDS_CLUSTER,
            "type": "STATIC",
            "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **http2}},
            "load_assignment": {"cluster_name": names.SDS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        }

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        def stream(requests: Iterator[Any], _: grpc.ServicerContext) -> Iterator[Any]:
            for request in requests:
                if not request.response_nonce:
                    found = [wire.Any(type_url=TYPE_SECRET, value=self.secret(name)) for name in request.resource_names]
                    yield wire.DiscoveryResponse(version_info="1", nonce="1", type_url=TYPE_SECRET, resources=found)

        server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        handler = grpc.stream_stream_rpc_method_handler(
            stream,
            request_deserializer=wire.DiscoveryRequest.FromString,
            response_serializer=wire.DiscoveryResponse.SerializeToString,
        )
        service = "envoy.service.secret.v3.SecretDiscoveryService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"StreamSecrets": handler}),))
        server.add_insecure_port(f"unix://{self.socket}")
        server.start()
        try:
            yield
        finally:
            server.stop(None).wait()


class Server(NamedTuple):
    """A sidecar's listeners, by mode, as ports of this host; `first` is PERMISSIVE TCP whose server speaks first."""

    certificates: Certificates
    ports: dict[str, int]
    first: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    certificates = Certificates(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(certificates.served())
        namespace = stack.enter_context(Namespace("meshlog-tls"))
        namespace.redirect(SERVICE, 15000)
        ports = {mode: stack.enter_context(upstream(mode, namespace)) for mode in HTTP_MODES}
        first = stack.enter_context(speaks_first("app", namespace))
        files = certificates.files("server")
        mutual = {
            "mode": "STRICT",
            "certificate": {"sds": {"secretName": "server"}},
            "validation": {"trust": {"sds": {"secretName": "ours"}}, **named(CALLER)},
        }
        spec = node(
            listener(ports["STRICT"], tls={"mode": "STRICT", "certificate": files}),
            listener(ports["PERMISSIVE"], tls={"mode": "PERMISSIVE", "certificate": files}),
            listener(ports["MUTUAL"], tls=mutual),
            listener(ports["DISABLED"], tls={"mode": "DISABLED"}),
            listener(first, "tcp", tls={"mode": "PERMISSIVE", "certificate": files}),
        )
        snapshot = compiled(canary((key("virtualNode", "server"), spec)), node_id("server"))
        assert snapshot.alarms == ()
        stack.enter_context(running(namespace, snapshot, folder, [certificates.cluster()]))
        exposed = {mode: namespace.expose(port, SERVICE) for mode, port in ports.items()}
        yield Server(certificates, exposed, namespace.expose(first, SERVICE))


def named(*exact: str) -> dict[str, Any]:
    return {"subjectAlternativeNames": {"match": {"exact": list(exact)}}}


def ask(port: int, host: str = "any.example", context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status and body of one request, in plain text or over TLS."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def believing(server: Server, who: str | None = None) -> ssl.SSLContext:
    """A client that believes our authority, and says who it is."""
    folder = server.certificates.folder
    context = ssl.create_default_context(cafile=str(folder / "ours.crt"))
    if who is not None:
        context.load_cert_chain(folder / f"{who}.crt", folder / f"{who}.key")
    return context


def test_a_listener_takes_what_its_mode_says_and_nothing_else(server: Server) -> None:
    ports = server.ports
    assert ask(ports["STRICT"], context=believing(server))[0] == 200
    with pytest.raises(REFUSED):
        ask(ports["STRICT"])
    assert ask(ports["PERMISSIVE"], context=believing(server))[0] == 200
    assert ask(ports["PERMISSIVE"])[0] == 200
    assert ask(ports["DISABLED"])[0] == 200
    with pytest.raises(REFUSED):
        ask(ports["DISABLED"], context=believing(server))


def test_a_listener_that_validates_clients_takes_those_with_a_name_of_its_list(server: Server) -> None:
    port = server.ports["MUTUAL"]
    assert ask(port, context=believing(server, "caller"))[0] == 200
    for context in (None, believing(server), believing(server, "stranger")):
        with pytest.raises(REFUSED):
            ask(port, context=context)


def test_a_server_that_speaks_first_is_heard_with_tls_and_without(server: Server) -> None:
    began_s = time.monotonic()
    assert greeting(server.first) == "app"
    assert time.monotonic() - began_s < 60, "a silent client is taken for one of plain text"
    plain = http.client.HTTPSConnection("localhost", server.first, timeout=20, context=believing(server))
    with contextlib.closing(plain):
        plain.connect()
        assert plain.sock.recv(4) == b"app\n"


def policies(certificates: Certificates) -> dict[str, tuple[str, str, Spec | None, int]]:
    """By name: the server's mode, the host name by which it is found, a client policy, and what requests get."""
    ours, other = certificates.trust("ours"), certificates.trust("other")
    caller, stranger = certificates.files("caller"), certificates.files("stranger")
    fetched = {"trust": {"sds": {"secretName": "ours"}}, **named(SERVER)}
    by_secret = {"tls": {"validation": fetched, "certificate": {"sds": {"secretName": "caller"}}}}
    return {
        "nothing-said-plain": ("DISABLED", "localhost", None, 200),
        "nothing-said-strict": ("STRICT", "localhost", None, 200),
        "nothing-said-permissive": ("PERMISSIVE", "localhost", None, 200),
        "nothing-said-mutual": ("MUTUAL", "localhost", None, 503),
        "our-authority": ("STRICT", "localhost", {"tls": {"validation": ours}}, 200),
        "other-authority": ("STRICT", "localhost", {"tls": {"validation": other}}, 503),
        "other-name-of-discovery": ("STRICT", "127.0.0.1", {"tls": {"validation": ours}}, 503),
        "right-name": ("STRICT", "127.0.0.1", {"tls": {"validation": {**ours, **named("x", SERVER)}}}, 200),
        "wrong-name": ("STRICT", "localhost", {"tls": {"validation": {**ours, **named(STRANGER)}}}, 503),
        "enforced": ("DISABLED", "localhost", {"tls": {"validation": ours}}, 503),
        "enforced-on-permissive": ("PERMISSIVE", "localhost", {"tls": {"validation": ours}}, 200),
        "not-enforced": ("DISABLED", "localhost", {"tls": {"validation": ours, "enforce": False}}, 200),
        "not-enforced-strict": ("STRICT", "localhost", {"tls": {"validation": other, "enforce": False}}, 503),
        "another-port": ("DISABLED", "localhost", {"tls": {"validation": ours, "ports": [1]}}, 200),
        "another-port-strict": ("STRICT", "localhost", {"tls": {"validation": other, "ports": [1]}}, 200),
        "mutual": ("MUTUAL", "localhost", {"tls": {"validation": ours, "certificate": caller}}, 200),
        "mutual-stranger": ("MUTUAL", "localhost", {"tls": {"validation": ours, "certificate": stranger}}, 503),
        "mutual-without": ("MUTUAL", "localhost", {"tls": {"validation": ours}}, 503),
        "secrets": ("MUTUAL", "localhost", by_secret, 200),
    }


def test_a_client_policy_decides_whom_a_caller_believes_and_what_it_shows(server: Server, tmp_path: Path) -> None:
    cases = policies(server.certificates)
    log = Log()
    backends = []
    for mode, port in server.ports.items():
        for host in ("localhost", "127.0.0.1"):
            log.create(key("virtualNode", f"{mode}-{host}"), node(listener(port, tls=offered(mode)), host=host))
    for case, (mode, host, policy, _) in cases.items():
        log.create(key("virtualService", case), by_node(f"{mode}-{host}"))
        backend = {"virtualServiceName": case, **({} if policy is None else {"clientPolicy": policy})}
        backends.append({"virtualService": backend})
    log.create(
        key("virtualNode", "first"), node(listener(server.first, "tcp", tls=offered("PERMISSIVE")), host="localhost")
    )
    log.create(key("virtualService", "first"), by_node("first"))
    backends.append({"virtualService": {"virtualServiceName": "first"}})
    log.create(key("virtualNode", "caller"), {"backends": backends})
    snapshot = compiled(log, node_id("caller"))
    assert snapshot.alarms == ()
    with Namespace("meshlog-tlscall") as namespace:
        namespace.redirect(SERVICE, 15001)
        for port in (*server.ports.values(), server.first):
            namespace.carry(port)
        with running(namespace, snapshot, tmp_path, [server.certificates.cluster()]) as (envoy, _):
            ports = {mode: namespace.expose(port, SERVICE) for mode, port in server.ports.items()}
            statuses = {case: ask(ports[mode], case)[0] for case, (mode, *_) in cases.items()}
            assert statuses == {case: status for case, (*_, status) in cases.items()}
            # One policy's cluster believes the other authority; two expect another name, of one target each.
            assert failures(envoy, "error") == {"STRICT-localhost": 1}
            assert failures(envoy, "san") == {"STRICT-localhost": 1, "STRICT-127.0.0.1": 1}
            assert greeting(namespace.expose(server.first, SERVICE)) == "app"
            for target in ("PERMISSIVE-localhost_http", "first_tcp"):
                handshakes = envoy.stats(f"^cluster\\.cds_egress_shop_{target}_[0-9]+\\.ssl\\.handshake$")
                assert [count > 0 for count in handshakes.values()] == [True], (
                    "a PERMISSIVE server is spoken to with TLS"
                )


def failures(envoy: Envoy, why: str) -> collections.Counter[str]:
    """How many clusters of each target turned a server's certificate away: for its names (`san`), or its `error`."""
    counted = envoy.stats(f"^cluster\\..*\\.ssl\\.fail_verify_{why}$")
    return collections.Counter(re.sub(r".*_shop_(.+)_http_.*", r"\1", name) for name, count in counted.items() if count)


def offered(mode: str) -> dict[str, Any]:
    """As a caller sees a listener's `tls`: of the certificate it needs to know the kind alone."""
    return {"mode": "STRICT" if mode == "MUTUAL" else mode, "certificate": {"sds": {"secretName": "server"}}}


def test_a_gateway_takes_tls_and_has_a_policy_for_all_that_is_behind_it(server: Server, tmp_path: Path) -> None:
    port = server.ports["MUTUAL"]
    log = canary()
    for other in ("cart-v1", "cart-v2"):
        log.update(key("virtualNode", other), node(host="127.0.0.1"))
    log.update(key("virtualNode", "stock"), node(listener(port, tls=offered("MUTUAL")), host="localhost"))
    log.create(key("gatewayRoute", "stock", "edge"), gateway_route("stock.shop.local", {"prefix": "/"}))
    ours = server.certificates.trust("ours")
    files = {"mode": "STRICT", "certificate": server.certificates.files("server"), "validation": ours}
    context = believing(server, "stranger")

    def edge(who: str) -> dict[str, Any]:
        policy = {"validation": ours, "certificate": server.certificates.files(who)}
        return gateway(listener(8443, tls=files), backendDefaults={"clientPolicy": {"tls": policy}})

    log.update(key("virtualGateway", "edge"), edge("caller"))
    with Namespace("meshlog-tlsedge") as namespace:
        namespace.carry(port)
        with running(namespace, compiled(log, gateway_id()), tmp_path) as (_, ads):
            entrance = namespace.expose(8443)
            status, body = ask(entrance, context=context)
            assert (status, '"who": "MUTUAL"' in body) == (200, True)
            for refused in (None, believing(server)):
                with pytest.raises(REFUSED):
                    ask(entrance, context=refused)
            log.update(key("virtualGateway", "edge"), edge("stranger"))
            ads.serve(compiled(log, gateway_id()))
            eventually(ads.settled, what="the Envoy's acknowledgement")
            eventually(lambda: ask(entrance, context=context)[0] == 503, what="the new certificate's refusal")
