"""The frontend's TLS: its certificate and the root of the proxies from files that are read again when they change.

Every connection must show a certificate of the proxies' root. Which node it is for is read off its URI name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import structlog

from identity.node_id import NodeId, parse_spiffe_id
from runtime.settings import TlsFiles

log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class CertificateFiles:
    """Asked by gRPC at every handshake, in its own thread, whether there is something new."""

    def __init__(self, files: TlsFiles) -> None:
        self._paths = (files.key, files.certificate, files.authority)
        self._stamp = self._stat()
        self.first = self._read()

    def _stat(self) -> _Stamp:
        found = [path.stat() for path in self._paths]
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        key, certificate, authority = (path.read_bytes() for path in self._paths)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """New files as a configuration; None to go on with the last one, also when the new ones cannot be read."""
        try:
            stamp = self._stat()
            if stamp == self._stamp:
                return None
            fresh = self._read()
        except OSError as error:
            log.warning("certificate files cannot be read: the last ones stay in use", error=str(error))
            return None
        self._stamp = stamp
        log.info("certificate files changed", files=[str(path) for path in self._paths])
        return fresh


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Mutual TLS with `files.certificate` and `files.key`; clients must have a certificate of `files.authority`."""
    watched = CertificateFiles(files)
    return grpc.dynamic_ssl_server_credentials(
        watched.first,
        watched.changed,  # type: ignore[arg-type]  # the stubs forget that None means "no change"
        require_client_authentication=True,
    )


def peer_node(auth_context: Mapping[str, Iterable[bytes]], trust_domain: str) -> NodeId | None:
    """The one node that the caller's verified certificate names, or None. (gRPC gives `peer_spiffe_id` only if the
    certificate has exactly one URI name, as SPIFFE demands.)"""
    names = [value.decode("utf-8", "replace") for value in auth_context.get("peer_spiffe_id", ())]
    return parse_spiffe_id(names[0], trust_domain) if len(names) == 1 else None
