"""Every condition that a route or gateway route can match, with real requests through a real Envoy.

Each route of the table leads to v2 under a path of its own, and what it does not match to v1. So a condition that is
not compiled shows as requests of the second column at v2.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.netns import Namespace, available
from tests.projector.envoy.meshes import canary, compiled, gateway_id, gateway_route, key, node, route
from tests.projector.envoy.test_envoy_accepts import running, upstream

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root and `ip` for network namespaces"),
]


class Ask(NamedTuple):
    path: str = ""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    host: str = "front.example"


def with_header(value: str, name: str = "x-k") -> Ask:
    return Ask(headers=((name, value),))


Conditions = dict[str, Any]
K = "x-k"


def headers(match: Conditions | None, *, invert: bool = False) -> Conditions:
    return {"headers": [{"name": K, **({"match": match} if match else {}), **({"invert": True} if invert else {})}]}


CASES: list[tuple[Conditions, list[Ask], list[Ask]]] = [
    ({"path": {"exact": "{}/only"}}, [Ask("/only"), Ask("/only?q=1")], [Ask("/only/"), Ask("/onlyx")]),
    ({"path": {"regex": "{}/v[0-9]+"}}, [Ask("/v12")], [Ask("/v"), Ask("/vx"), Ask("/v1/more")]),
    ({"method": "POST"}, [Ask(method="POST")], [Ask(), Ask(method="PUT")]),
    (headers({"exact": "a b"}), [with_header("a b")], [with_header("a"), Ask()]),
    (headers({"prefix": "ab"}), [with_header("abc")], [with_header("xab"), Ask()]),
    (headers({"suffix": "yz"}), [with_header("xyz")], [with_header("yzx"), Ask()]),
    (headers({"regex": "[a-c]+"}), [with_header("abc")], [with_header("abcd"), Ask()]),
    (headers({"range": {"start": -1, "end": 5}}), [with_header("4"), with_header("-1")], [with_header("5"), Ask()]),
    (headers(None), [with_header("any")], [Ask()]),
    (headers(None, invert=True), [Ask()], [with_header("any")]),
    (headers({"exact": "no"}, invert=True), [with_header("yes")], [with_header("no")]),
    ({"queryParameters": [{"name": "v", "match": {"exact": "2"}}]}, [Ask("/?v=2")], [Ask("/?v=3"), Ask("/")]),
    ({"queryParameters": [{"name": "debug"}]}, [Ask("/?debug=")], [Ask("/?bug=1")]),
    ({"scheme": "http"}, [Ask()], []),
    ({"scheme": "https"}, [], [Ask()]),
]
GATEWAY_CASES: list[tuple[Conditions, list[Ask], list[Ask]]] = [
    *(case for case in CASES if "scheme" not in case[0]),
    (
        {"hostname": {"exact": "a.example"}},
        [Ask(host="a.example"), Ask(host="A.example:8088")],
        [Ask(host="b.a.example")],
    ),
    ({"hostname": {"suffix": ".example"}}, [Ask(host="a.example")], [Ask(host="a.example.org"), Ask(host="aexample")]),
]


def spelled(conditions: Conditions, prefix: str) -> Conditions:
    """The match under a path of its own."""
    text = json.dumps(conditions).replace("{}", prefix)
    match: Conditions = json.loads(text)
    return match if "path" in match else {**match, "prefix": prefix}


def ask(port: int, prefix: str, wanted: Ask) -> str:
    """Which upstream answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(
            wanted.method, f"{prefix}{wanted.path}", headers={"host": wanted.host, **dict(wanted.headers)}
        )
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, wanted)
        return str(json.loads(body)["who"])
    finally:
        connection.close()


def seen(port: int, cases: list[tuple[Conditions, list[Ask], list[Ask]]]) -> list[str]:
    """What went another way than it should."""
    wrong = []
    for number, (conditions, matching, others) in enumerate(cases):
        for wanted, who in [*((one, "v2") for one in matching), *((one, "v1") for one in others)]:
            found = ask(port, f"/c{number}", wanted)
            if found != who:
                wrong.append(f"{conditions}: {wanted} went to {found}")
    return wrong


def test_each_condition_of_a_route_counts(tmp_path: Path) -> None:
    with Namespace("meshlog-mr") as namespace, upstream("v1", namespace) as one, upstream("v2", namespace) as two:
        log = canary()
        for name, port in (("cart-v1", one), ("cart-v2", two)):
            log.update(
                key("virtualNode", name), node({"portMapping": {"port": port, "protocol": "http"}}, host="127.0.0.1")
            )
        log.update(key("route", "all", "cart"), route({"cart-v1": 1}))
        keep = {"prefix": {"defaultPrefix": "DISABLED"}}
        log.update(key("gatewayRoute", "cart", "edge"), gateway_route("cart.shop.local", {"prefix": "/"}, keep))
        for number, (conditions, _, _) in enumerate(CASES):
            log.create(key("route", f"c{number}", "cart"), route({"cart-v2": 1}, spelled(conditions, f"/c{number}")))
        with running(namespace, compiled(log, gateway_id()), tmp_path):
            assert seen(namespace.expose(8088), CASES) == []


def test_each_condition_of_a_gateway_route_counts(tmp_path: Path) -> None:
    with Namespace("meshlog-mg") as namespace, upstream("v1", namespace) as one, upstream("v2", namespace) as two:
        log = canary(
            (key("virtualService", "new.shop.local"), {"provider": {"virtualNode": {"virtualNodeName": "stock"}}})
        )
        for name, port in (("cart-v1", one), ("stock", two)):
            log.update(
                key("virtualNode", name), node({"portMapping": {"port": port, "protocol": "http"}}, host="127.0.0.1")
            )
        log.update(key("route", "all", "cart"), route({"cart-v1": 1}))
        log.update(key("gatewayRoute", "cart", "edge"), gateway_route("cart.shop.local", {"prefix": "/"}))
        for number, (conditions, _, _) in enumerate(GATEWAY_CASES):
            of = key("gatewayRoute", f"c{number}", "edge")
            log.create(of, gateway_route("new.shop.local", spelled(conditions, f"/c{number}")))
        with running(namespace, compiled(log, gateway_id()), tmp_path):
            assert seen(namespace.expose(8088), GATEWAY_CASES) == []
