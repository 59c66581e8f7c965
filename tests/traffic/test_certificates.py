"""ACM's ARNs between real Envoys: who shows what, who is believed, and what is told before a handshake fails.

Two sidecars and a gateway, with the product's compiler and frontend (the gateway speaks SotW, the sidecars delta).
"""

from __future__ import annotations

from typing import Any

import pytest

from api.renewal import warnings
from tests.traffic.control_plane import ACCOUNT
from tests.traffic.pki import CLOCK, DAY_S, Pki, believing, handshake, shop, tls, told
from tests.traffic.specs import gateway, listener
from tests.traffic.world import World, available

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]


def test_two_sidecars_and_a_gateway_speak_tls_by_arns(world: World) -> None:
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host("red"))
    edge = pki.certificate(ca, "shop.example", "*.shop.example")
    world.mesh(
        *shop(world, tls(arn), believing(ca)),
        gateway(listener(8088, tls=tls(edge)), backendDefaults=believing(ca)),
    )
    assert world.control.alarms() == {}
    assert world.ask("web").app == "red"
    with world.connect("front", 8083) as connection:
        connection.sendall(b"hello\n")
        assert connection.recv(100) == b"red: hello\n"
    assert handshake(world, pki.roots(ca)) == pki.state.certificates[arn].serial
    assert world.ask("web", pod="outside", to=world.pods["red"].v4).status == 0, "no plain text"
    assert handshake(world, pki.roots(ca), 8088, "edge", "shop.example") == pki.state.certificates[edge].serial
    stats = world.proxies["front"].stats("ssl.handshake")
    assert sum(stats.values()) > 0, "not a word of it went in plain text"


def test_without_a_policy_a_certificate_of_ours_is_validated_all_the_same(world: World) -> None:
    """And a permissive listener takes both."""
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host("red"))
    world.mesh(*shop(world, tls(arn, "PERMISSIVE")))
    assert world.ask("web").app == "red"
    assert handshake(world, pki.roots(ca)) == pki.state.certificates[arn].serial
    assert world.ask("web", pod="outside", to=world.pods["red"].v4).status == 200


@pytest.mark.parametrize("source", ["file", "sds"])
def test_a_certificate_of_ours_meets_a_callers_own_in_mutual_tls(world: World, source: str) -> None:
    """The listener shows what we serve and believes what is beside its proxy; the caller the other way round."""
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host("red"))
    files, secret = world.certificates.trust("ours"), {"trust": {"sds": {"secretName": "ours"}}}
    listening = {**tls(arn), "validation": files if source == "file" else secret}
    for who, expected in (("caller", 200), (None, 503)):
        policy: dict[str, Any] = {**believing(ca)["clientPolicy"]["tls"]}
        if who is not None:
            own = world.certificates.files(who) if source == "file" else {"sds": {"secretName": who}}
            policy["certificate"] = own
        world.mesh(*shop(world, listening, {"clientPolicy": {"tls": policy}}))
        assert world.ask("web").status == expected
        arn = pki.certificate(ca, world.host("red"))
        listening["certificate"] = {"acm": {"certificateArn": arn}}


def test_who_does_not_believe_the_issuer_or_the_name_is_told_before_and_refuses(world: World) -> None:
    pki = Pki(world)
    ca, other = pki.authority("shop"), pki.authority("other")
    arn = pki.certificate(ca, world.host("red"))
    world.mesh(*shop(world, tls(arn), believing(other)))
    assert world.ask("web").status == 503
    assert any("is not among the authorities that callers believe" in each for each in told(world, "front"))
    wrong = pki.certificate(ca, "another.internal")
    world.mesh(*shop(world, tls(wrong), believing(ca)))
    assert world.ask("web").status == 503
    assert any("for none of" in each for each in told(world, "front"))
    arn = pki.certificate(ca, world.host("red"))
    world.mesh(*shop(world, tls(arn), believing(other, ca)))
    assert world.ask("web").app == "red"


def test_until_there_is_a_certificate_nothing_is_served_and_that_is_told(world: World) -> None:
    pki = Pki(world)
    ca = pki.authority("shop")
    arn, host = f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/{world.fresh('late')}", world.host("red")
    world.mesh(*shop(world, tls(arn), believing(ca)))
    assert world.ask("web").status == 503
    assert world.ask("web", pod="outside", to=world.pods["red"].v4).status == 0
    assert any("does not exist" in each for each in told(world, "red"))
    pki.certificate(ca, host, arn=arn)
    world.settle()
    assert world.ask("web").app == "red"
    assert world.control.alarms() == {}


def test_an_expired_certificate_is_refused_and_told(world: World) -> None:
    pki = Pki(world)
    ca = pki.authority("shop")
    arn = pki.certificate(ca, world.host("red"), ago_s=10 * DAY_S, life_s=9 * DAY_S)
    world.mesh(*shop(world, tls(arn), believing(ca)))
    assert world.ask("web").status == 503
    assert any("have expired" in said and arn in said for said in warnings(pki.state, CLOCK.now_us()))
    pki.renew(arn)
    world.settle()
    assert world.ask("web").app == "red"
    assert not any(arn in said for said in warnings(pki.state, CLOCK.now_us()))
