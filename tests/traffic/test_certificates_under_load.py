"""What a renewal and a rotation cost those who are in the middle, between real Envoys: nothing.

The load is of two kinds: requests on connections that stay, which must not break, and TCP connections that are each
made anew, which must find a certificate and roots that fit. `red` speaks delta with the frontend, `blue` SotW.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from mesh.commands_pki import DropRoot, PromoteRoot
from tests.traffic.pki import Pki, believing, handshake, shop, tls
from tests.traffic.specs import gateway
from tests.traffic.world import World, available

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]


LOAD_REQUESTS = 40
"""So many of each kind, at least, before and after what is done under load."""


@dataclass
class Load:
    """What came of the load so far. `failed` says what went wrong."""

    kept: int = 0
    fresh: int = 0
    failed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load(world: World, pod: str) -> Iterator[Load]:
    """Requests on connections that stay, and connections made anew, from `front` to the pod, until the end."""
    found, ending = Load(), threading.Event()

    def keep_asking() -> None:
        while not ending.is_set():
            answer = world.ask("web")
            found.kept += 1
            if answer.status != 200:
                found.failed.append(f"HTTP {answer.status} {answer.body[:200]!r}")
            time.sleep(0.002)

    def connect_anew() -> None:
        while not ending.is_set():
            try:
                with world.connect("front", 8083) as connection:
                    connection.sendall(b"hello\n")
                    heard = connection.recv(100)
            except OSError as error:
                heard = repr(error).encode()
            found.fresh += 1
            if heard != f"{pod}: hello\n".encode():
                found.failed.append(f"TCP {heard!r}")
            time.sleep(0.002)

    threads = [threading.Thread(target=work, daemon=True) for work in (keep_asking, connect_anew)]
    for thread in threads:
        thread.start()
    try:
        more(world, found)
        yield found
        more(world, found)
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)


def more(world: World, found: Load) -> None:
    """Wait until so many more of each kind were done."""
    kept, fresh = found.kept + LOAD_REQUESTS, found.fresh + LOAD_REQUESTS
    world.eventually(lambda: found.kept >= kept and found.fresh >= fresh, "load")


@pytest.mark.parametrize("pod", ["red", "blue"])
def test_a_renewal_under_load_breaks_nothing_and_new_connections_see_the_new_serial(world: World, pod: str) -> None:
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host(pod))
    world.mesh(*shop(world, tls(arn), believing(ca), pod))
    updates = "listener_manager.listener_modified|cluster_manager.cluster_modified|update_rejected"
    before = world.proxies[pod].stats(updates)
    with world.connect("front", 8083) as kept, load(world, pod) as found:
        for _ in range(3):
            serial = pki.renew(arn)
            world.settle()
            world.eventually(lambda serial=serial: handshake(world, pki.roots(ca), pod=pod) == serial, "the new serial")  # type: ignore[misc]
            more(world, found)
        kept.sendall(b"still here\n")
        assert kept.recv(100) == f"{pod}: still here\n".encode(), "an open connection stays"
    assert found.failed == []
    assert world.proxies[pod].stats(updates) == before, "nothing but the secret was pushed"
    print(f"renewals: {found.kept} requests, {found.fresh} new connections, 0 failed")


@pytest.mark.parametrize("pod", ["red", "blue"])
def test_a_rotation_of_the_authority_under_load_breaks_nothing(world: World, pod: str) -> None:
    """As the duty does it: believed, issued under, dropped, each heard of by every proxy before the next."""
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host(pod))
    world.mesh(*shop(world, tls(arn), believing(ca), pod), gateway(backendDefaults=believing(ca)))
    old = pki.roots(ca)
    first = pki.state.authorities[ca].issuing
    with world.connect("front", 8083) as kept, load(world, pod) as found:
        new = pki.rotate(ca)
        world.settle()
        more(world, found)
        world.control.do(PromoteRoot(ca, new))
        serial = pki.renew(arn)
        world.settle()
        world.eventually(lambda: handshake(world, pki.roots(ca), pod=pod) == serial, "the new serial")
        more(world, found)
        world.control.do(DropRoot(ca, first))
        world.settle()
        more(world, found)
        kept.sendall(b"still here\n")
        assert kept.recv(100) == f"{pod}: still here\n".encode()
        assert world.ask("web", pod="outside", port=8088, to=world.pods["edge"].v4).app == pod
    assert found.failed == []
    with pytest.raises(ssl.SSLError):
        handshake(world, old, pod=pod)
    print(f"rotation: {found.kept} requests, {found.fresh} new connections, 0 failed")
