"""The certificate of an HTTP server: replaced without a restart, and never by one that does not work."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from cluster import pki
from mesh.errors import SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import TlsFiles
from runtime.tls import ServerCertificate

CLOCK, ENTROPY = SystemClock(), SystemEntropy()


def write(directory: Path, name: str) -> TlsFiles:
    """A new pair for `name` in the directory's files."""
    directory.mkdir(exist_ok=True)
    files = TlsFiles(certificate=directory / "a.crt", key=directory / "a.key", authority=directory / "ca.crt")
    authority = pki.create_authority("test", CLOCK.now_us(), ENTROPY)
    pki.save_issued(pki.issue(authority, pki.http_leaf([name]), CLOCK.now_us(), ENTROPY), authority, files)
    return files


def shown(certificate: ServerCertificate) -> str:
    """Whom the certificate is for that a caller gets now."""
    ours, theirs = socket.socketpair()
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE

    def serve() -> None:
        with certificate.context.wrap_socket(ours, server_side=True) as served:
            served.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with anybody.wrap_socket(theirs) as caller:
        found = caller.getpeercert(binary_form=True)
        assert found is not None
        caller.send(b"x")
    thread.join()
    hosts = pki.hosts_of(ssl.DER_cert_to_PEM_cert(found).encode())
    return next(host for host in hosts if host.endswith(".example"))


def test_a_new_pair_is_used_from_the_next_handshake_on(tmp_path: Path) -> None:
    certificate = ServerCertificate(write(tmp_path, "old.example"))
    assert shown(certificate) == "old.example"
    assert not certificate.refresh(), "nothing new"
    write(tmp_path, "new.example")
    assert certificate.refresh()
    assert shown(certificate) == "new.example"


def test_what_does_not_work_leaves_the_last_pair_in_use(tmp_path: Path) -> None:
    files = write(tmp_path, "old.example")
    certificate = ServerCertificate(files)
    other = write(tmp_path / "other", "new.example")
    shutil.copy(other.certificate, files.certificate)  # the key is to follow
    assert not certificate.refresh()
    assert shown(certificate) == "old.example"
    files.certificate.write_text("no certificate")
    assert not certificate.refresh()
    files.certificate.unlink()
    assert not certificate.refresh()
    assert shown(certificate) == "old.example"
    for source, target in ((other.certificate, files.certificate), (other.key, files.key)):
        shutil.copy(source, target)
    assert certificate.refresh()
    assert shown(certificate) == "new.example"


def test_a_server_does_not_start_with_a_pair_that_does_not_work(tmp_path: Path) -> None:
    files = write(tmp_path, "a.example")
    files.key.write_text("no key")
    with pytest.raises(SettingsError, match=r"a\.key for HTTPS"):
        ServerCertificate(files)
