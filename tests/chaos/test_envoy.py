"""When an Envoy counts as live, and what it tells of failures."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from chaos.envoy import Envoy
from mesh.errors import Unavailable
from runtime.clock import SystemEntropy
from runtime.ports import LOOPBACK, free_ports


def bootstrap(admin_port: int, *listeners: int) -> dict[str, object]:
    """An Envoy that forwards its listeners' connections to a cluster without endpoints."""
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "t",
            "cluster": "nobody",
        },
    }
    return {
        "admin": {"address": {"socket_address": {"address": LOOPBACK, "port_value": admin_port}}},
        "static_resources": {
            "clusters": [{"name": "nobody", "type": "STATIC", "connect_timeout": "1s"}],
            "listeners": [
                {
                    "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
                    "filter_chains": [{"filters": [proxy]}],
                }
                for port in listeners
            ],
        },
    }


def test_an_envoy_is_live_with_a_listener_of_its_own_not_with_whoever_answers_there(tmp_path: Path) -> None:
    admin_port, own_port = free_ports(LOOPBACK, 2, SystemEntropy())
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap(admin_port, own_port)))
    with (
        socket.create_server((LOOPBACK, 0)) as other,
        Envoy(path, admin_port=admin_port, log=tmp_path / "log", prefix=("env",)) as envoy,
    ):
        envoy.wait_live(own_port)
        with pytest.raises(Unavailable, match="not live"):
            envoy.wait_live(other.getsockname()[1], timeout_s=0.5)
        socket.create_connection((LOOPBACK, own_port)).close()
        assert all(value for value in envoy.failures().values())
