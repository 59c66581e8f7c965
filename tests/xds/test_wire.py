"""The generated classes are what the .proto says, and say on the wire what Envoy's own API says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest

from xds.wire import discovery_pb2 as wire

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["xds/wire/discovery_pb2", "projector/envoy/wire/endpoint_pb2"])
def test_the_committed_classes_are_those_of_the_proto(module: str, tmp_path: Path) -> None:
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    subprocess.run([ROOT / "scripts" / "generate_wire.sh", tmp_path], check=True, env=environment)
    for suffix in (".py", ".pyi"):
        generated, committed = (tmp_path / (module + suffix)).read_text(), (ROOT / (module + suffix)).read_text()
        if suffix == ".py":
            assert _serialized(generated) == _serialized(committed)
        else:
            assert generated == committed


def _serialized(module: str) -> bytes:
    """The descriptor that a generated module registers."""
    call = next(
        node
        for node in ast.walk(ast.parse(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "AddSerializedFile"
    )
    assert isinstance(call.args[0], ast.Constant)
    assert isinstance(call.args[0].value, bytes)
    return call.args[0].value


def test_requests_read_as_envoys_own_api_writes_them() -> None:
    theirs = DiscoveryRequest(
        version_info="v", node=Node(id="n", cluster="c"), resource_names=["a", "b"], type_url="t", response_nonce="x"
    )
    sotw = wire.DiscoveryRequest.FromString(bytes(theirs))
    assert (sotw.version_info, sotw.node.id, sotw.node.cluster) == ("v", "n", "c")
    assert (sotw.type_url, sotw.response_nonce) == ("t", "x")
    assert list(sotw.resource_names) == ["a", "b"]
    assert not sotw.HasField("error_detail")
    delta = wire.DeltaDiscoveryRequest.FromString(
        bytes(
            DeltaDiscoveryRequest(
                node=Node(id="n"), type_url="t", resource_names_subscribe=["a"], resource_names_unsubscribe=["b"],
                initial_resource_versions={"r": "1"}, response_nonce="x",
            )
        )
    )  # fmt: skip
    assert (list(delta.resource_names_subscribe), list(delta.resource_names_unsubscribe)) == (["a"], ["b"])
    assert (dict(delta.initial_resource_versions), delta.response_nonce) == ({"r": "1"}, "x")


def test_responses_read_back_in_envoys_own_api() -> None:
    ours = wire.DeltaDiscoveryResponse(
        type_url="t", nonce="x", removed_resources=["gone"], system_version_info="1.2",
        resources=[wire.Resource(name="r", version="1", resource=wire.Any(type_url="t", value=b"body"))],
    )  # fmt: skip
    theirs = DeltaDiscoveryResponse.parse(ours.SerializeToString())
    assert (theirs.type_url, theirs.nonce, theirs.removed_resources) == ("t", "x", ["gone"])
    assert (theirs.resources[0].name, theirs.resources[0].version) == ("r", "1")
