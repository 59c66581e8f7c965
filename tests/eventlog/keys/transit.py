"""A stand-in for Vault's Transit engine: an HTTP server with the documented calls and Vault 1.21's own error texts.

It is not Vault: no policies, no seal, no storage. `make test-transit` runs the same tests against Vault's own Transit
code (scripts/vault_transit), which is how this stand-in was checked.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.the-token-of-these-tests"


class RefusedError(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class Transit:
    """The engine. `answer_with` makes every call fail with that status."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[int, AESGCM]] = {}
        self.oldest: dict[str, int] = {}
        self.answer_with: int | None = None
        self.namespace: str | None = None
        self.seen: list[dict[str, str]] = []

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(headers)
        if self.answer_with is not None:
            raise RefusedError(self.answer_with, "Vault is sealed" if self.answer_with == 503 else "says the test")
        if headers.get("x-vault-token") != TOKEN or headers.get("x-vault-namespace") != self.namespace:
            raise RefusedError(403, "permission denied")
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] != "transit":
            raise RefusedError(404, f"no handler for route {path!r}")
        if parts[1] == "keys":
            return self._administer(method, parts[2], parts[3:], body)
        return {"encrypt": self._encrypt, "decrypt": self._decrypt}[parts[1]](parts[2], body)

    def _administer(self, method: str, name: str, rest: list[str], body: dict[str, Any]) -> dict[str, Any]:
        if method == "DELETE":
            del self.keys[name]
        elif not rest or rest == ["rotate"]:
            versions = self.keys.setdefault(name, {})
            versions[len(versions) + 1] = AESGCM(os.urandom(32))
        elif rest == ["config"]:
            self.oldest[name] = int(body.get("min_decryption_version", 1))
        return {}

    def _encrypt(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name not in self.keys:  # as for a token that may not create keys
            raise RefusedError(403, "permission denied")
        version, key = max(self.keys[name].items())
        nonce = os.urandom(12)
        sealed = nonce + key.encrypt(nonce, base64.b64decode(body["plaintext"]), self._associated(body))
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def _decrypt(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name not in self.keys:
            raise RefusedError(400, "encryption key not found")
        version, _, text = body["ciphertext"].removeprefix("vault:v").partition(":")
        key = self.keys[name].get(int(version) or 1)  # as Vault does: keys once began at version 0
        if key is None:
            raise RefusedError(400, "invalid ciphertext: version is too new")
        if int(version) < self.oldest.get(name, 1):
            raise RefusedError(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed = base64.b64decode(text)
        except binascii.Error:
            raise RefusedError(400, "invalid ciphertext: could not decode base64") from None
        if len(sealed) < 12:
            raise RefusedError(400, "invalid ciphertext length")
        try:
            plain = key.decrypt(sealed[:12], sealed[12:], self._associated(body))
        except InvalidTag:
            raise RefusedError(400, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plain).decode()}

    def _associated(self, body: dict[str, Any]) -> bytes:
        return base64.b64decode(body.get("associated_data", ""))


@contextmanager
def serving(transit: Transit) -> Iterator[str]:
    """Serve on loopback; gives the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            text = self.rfile.read(int(headers.get("content-length", 0)))
            try:
                status, answer = (
                    200,
                    {"data": transit.handle(self.command, self.path, headers, json.loads(text or "{}"))},
                )
            except RefusedError as refused:
                status, answer = refused.status, {"errors": [refused.error]}  # type: ignore[dict-item]
            data = json.dumps(answer).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:1/v1/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_DELETE = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
