"""The two Go clients (scripts/appmesh_go_v*) as Python calls: an operation's name and input in, its output out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.api.conftest import ADMIN, REGION

BINARIES = Path(__file__).resolve().parents[2] / ".cache" / "bin"
V1, V2 = "appmesh_go_v1", "appmesh_go_v2"


class GoError(Exception):
    """What an SDK told its caller. `type` is the error's own Go type, such as `*types.NotFoundException`."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(told)
        self.code: str = told.get("code", "")
        self.message: str = told["message"]
        self.type: str = told.get("type", "")
        self.fault: str = told.get("fault", "")
        self.status: int = told.get("status", 0)
        self.request_id: str = told.get("request_id", "")


class Credentials(NamedTuple):
    """As an SDK finds them in its environment."""

    access_key_id: str = ADMIN.access_key_id
    secret: str = ADMIN.secret
    session_token: str = ""


class GoClient:
    """One running client."""

    def __init__(self, sdk: str, process: subprocess.Popen[str]) -> None:
        self.sdk, self._process = sdk, process

    def call(self, op: str, **members: Any) -> Any:
        """The output as botocore would give it, without its ResponseMetadata; GoError where the SDK has an error."""
        return self._ask({"op": op, "input": members})["output"]

    def pages(self, op: str, **members: Any) -> Any:
        """The outputs that the SDK's own paginator gives."""
        return self._ask({"op": op, "input": members, "pages": True})["pages"]

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.sdk} ended with {self._process.wait()}: see its standard error"
        answer = json.loads(line)
        if "error" in answer:
            raise GoError(answer["error"])
        return answer


@contextmanager
def go_client(sdk: str, url: str, credentials: Credentials | None = None, **more: str) -> Iterator[GoClient]:
    """A client of `url` (empty: of AWS's own endpoint). `more` is added to its environment."""
    binary = BINARIES / sdk
    assert binary.exists(), f"{sdk} is not built: run `make setup-dev`"
    key = credentials or Credentials()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        **({"AWS_SESSION_TOKEN": key.session_token} if key.session_token else {}),
        **({"AWS_ENDPOINT_URL_APP_MESH": url, "AWS_ENDPOINT_URL_STS": url} if url else {}),
        **more,
    }
    with subprocess.Popen(
        [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield GoClient(sdk, process)
        finally:
            process.kill()
