"""Each way in which a key service says no, or nothing, becomes one of our errors: stop and say what to do, or wait."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventlog.keys.aws_kms import KmsKeyProvider
from eventlog.keys.command import CommandKeyProvider
from eventlog.keys.provider import WrappedKey
from eventlog.keys.sources import open_source
from eventlog.keys.vault import VaultKeyProvider
from eventlog.records import KeyClass
from mesh.errors import Damaged, MeshlogError, MissingKey, SettingsError, Unavailable, WrongKey
from runtime.key_sources import KeySource, parse_source
from tests.conditions import PATIENCE_S
from tests.eventlog.keys.houses import ENTROPY
from tests.eventlog.keys.transit import TOKEN, Transit, serving

ARN = "arn:aws:kms:eu-west-1:123456789012:key/0000-1"
WRAPPED = WrappedKey(ARN, b"blob")
SECRET = b"planted-word-of-32-bytes-in-all!"


# --- AWS KMS: the error codes of its API reference, by a server that says nothing else


@contextmanager
def kms_that_says(code: str, status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            data = json.dumps({"__type": code, "message": "planted text of the service"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted secret")
    return monkeypatch


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("DisabledException", 400, MissingKey, "enable-key"),
        ("KMSInvalidStateException", 400, MissingKey, "cancel-key-deletion"),
        ("NotFoundException", 400, MissingKey, "region"),
        ("AccessDeniedException", 400, MissingKey, "kms:Decrypt"),
        ("InvalidKeyUsageException", 400, MissingKey, "ENCRYPT_DECRYPT"),
        ("ExpiredTokenException", 400, MissingKey, "renew"),
        ("UnrecognizedClientException", 400, MissingKey, "renew"),
        ("SomethingNewException", 400, MissingKey, "CloudTrail"),
        ("InvalidCiphertextException", 400, Damaged, "archive"),
        ("IncorrectKeyException", 400, WrongKey, "archive"),
        ("ThrottlingException", 400, Unavailable, "try again"),
        ("KMSInternalException", 500, Unavailable, "try again"),
        ("KeyUnavailableException", 500, Unavailable, "try again"),
        ("DependencyTimeoutException", 500, Unavailable, "try again"),
    ],
)
async def test_what_kms_says_becomes_what_to_do(
    aws: pytest.MonkeyPatch, code: str, status: int, kind: type[MeshlogError], said: str
) -> None:
    with kms_that_says(code, status) as url:
        provider = KmsKeyProvider(ARN, KeyClass.SECRETS, endpoint=url, tries=1)
        with pytest.raises(kind) as refused:
            await provider.unwrap(WRAPPED, b"context")
    message = refused.value.message
    assert type(refused.value) is kind
    assert ARN in message
    assert said in message
    assert "planted" not in message
    if kind is MissingKey:
        assert "class 'secrets'" in message
        assert "AWS KMS (eu-west-1)" in message


async def test_no_credentials_and_no_region_say_what_to_set(aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="region=REGION"):
        await KmsKeyProvider("alias/meshlog", KeyClass.CONFIG).wrap(SECRET, b"")
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(MissingKey, match=r"no AWS credentials.*AWS_PROFILE"):
        await KmsKeyProvider("alias/meshlog", KeyClass.CONFIG, region="eu-west-1").wrap(SECRET, b"")


# --- Vault


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [(status, Unavailable, "try again") for status in (307, 412, 429, 472, 473, 500, 502, 503)]
    + [(403, MissingKey, "Renew it"), (404, MissingKey, "namespace"), (418, MissingKey, "audit log")],
)
async def test_what_vault_says_becomes_what_to_do(status: int, kind: type[MeshlogError], said: str) -> None:
    transit = Transit()
    transit.answer_with = status
    with serving(transit) as url:
        provider = VaultKeyProvider(
            url, "transit", "meshlog", KeyClass.CONFIG, environ={"VAULT_TOKEN": TOKEN}, pause_s=0.01
        )
        with pytest.raises(kind, match=said) as refused:
            await provider.unwrap(WrappedKey("transit/meshlog:v1", bytes(60)), b"context")
    assert type(refused.value) is kind
    assert TOKEN not in refused.value.message
    assert f"transit/meshlog of Vault at {url}" in refused.value.message
    assert len(transit.seen) == (3 if kind is Unavailable and status != 307 else 1), "bounded, and only what may pass"


async def test_vault_versions_below_the_allowed_one_say_how_to_get_them_back() -> None:
    transit = Transit()
    environ = {"VAULT_TOKEN": TOKEN, "VAULT_NAMESPACE": "team-a"}
    with serving(transit) as url:
        provider = VaultKeyProvider(url, "transit", "k", KeyClass.CONFIG, environ=environ)
        transit.namespace = "team-a"
        for path in ("", "/rotate"):
            transit.handle("POST", f"/v1/transit/keys/k{path}", transit_headers("team-a"), {})
            if not path:
                old = await provider.wrap(SECRET, b"")
        transit.oldest["k"] = 2
        with pytest.raises(MissingKey, match="lower min_decryption_version"):
            await provider.unwrap(old, b"")
        with pytest.raises(MissingKey, match=r"other:v1 .* is not transit/k"):
            await provider.unwrap(old._replace(kek_id="transit/other:v1"), b"")


def transit_headers(namespace: str) -> dict[str, str]:
    return {"x-vault-token": TOKEN, "x-vault-namespace": namespace}


async def test_the_token_file_is_read_at_each_call_and_missed_by_name(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with serving(Transit()) as url:
        provider = VaultKeyProvider(url, "transit", "k", KeyClass.CONFIG, token_file=str(token), environ={})
        with pytest.raises(MissingKey, match=str(token)):
            await provider.wrap(SECRET, b"")
        token.write_text("wrong\n")
        with pytest.raises(MissingKey, match=f"{token} for expired"):
            await provider.wrap(SECRET, b"")
    with pytest.raises(MissingKey, match="VAULT_TOKEN"):
        await VaultKeyProvider("https://127.0.0.1:1", "transit", "k", KeyClass.CONFIG, environ={}).wrap(SECRET, b"")


# --- a program


def program(path: Path, body: str, timeout_s: float = PATIENCE_S) -> CommandKeyProvider:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return CommandKeyProvider([str(path), "--pin", "planted"], KeyClass.CONFIG, timeout_s)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("exit 2", MissingKey, "make the key available"),
        ("exit 3", Damaged, "archive"),
        ("exit 4", WrongKey, "the right one"),
        ("exit 75", Unavailable, "try again"),
        ("exit 1", SettingsError, "ended with 1"),
        ("echo planted >&2; kill -9 $$", SettingsError, "by hand"),
        ("echo planted", SettingsError, "no JSON object"),
        ("echo '{}'", SettingsError, "`material`"),
        ("""echo '{"material": "not base64"}'""", SettingsError, "`material`"),
        ("sleep 60 & wait", Unavailable, "within 0.5 s"),
        ("cat >/dev/null; while :; do echo planted; done", SettingsError, "more than"),
    ],
)
async def test_what_a_program_does_becomes_what_to_do(
    tmp_path: Path, body: str, kind: type[MeshlogError], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    provider = program(tmp_path / "wrap", body, 0.5 if kind is Unavailable else PATIENCE_S)
    with pytest.raises(kind, match=said) as refused:
        await provider.unwrap(WrappedKey("slot-1", b"blob"), b"context")
    assert type(refused.value) is kind
    assert "planted" not in refused.value.message
    assert "slot-1" in refused.value.message or kind is SettingsError
    assert "planted" not in "".join(capfd.readouterr())


async def test_a_program_that_is_not_there_or_names_no_key_is_a_wrong_setting(tmp_path: Path) -> None:
    missing = CommandKeyProvider([str(tmp_path / "none")], KeyClass.CONFIG)
    with pytest.raises(SettingsError, match="cannot be started"):
        await missing.wrap(SECRET, b"")
    for answer in (
        {"blob": "AAAA"},
        {"key_id": "", "blob": "AAAA"},
        {"key_id": "x" * 600, "blob": "AAAA"},
        {"key_id": "x"},
    ):
        with pytest.raises(SettingsError, match="`key_id` and `blob`"):
            await program(tmp_path / "wrap", f"echo '{json.dumps(answer)}'").wrap(SECRET, b"")


# --- the setting


@pytest.mark.parametrize(
    ("text", "scheme", "place"),
    [
        ("config.kek", "file", "/etc/m/config.kek"),
        ("/keys/config.kek", "file", "/keys/config.kek"),
        ("file:keys/a:b", "file", "/etc/m/keys/a:b"),
        ("aws-kms:alias/meshlog?region=eu-west-1", "aws-kms", "alias/meshlog?region=eu-west-1"),
        ("vault:https://v:8200/transit/k", "vault", "https://v:8200/transit/k"),
        ("command:/bin/wrap --slot 3", "command", "/bin/wrap --slot 3"),
    ],
)
def test_a_source_is_read_as_it_is_written(text: str, scheme: str, place: str) -> None:
    source = parse_source(text, Path("/etc/m"))
    assert source == KeySource(scheme, place)
    assert parse_source(str(source), Path("/elsewhere")) == source
    open_source(source, KeyClass.CONFIG, ENTROPY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gcp-kms:a", "aws-kms:"),
        ("vault:", "vault:"),
        ("aws-kms:k?regoin=x", "regoin"),
        ("vault:https://v:8200/k", "transit/NAME"),
        ("vault:http://vault.example:8200/transit/k", "write https"),
        ("command:wrap", "whole path"),
        ("command:/bin/wrap 'x", "command line"),
    ],
)
def test_a_wrong_source_says_how_to_write_it(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        open_source(parse_source(text, Path("/")), KeyClass.CONFIG, ENTROPY)
