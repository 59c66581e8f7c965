"""The command provider: a program of the operator's wraps and unwraps, for an HSM or a service that we do not speak.

It is started for each call, gets one JSON object on stdin and gives one on stdout; bytes are base64:

    {"op": "wrap",   "class", "context", "material"}        → {"key_id", "blob"}
    {"op": "unwrap", "class", "context", "key_id", "blob"}  → {"material"}

    exit 0  done               2  that key is not to be had (MissingKey)      3  fails its authentication (Damaged)
    exit 4  another key (WrongKey)    75  not right now (Unavailable)         anything else: the program is broken

`context` is not secret; the program must authenticate it with the material, as every AEAD does. What it says on stderr
is dropped: it may quote what it was given. It is killed at the time limit, with all that it started.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from typing import Any

from eventlog.keys.provider import WrappedKey
from eventlog.records import KeyClass
from mesh.errors import Damaged, MeshlogError, MissingKey, SettingsError, Unavailable, WrongKey
from runtime.limits import KEY_ANSWER_BYTES, KEY_COMMAND_S, KEY_ID_CHARS

MISSING, DAMAGED, WRONG, LATER = 2, 3, 4, 75


class CommandKeyProvider:
    """Key-encryption keys behind a program. `argv` is its whole path and its arguments."""

    scheme = "command"

    def __init__(self, argv: Sequence[str], key_class: KeyClass, timeout_s: float = KEY_COMMAND_S) -> None:
        self._argv = list(argv)
        self._class = key_class
        self._timeout_s = timeout_s
        # Not its arguments: somebody may have put a password there.
        self.place = f"the program {self._argv[0]}"

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the key that the program chooses and names."""
        answer = await self._run("wrap", "", context, {"material": _text(material)})
        key_id, blob = answer.get("key_id"), _bytes(answer.get("blob"))
        if not isinstance(key_id, str) or not 0 < len(key_id) <= KEY_ID_CHARS or not key_id.isprintable() or not blob:
            raise self._broken("its answer to wrap has no `key_id` and `blob` (base64)")
        return WrappedKey(key_id, blob)

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Unwrap with the key of that id."""
        request = {"key_id": wrapped.kek_id, "blob": _text(wrapped.blob)}
        material = _bytes((await self._run("unwrap", wrapped.kek_id, context, request)).get("material"))
        if not material:
            raise self._broken("its answer to unwrap has no `material` (base64)")
        return material

    async def _run(self, operation: str, key_id: str, context: bytes, request: dict[str, str]) -> dict[str, Any]:
        whole = {"op": operation, "class": self._class.value, "context": _text(context)} | request
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise self._broken(f"it cannot be started ({error.strerror})") from None
        try:
            async with asyncio.timeout(self._timeout_s):
                output = await _converse(process, json.dumps(whole).encode())
                code = await process.wait()
        except TimeoutError:
            raise Unavailable(f"{self._what(key_id)} was not given within {self._timeout_s:g} s: try again") from None
        finally:
            await _end(process)
        if len(output) > KEY_ANSWER_BYTES:
            raise self._broken(f"it wrote more than {KEY_ANSWER_BYTES} bytes")
        if code != 0:
            raise self._refused(code, key_id)
        try:
            document = json.loads(output)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._broken("what it wrote is no JSON object")
        return document

    def _refused(self, code: int, key_id: str) -> MeshlogError:
        what = self._what(key_id)
        if code == MISSING:
            return MissingKey(f"{what} is not to be had there: make the key available to the program")
        if code == DAMAGED:
            return Damaged(
                f"A data key wrapped with {key_id} fails its authentication in {self.place}: its bytes were changed, "
                "or it was copied from another log or id; restore it from the archive"
            )
        if code == WRONG:
            return WrongKey(f"{what} is not the one that wrapped this log's data keys: give the program the right one")
        if code == LATER:
            return Unavailable(f"{what} is not to be had right now: try again")
        return self._broken(f"it ended with {code}")

    def _broken(self, why: str) -> SettingsError:
        return SettingsError(
            f"{self.place[0].upper()}{self.place[1:]}, which wraps keys of class '{self._class.value}', does not work: "
            f"{why}. Run it by hand as the user of this role; its stderr is not logged"
        )

    def _what(self, key_id: str) -> str:
        named = f" {key_id}" if key_id else ""
        return f"The key-encryption key{named} of class '{self._class.value}' from {self.place}"


async def _converse(process: asyncio.subprocess.Process, request: bytes) -> bytes:
    """Give the request and take the answer, at most one byte more than is allowed."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(ConnectionError):  # it need not read what it does not want
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    output = bytearray()
    while len(output) <= KEY_ANSWER_BYTES:
        part = await process.stdout.read(KEY_ANSWER_BYTES + 1 - len(output))
        if not part:
            return bytes(output)
        output += part
    _kill(process)
    return bytes(output)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (ValueError, binascii.Error):
        return b""
