"""TLS for our servers and clients, mutual over gRPC: PEM files that are read again when they change.

A renewed certificate needs no restart. Files that cannot be read never take the last good ones away.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc
import structlog

from mesh.errors import SettingsError
from runtime.settings import TlsFiles

log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


def _stamp_of(paths: Sequence[Path]) -> _Stamp:
    found = [path.stat() for path in paths]
    return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)


class CertificateFiles:
    """Asked by gRPC at every handshake, in its own thread, whether there is something new."""

    def __init__(self, files: TlsFiles) -> None:
        self._paths = (files.key, files.certificate, files.authority)
        self._stamp = _stamp_of(self._paths)
        self.first = self._read()

    def _read(self) -> grpc.ServerCertificateConfiguration:
        key, certificate, authority = (path.read_bytes() for path in self._paths)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """New files as a configuration; None to go on with the last one, also when the new ones cannot be read."""
        try:
            stamp = _stamp_of(self._paths)
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


def one_sided_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """TLS with `files.certificate` and `files.key` for clients that are not asked for a certificate: they prove who
    they are otherwise, or not at all."""
    watched = CertificateFiles(files)
    return grpc.dynamic_ssl_server_credentials(
        watched.first,
        watched.changed,  # type: ignore[arg-type]  # the stubs forget that None means "no change"
        require_client_authentication=False,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Dial with `files.certificate` and trust `files.authority` alone. Read anew at each call."""
    return grpc.ssl_channel_credentials(
        files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )


class ServerCertificate:
    """TLS 1.2 or newer for an HTTP server: callers verify us, we do not ask them for a certificate."""

    def __init__(self, files: TlsFiles) -> None:
        self._paths = (files.key, files.certificate)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            self._stamp = _stamp_of(self._paths)
            self.context.load_cert_chain(files.certificate, files.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"cannot use {files.certificate} and {files.key} for HTTPS: {error}") from error

    def refresh(self) -> bool:
        """Use what is in the files from the next handshake on, if it changed and is a pair; True if so."""
        key, certificate = self._paths
        try:
            stamp = _stamp_of(self._paths)
            if stamp == self._stamp:
                return False
            # A pair that does not match must be found before it is in the context that serves.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            self.context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate files cannot be used: the last ones stay in use", error=str(error))
            return False
        self._stamp = stamp
        log.info("certificate files changed", files=[str(path) for path in self._paths])
        return True
