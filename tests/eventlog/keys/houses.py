"""Houses of key-encryption keys for tests: what a provider speaks to, and what an operator does to the keys there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import urllib3

from eventlog.keys.file import FileKeyProvider, create_key_file
from eventlog.keys.provider import KeyProvider
from eventlog.keys.sources import open_source
from eventlog.records import KeyClass
from runtime.clock import SystemEntropy
from runtime.key_sources import KeySource
from runtime.ports import free_port
from tests.conditions import eventually
from tests.eventlog.keys.transit import TOKEN

ENTROPY = SystemEntropy()
PROGRAM = Path(__file__).with_name("wrap_program.py")
REGION = "eu-west-1"


class House(ABC):
    """Where the keys live. `said` is what a message must name beside the class."""

    said: str

    @abstractmethod
    def provider(self) -> KeyProvider:
        """As a role opens it: a new one at each call."""

    @abstractmethod
    def rotate(self) -> None:
        """Another key becomes the current one; what the old one wrapped must still open."""

    @abstractmethod
    def lose(self, kek_id: str) -> None:
        """That key is gone, or may not be used."""

    def away(self) -> KeyProvider | None:
        """A provider that cannot be reached; None for what has no network."""
        return None


class FileHouse(House):
    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.kek"
        self.said = str(self.path)
        create_key_file(self.path, KeyClass.CONFIG, ENTROPY)

    def provider(self) -> KeyProvider:
        return FileKeyProvider(self.path, KeyClass.CONFIG, ENTROPY)

    def rotate(self) -> None:
        self.path.write_text(f"new-{os.urandom(4).hex()} {os.urandom(32).hex()}\n" + self.path.read_text())

    def lose(self, kek_id: str) -> None:
        kept = [line for line in self.path.read_text().splitlines() if not line.startswith(kek_id)]
        self.path.write_text("\n".join([*kept, f"other {os.urandom(32).hex()}"]))


class CommandHouse(House):
    def __init__(self, directory: Path) -> None:
        self.path = directory / "hsm"
        self.path.write_text(f"slot-1 {os.urandom(32).hex()}\n")
        self.said = f"the program {sys.executable}"

    def source(self, path: Path) -> KeySource:
        return KeySource("command", f"{sys.executable} -I -S {PROGRAM} '{path}'")

    def provider(self) -> KeyProvider:
        return open_source(self.source(self.path), KeyClass.CONFIG, ENTROPY)

    def rotate(self) -> None:
        self.path.write_text(f"slot-2 {os.urandom(32).hex()}\n" + self.path.read_text())

    def lose(self, kek_id: str) -> None:
        kept = [line for line in self.path.read_text().splitlines() if not line.startswith(kek_id)]
        self.path.write_text("\n".join([*kept, f"slot-9 {os.urandom(32).hex()}"]))

    def away(self) -> KeyProvider | None:
        return open_source(self.source(self.path.with_name("nothing")), KeyClass.CONFIG, ENTROPY)


class VaultHouse(House):
    """Works with the stand-in and with Vault's own Transit code alike."""

    def __init__(self, url: str, name: str, directory: Path) -> None:
        self.url, self.name = url, name
        self.said = f"transit/{name} of Vault at {url}"
        self.token = directory / "token"
        self.token.write_text(TOKEN + "\n")
        self.administer("POST", "", {"type": "aes256-gcm96"})

    def administer(self, method: str, path: str, body: dict[str, Any]) -> None:
        with urllib3.PoolManager() as pool:
            url = f"{self.url}/v1/transit/keys/{self.name}{path}"
            answer = pool.request(method, url, body=json.dumps(body), headers={"X-Vault-Token": TOKEN})
        assert answer.status in (200, 204), answer.data

    def provider(self) -> KeyProvider:
        return self.at(self.url)

    def at(self, url: str, options: str = "") -> KeyProvider:
        place = f"{url}/transit/{self.name}?token_file={self.token}{options}"
        return open_source(KeySource("vault", place), KeyClass.CONFIG, ENTROPY)

    def rotate(self) -> None:
        self.administer("POST", "/rotate", {})

    def lose(self, kek_id: str) -> None:
        self.administer("POST", "/config", {"deletion_allowed": True})
        self.administer("DELETE", "", {})

    def away(self) -> KeyProvider | None:
        return self.at(f"http://127.0.0.1:{free_port()}")


class KmsHouse(House):
    def __init__(self, url: str, name: str) -> None:
        self.url, self.alias = url, f"alias/{name}"
        self.said = f"{self.alias} in AWS KMS ({REGION})"
        self.client = botocore.session.Session().create_client("kms", region_name=REGION, endpoint_url=url)
        self.client.create_alias(AliasName=self.alias, TargetKeyId=self.new_key())
        # One for the test: it keeps nothing but its client, and botocore takes 0.2 s to make one.
        self._provider = self.at(url)

    def new_key(self) -> str:
        return str(self.client.create_key()["KeyMetadata"]["KeyId"])

    def provider(self) -> KeyProvider:
        return self._provider

    def at(self, url: str) -> KeyProvider:
        place = f"{self.alias}?region={REGION}&endpoint={url}"
        return open_source(KeySource("aws-kms", place), KeyClass.CONFIG, ENTROPY)

    def rotate(self) -> None:
        self.client.update_alias(AliasName=self.alias, TargetKeyId=self.new_key())

    def lose(self, kek_id: str) -> None:
        # moto lets a key be used while it waits for its deletion, which AWS does not: so it forgets all of them.
        with urllib3.PoolManager() as pool:
            assert pool.request("POST", f"{self.url}/moto-api/reset").status == 200

    def away(self) -> KeyProvider | None:
        return self.at(f"http://127.0.0.1:{free_port()}")


@contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """moto's server, which stands in for KMS: Encrypt, Decrypt and aliases as AWS documents them, key states not."""
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=output) as process:
        try:
            eventually(lambda: _answers(port, process), what="moto's server")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "moto's server ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def transit_binary(program: str, log: Path) -> Iterator[str]:
    """Vault's own Transit code behind a few lines of HTTP (scripts/vault_transit)."""
    port = free_port()
    environ = {"TRANSIT_TOKEN": TOKEN, "TRANSIT_LISTEN": f"127.0.0.1:{port}"}
    with log.open("wb") as output, subprocess.Popen([program], stdout=output, stderr=output, env=environ) as process:
        try:
            eventually(lambda: _answers(port, process), what="the Transit engine")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
