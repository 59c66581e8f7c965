"""Who is connected here, and which node has more proxies than its quota."""

from __future__ import annotations

from contextlib import ExitStack

from identity.node_id import parse_node_id
from xds.connected import ConnectedProxies, ConnectedProxy

ACCOUNT = "123456789012"


def proxy(name: str) -> ConnectedProxy:
    return ConnectedProxy(parse_node_id(f"mesh/m/virtualNode/{name}", ACCOUNT), "delta", "127.0.0.1:1", 0)


def test_a_node_with_more_proxies_than_its_quota_is_named_until_they_leave() -> None:
    proxies = ConnectedProxies()
    with ExitStack() as connected:
        connected.enter_context(proxies.present(proxy("small")))
        for _ in range(3):
            connected.enter_context(proxies.present(proxy("large")))
        assert proxies.crowded(3) == []
        (said,) = proxies.crowded(2)
        assert said.startswith("mesh/m")
        assert "virtualNode/large has 3 proxies connected here, more than the 2 of its quota" in said
    assert proxies.crowded(0) == []
