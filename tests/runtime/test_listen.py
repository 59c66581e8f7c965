"""An address that cannot be listened on is named before a role does anything."""

from __future__ import annotations

import socket

import pytest

from mesh.errors import SettingsError
from runtime.listen import check_free


def test_a_free_address_passes_also_just_after_its_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            accepted, _ = server.accept()
            accepted.close()  # this side waits in TIME_WAIT
            assert caller.recv(1) == b""
    check_free(f"127.0.0.1:{port}", "listen")


def test_an_address_in_use_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port} \(setting 'health'\): .*in use by another"):
            check_free(f"127.0.0.1:{port}", "health")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="not an address of this machine"):
        check_free(f"{host}:7411", "listen")
