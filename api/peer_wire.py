"""Batches between API servers: one msgpack map a message, both ways. Bytes in, checked values out.

    asker -> taker    batch: commands, each with the origin that its caller was found to have, and how long to try
    taker -> asker    done: a position up to which the log has whatever came of them, and no more will; or declined

Who may speak is the shell's to check (API servers' certificates alone). What the values mean is checked by `decide`, as
for any caller. Decoding is bounded before it allocates, and what is not understood is refused whole: the asker then
does the work itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

from api.outcomes import Origin
from eventlog.sealing import encode_data
from mesh.commands import Command, Create, Delete, TagResource, UntagResource, Update
from mesh.errors import BadRequest
from mesh.events import Token
from mesh.evolve import key_of
from mesh.position import Position
from runtime.limits import GROUP_COMMANDS_MAX, HAND_OVER_TIMEOUT_S, PEER_MESSAGE_BYTES_MAX

METHOD = "/meshlog.peer.v1.Peer/TakeBatch"
"""The one method: a message, an answer."""

_DIGEST_BYTES = 32


class HandedCommand(NamedTuple):
    """A command and where it comes from."""

    command: Command
    origin: Origin


class HandedBatch(NamedTuple):
    """Commands to be done within `timeout_s`."""

    commands: tuple[HandedCommand, ...]
    timeout_s: float


def encode_batch(batch: HandedBatch) -> bytes:
    """The message; BadRequest for a command that cannot be handed over."""
    commands = [_command(handed.command) + _origin(handed.origin) for handed in batch.commands]
    return encode_data({"t": "batch", "timeout_ms": int(batch.timeout_s * 1000), "commands": commands})


def decode_batch(packed: bytes) -> HandedBatch:
    """Read a batch; BadRequest says what is wrong with it."""
    fields = _unpack(packed)
    commands, timeout_ms = fields.get("commands"), fields.get("timeout_ms")
    if fields.get("t") != "batch" or not isinstance(commands, list) or not 0 < len(commands) <= GROUP_COMMANDS_MAX:
        raise BadRequest("peer: the message is no batch of commands")
    if type(timeout_ms) is not int or not 0 < timeout_ms <= HAND_OVER_TIMEOUT_S * 1000:
        raise BadRequest("peer: the batch's time is out of bounds")
    return HandedBatch(tuple(map(_read_command, commands)), timeout_ms / 1000)


def encode_answer(done: Position | None) -> bytes:
    """The answer: done up to a position, or (None) declined."""
    packed: bytes = msgpack.packb({"t": "done", "at": list(done)} if done is not None else {"t": "declined"})
    return packed


def decode_answer(packed: bytes) -> Position | None:
    """Read an answer; BadRequest says what is wrong with it."""
    fields = _unpack(packed)
    if fields.get("t") == "declined":
        return None
    at = fields.get("at")
    if fields.get("t") != "done" or not isinstance(at, list) or len(at) != 2:
        raise BadRequest("peer: the answer is none")
    epoch, position = at
    if not all(type(each) is int and 0 <= each < 2**63 for each in at):
        raise BadRequest("peer: the answer's position is none")
    return Position(epoch, position)


def _command(command: Command) -> list[Any]:
    match command:
        case Create(key=key, spec=spec, tags=tags):
            return ["create", key, spec, tags]
        case Update(key=key, spec=spec):
            return ["update", key, spec, None]
        case Delete(key):
            return ["delete", key, None, None]
        case TagResource(key, tags):
            return ["tag", key, None, tags]
        case UntagResource(key, tag_keys):
            return ["untag", key, None, dict.fromkeys(tag_keys, "")]
    raise BadRequest(f"peer: {type(command).__name__} stays with the server that was asked")


def _origin(origin: Origin) -> list[Any]:
    words = [origin.account, origin.principal, origin.source_ip, origin.request_id, origin.operation]
    return [*words, origin.token.digest, origin.token.body]


def _read_command(fields: Any) -> HandedCommand:
    try:
        kind, key, spec, tags, *words, digest, body = fields
        account, principal, source_ip, request_id, operation = words
        key = key_of(key)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"peer: a command of the batch is malformed: {type(error).__name__}") from error
    texts = all(isinstance(word, str) for word in (*words, *key))
    digests = all(isinstance(each, bytes) and len(each) == _DIGEST_BYTES for each in (digest, body))
    if not texts or not digests:
        raise BadRequest("peer: a command of the batch has an origin or a key that is none")
    origin = Origin(account, principal, source_ip, request_id, operation, Token(digest, body))
    return HandedCommand(_made(kind, key, spec, tags), origin)


def _made(kind: Any, key: Any, spec: Any, tags: Any) -> Command:
    has_spec, has_tags = isinstance(spec, dict), _is_tags(tags)
    match kind:
        case "create" if has_spec and has_tags:
            return Create(key, spec, tags)
        case "update" if has_spec and tags is None:
            return Update(key, spec)
        case "delete" if spec is None and tags is None:
            return Delete(key)
        case "tag" if spec is None and has_tags:
            return TagResource(key, tags)
        case "untag" if spec is None and has_tags:
            return UntagResource(key, tuple(tags))
    raise BadRequest("peer: a command of the batch is of no known shape")


def _is_tags(tags: Any) -> bool:
    return isinstance(tags, dict) and all(isinstance(word, str) for pair in tags.items() for word in pair)


def _no_extension(code: int, _data: bytes) -> object:
    raise BadRequest(f"peer: extension type {code} is not part of any message")


def _unpack(packed: bytes) -> Mapping[str, Any]:
    if len(packed) > PEER_MESSAGE_BYTES_MAX:
        raise BadRequest(f"peer: a message of {len(packed)} bytes is over the limit of {PEER_MESSAGE_BYTES_MAX}")
    try:
        value = msgpack.unpackb(packed, raw=False, strict_map_key=True, ext_hook=_no_extension, max_ext_len=0)
    except BadRequest:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadRequest(f"peer: bytes that are no message: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise BadRequest("peer: a message is a map")
    return value
