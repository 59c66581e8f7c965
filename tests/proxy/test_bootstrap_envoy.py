"""The bootstrap in a real Envoy: it finds a frontend, leaves a dead or silent one, and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import pki
from identity.node_id import parse_node_id
from proxy import bootstrap
from runtime.clock import SystemClock, SystemEntropy
from runtime.files import PRIVATE, PUBLIC, write_atomic
from runtime.ports import free_port
from runtime.settings import Endpoint
from tests.conditions import eventually, promised

pytestmark = pytest.mark.e2e

NODE = "mesh/shop/virtualGateway/edge"
ACCOUNT, DOMAIN = "123456789012", "meshlog.local"
CLOCK, ENTROPY = SystemClock(), SystemEntropy()
LEAVES_WITHIN_S = 1.0


class Part:
    """A process of the test and the lines it has said."""

    def __init__(self, argv: list[str], output: Path) -> None:
        self.output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self.output.read_text(errors="replace").splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in said if event["event"] == kind]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Bench:
    """Certificates, two ports for frontends in two zones, and whatever has been started."""

    def __init__(self, directory: Path) -> None:
        now_us = CLOCK.now_us()
        self.directory = directory
        self.parts: list[Part] = []
        self.roles = pki.create_authority(pki.ROLES_ROOT, now_us, ENTROPY)
        self.proxies = pki.create_authority(pki.PROXIES_ROOT, now_us, ENTROPY)
        served = pki.issue(self.roles, pki.role_leaf("frontend", DOMAIN), now_us, ENTROPY)
        write_atomic(directory / "tls.key", served.key_pem, PRIVATE)
        write_atomic(directory / "tls.crt", served.certificate_pem)
        write_atomic(directory / "clients.crt", self.proxies.certificate_pem)
        self.ports = {"z1": free_port(), "z2": free_port()}
        self.admin_port = free_port()

    def frontend(self, zone: str, *flags: str) -> Part:
        script = str(Path(__file__).with_name("ads_server.py"))
        argv = [sys.executable, script, zone, str(self.ports[zone]), str(self.directory), *flags]
        part = Part(argv, self.directory / f"{zone}-{len(self.parts)}.log")
        self.parts.append(part)
        eventually(lambda: part.events("listening"), what=f"the frontend of {zone} listens")
        return part

    def credentials(self, serial: int = 1) -> bootstrap.Credentials:
        csr_pem, key_pem = pki.make_request(NODE)
        now_us = CLOCK.now_us()
        certificate = pki.sign_proxy_request(
            self.proxies,
            csr_pem,
            node=parse_node_id(NODE, ACCOUNT),
            trust_domain=DOMAIN,
            serial=serial,
            now_us=now_us,
            not_after_us=now_us + 3_600_000_000,
        )
        return bootstrap.Credentials(
            certificate=certificate.decode(), key=key_pem.decode(), authority=self.roles.certificate_pem.decode()
        )

    def document(self, tls_context: bootstrap.Document, mode: str = "delta") -> bootstrap.Document:
        return bootstrap.build(
            node_id=NODE,
            frontends=[Endpoint(zone, f"127.0.0.1:{port}") for zone, port in self.ports.items()],
            tls_context=tls_context,
            mode=mode,
            admin_port=self.admin_port,
            zone="z1",
        )

    def envoy(self, document: bootstrap.Document) -> Part:
        path = self.directory / bootstrap.BOOTSTRAP_FILE
        write_atomic(path, bootstrap.to_yaml(document, ["for a test"]).encode(), PRIVATE)
        binary = shutil.which("envoy") or str(Path(sys.executable).with_name("envoy"))
        argv = [binary, "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "info"]
        part = Part(argv, self.directory / "envoy.log")
        self.parts.append(part)
        return part

    def admin(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def close(self) -> None:
        for part in self.parts:
            part.kill()


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """A new bench at each call; the one before it is closed."""
    with contextlib.ExitStack() as open_one:

        def another() -> Bench:
            open_one.close()
            made = Bench(Path(tempfile.mkdtemp(dir=tmp_path)))
            open_one.callback(made.close)
            return made

        yield another


@pytest.fixture
def bench(benches: Callable[[], Bench]) -> Bench:
    return benches()


def seconds_until(probe: Callable[[], object], what: str) -> float:
    start = time.monotonic()
    eventually(probe, what=what)
    return time.monotonic() - start


@pytest.mark.parametrize("mode", ["delta", "sotw"])
def test_envoy_dials_its_own_zone_with_its_identity(bench: Bench, mode: str) -> None:
    far, near = bench.frontend("z2"), bench.frontend("z1")
    bench.envoy(bench.document(bootstrap.inline_tls(bench.credentials()), mode))

    (first,) = eventually(lambda: near.events("message"), what="a first request")
    assert first["method"] == {"delta": "DeltaAggregatedResources", "sotw": "StreamAggregatedResources"}[mode]
    assert NODE in first["node"]
    (stream,) = near.events("stream")
    assert f"spiffe://{DOMAIN}/{ACCOUNT}/{NODE}" in stream["peer"]
    assert far.events("stream") == []


def test_envoy_leaves_a_killed_frontend_within_a_second_and_finds_it_again(benches: Callable[[], Bench]) -> None:
    tried: list[tuple[Bench, Part]] = []

    def leave() -> float:
        bench = benches()
        near, far = bench.frontend("z1"), bench.frontend("z2")
        tried.append((bench, far))
        bench.envoy(bench.document(bootstrap.inline_tls(bench.credentials())))
        eventually(lambda: near.events("message"), what="a first request")
        near.kill()
        return seconds_until(lambda: far.events("message"), "the other zone")

    promised(leave, LEAVES_WITHIN_S)
    bench, far = tried[-1]
    again = bench.frontend("z1")
    far.kill()
    # By then z1's ejection may not be over; with every frontend ejected Envoy tries them all.
    eventually(lambda: again.events("message"), what="the first zone again")


def test_envoy_leaves_a_silent_frontend_within_two_pings_and_one_connect(benches: Callable[[], Bench]) -> None:
    def leave() -> float:
        bench = benches()
        near, far = bench.frontend("z1"), bench.frontend("z2")
        bench.envoy(bench.document(bootstrap.inline_tls(bench.credentials())))
        eventually(lambda: near.events("message"), what="a first request")
        os.kill(near.process.pid, signal.SIGSTOP)
        try:
            # Its kernel still accepts connections, so the TLS handshake has to run out of time as well.
            return seconds_until(lambda: far.events("message"), "the other zone")
        finally:
            os.kill(near.process.pid, signal.SIGCONT)

    promised(leave, 3.5)


def test_a_frontend_busy_in_its_interpreter_is_not_left(bench: Bench) -> None:
    far = bench.frontend("z2")
    near = bench.frontend("z1", "busy")
    bench.envoy(bench.document(bootstrap.inline_tls(bench.credentials())))
    eventually(lambda: near.events("idle"), what="two busy seconds")
    assert len(near.events("stream")) == 1
    assert far.events("stream") == []


def test_certificates_in_files_are_read_again_when_replaced(bench: Bench) -> None:
    near = bench.frontend("z1")
    directory = bench.directory / "identity"

    def write(serial: int) -> None:
        for file in bootstrap.secret_files(bench.credentials(serial), str(directory)):
            write_atomic(directory / file.name, file.text.encode(), PRIVATE if file.private else PUBLIC)

    write(0xABC1)
    bench.envoy(bench.document(bootstrap.file_tls(str(directory))))
    eventually(lambda: near.events("message"), what="a first request")
    assert "abc1" in bench.admin("/certs")

    write(0xABC2)
    eventually(lambda: "abc2" in bench.admin("/certs") and "abc1" not in bench.admin("/certs"), what="the new one")
    near.kill()
    again = bench.frontend("z1")
    eventually(lambda: again.events("message"), what="a connection with the new certificate")


def test_a_frontend_of_another_root_is_not_believed(bench: Bench) -> None:
    stranger = pki.create_authority(pki.ROLES_ROOT, CLOCK.now_us(), ENTROPY)
    credentials = bench.credentials()
    wrong = bootstrap.Credentials(
        certificate=credentials.certificate, key=credentials.key, authority=stranger.certificate_pem.decode()
    )
    near = bench.frontend("z1")
    bench.envoy(bench.document(bootstrap.inline_tls(wrong)))
    failures = f"cluster.{bootstrap.CLUSTER}.ssl.fail_verify_error"
    eventually(lambda: f"{failures}: 0" not in (text := bench.admin(f"/stats?filter={failures}")) and text)
    assert near.events("stream") == []
