"""Look whether an address can be listened on, so that a role which cannot says so before it does anything else.

Looking is not holding: the port can be lost between here and its use, and then the server itself fails.
"""

from __future__ import annotations

import errno
import socket

from mesh.errors import SettingsError
from runtime.settings import split_address


def check_free(address: str, setting: str) -> None:
    """SettingsError naming `setting`, where another process listens on `address` (host:port) or it is not ours."""
    host, port = split_address(address, setting)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
    except OSError as error:
        raise SettingsError(f"cannot listen on {address} (setting '{setting}'): {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use by another process; stop that one, or choose another address"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "it is not an address of this machine"
    return error.strerror or str(error)
