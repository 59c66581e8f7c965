"""The etcd3 package on a current protobuf: nothing of its generated modules is executed, and all messages are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.etcd import protos


def test_messages_come_from_the_current_runtime() -> None:
    request = protos.rpc.RangeRequest(key=b"a", limit=3)
    assert protos.rpc.RangeRequest.FromString(request.SerializeToString()) == request
    assert "upb" in type(request).__mro__[1].__module__ or hasattr(request, "DESCRIPTOR")
    assert protos.kv.Event.EventType.Name(protos.kv.Event.DELETE) == "DELETE"


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (protos.rpc.WatchRequest(progress_request=protos.rpc.WatchProgressRequest()), b"\x1a\x00"),
        (protos.rpc.WatchCreateRequest(fragment=True), b"\x40\x01"),
        (protos.rpc.WatchResponse(fragment=True), b"\x38\x01"),
        (protos.rpc.StatusResponse(dbSizeInUse=5), b"\x48\x05"),
        (protos.rpc.AuthUserAddRequest(options=protos.auth.UserAddOptions(no_password=True)), b"\x1a\x02\x08\x01"),
    ],
)
def test_later_fields_have_etcds_numbers(message: object, wire: bytes) -> None:
    assert message.SerializeToString() == wire  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", ["KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth"])
def test_every_stub_is_there(service: str) -> None:
    assert hasattr(protos.rpc, f"{service}Stub")


def test_it_imports_beside_envoys_classes_without_a_warning() -> None:
    code = "import envoy_data_plane; from cluster.etcd import protos; print(protos.etcd3.__version__)"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "0.12.0\n"), ran.stderr
