"""The Vault Transit provider: the key-encryption key stays in Vault, which wraps and unwraps for us over HTTPS.

    POST /v1/<mount>/encrypt/<name>  {plaintext, associated_data}  → ciphertext `vault:v3:<base64>`
    POST /v1/<mount>/decrypt/<name>  {ciphertext, associated_data} → plaintext

    kek id = <mount>/<name>:v3          blob = the ciphertext's own bytes, decoded: no two texts for one ciphertext

The token comes from a file, read at each call (an agent may renew it), or VAULT_TOKEN; namespace and CA file from the
setting, or VAULT_NAMESPACE and VAULT_CACERT. Never follows a redirect, which would take the token elsewhere. OpenBao
speaks the same.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from eventlog.keys.provider import WrappedKey
from eventlog.records import KeyClass
from mesh.errors import Damaged, MeshlogError, MissingKey, SettingsError, Unavailable
from runtime.limits import KEY_ANSWER_BYTES, KEY_CALL_PAUSE_S, KEY_CALL_S, KEY_CALL_TRIES, KEY_CONNECT_S

_CIPHERTEXT = re.compile(r"vault:v([1-9]\d{0,8}):([A-Za-z0-9+/]+={0,2})")
_VERSION = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_PASSING = frozenset({307, 408, 412, 429, 472, 473, 500, 502, 503, 504})
"""Sealed, standby, rate limited, not replicated yet, or a gateway in between."""


class VaultKeyProvider:
    """One key of a Transit engine. `address` is `https://host:port`."""

    scheme = "vault"

    def __init__(
        self,
        address: str,
        mount: str,
        name: str,
        key_class: KeyClass,
        *,
        namespace: str = "",
        ca: str = "",
        token_file: str = "",
        environ: Mapping[str, str] | None = None,
        pause_s: float = KEY_CALL_PAUSE_S,
    ) -> None:
        self.place = f"{mount}/{name} of Vault at {address}"
        self._address, self._mount, self._name = address, mount, name
        self._class = key_class
        self._environ = os.environ if environ is None else environ
        self._namespace = namespace or self._environ.get("VAULT_NAMESPACE", "")
        self._token_file = token_file
        self._ca = ca or self._environ.get("VAULT_CACERT", "")
        self._pause_s = pause_s
        self._pool: urllib3.PoolManager | None = None

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the newest version of the key."""
        answer = await asyncio.to_thread(self._call, "encrypt", {"plaintext": _text(material)}, context)
        found = _CIPHERTEXT.fullmatch(str(answer.get("ciphertext", "")))
        if found is None:
            raise Unavailable(f"{self._what()} gave an answer that is no ciphertext: check that Vault is behind it")
        return WrappedKey(f"{self._mount}/{self._name}:v{found[1]}", base64.b64decode(found[2]))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Unwrap with the version that wrapped, for as long as Vault allows it (min_decryption_version)."""
        key, _, version = wrapped.kek_id.rpartition(":v")
        # Vault takes version 0 for version 1: two names of one key, so that a changed id would go unnoticed.
        if key != f"{self._mount}/{self._name}" or not _VERSION.fullmatch(version):
            raise MissingKey(
                f"The key-encryption key {wrapped.kek_id} of class '{self._class.value}' is not {self.place}: set the "
                "source that wrapped it beside this one, or re-wrap the data keys first"
            )
        body = {"ciphertext": f"vault:v{version}:{_text(wrapped.blob)}"}
        answer = await asyncio.to_thread(self._call, "decrypt", body, context)
        try:
            return base64.b64decode(str(answer["plaintext"]), validate=True)
        except (KeyError, binascii.Error):
            raise Unavailable(
                f"{self._what()} gave an answer without a plaintext: check that Vault is behind it"
            ) from None

    def _call(self, operation: str, body: dict[str, str], context: bytes) -> dict[str, Any]:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        url = f"{self._address}/v1/{self._mount}/{operation}/{self._name}"
        data = json.dumps(body | {"associated_data": _text(context)}).encode()
        try:
            answer = self._connections().request("POST", url, body=data, headers=headers, preload_content=False)
            with answer:
                status, text = answer.status, answer.read(KEY_ANSWER_BYTES + 1)
        except urllib3.exceptions.HTTPError as error:
            # Without its cause: it may carry the request, and that the data key.
            reason = type(getattr(error, "reason", None) or error).__name__
            raise Unavailable(f"{self._what()} cannot be reached ({reason}): try again") from None
        document = _document(text)
        if status == 200 and isinstance(document.get("data"), dict):
            return dict(document["data"])
        raise self._refused(status, document)

    def _refused(self, status: int, document: dict[str, Any]) -> MeshlogError:
        """Vault's errors are looked at, never passed on: they may quote what was sent."""
        said = " ".join(str(error) for error in document.get("errors") or ())
        what = self._what()
        if status in _PASSING or status == 200:
            return Unavailable(f"{what} is not answered for right now (HTTP {status}; is Vault sealed?): try again")
        if status == 403:
            return MissingKey(
                f"{what} is not to be had: Vault takes the token from {self._token_place()} for expired, or it may not "
                f"use the key. Renew it, and allow update on {self._mount}/decrypt/{self._name} (API servers also on "
                f"{self._mount}/encrypt/{self._name})"
            )
        if status == 404 or "encryption key not found" in said or "no handler for route" in said:
            return MissingKey(
                f"{what} is not to be had: Vault has no such key there. Check mount, name and namespace"
                f"{f' ({self._namespace})' if self._namespace else ''}, or restore the key from Vault's backup"
            )
        if "too old" in said or "no such key version" in said or "version is too new" in said:
            return MissingKey(
                f"{what} is not to be had in the version that wrapped this data key: lower min_decryption_version, "
                "re-wrap the data keys (`meshlog keys rewrap`), and only then raise it again"
            )
        if status == 400 and any(sign in said for sign in ("message authentication failed", "invalid ciphertext")):
            return Damaged(
                f"A data key wrapped with {self.place} fails its authentication: its bytes were changed, or it was "
                "copied from another log or id; restore it from the archive"
            )
        return MissingKey(
            f"{what} is not to be had: Vault refuses it (HTTP {status}). It must be a Transit key of an AEAD type such "
            "as aes256-gcm96, not derived, not convergent; look the call up in Vault's audit log"
        )

    def _connections(self) -> urllib3.PoolManager:
        if self._pool is None:
            retries = urllib3.Retry(
                total=KEY_CALL_TRIES - 1,
                redirect=False,
                allowed_methods=None,  # wrapping or unwrapping twice is as good as once
                status_forcelist=_PASSING - {307},
                backoff_factor=self._pause_s,
                backoff_max=KEY_CALL_S,
                respect_retry_after_header=False,
                raise_on_status=False,
            )
            timeout = urllib3.Timeout(connect=KEY_CONNECT_S, read=KEY_CALL_S)
            if self._ca and not Path(self._ca).is_file():
                raise SettingsError(f"{self._what()} has no CA file at {self._ca}: set `ca`, or VAULT_CACERT")
            self._pool = urllib3.PoolManager(retries=retries, timeout=timeout, ca_certs=self._ca or None)
        return self._pool

    def _token(self) -> str:
        if self._token_file:
            try:
                token = Path(self._token_file).read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                token = ""
        else:
            token = self._environ.get("VAULT_TOKEN", "").strip()
        if not token or not token.isprintable():
            raise MissingKey(
                f"{self._what()} cannot be asked for: there is no token in {self._token_place()}. Put one there that "
                "may use the key, or name its file with `token_file`"
            )
        return token

    def _token_place(self) -> str:
        return self._token_file or "VAULT_TOKEN"

    def _what(self) -> str:
        return f"The key-encryption key of class '{self._class.value}', {self.place},"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text) if len(text) <= KEY_ANSWER_BYTES else None
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {}
