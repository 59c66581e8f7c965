"""Which fields of Envoy's API a message uses, read off its bytes, and which Envoy 1.34 knows (a list beside this)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("fields-of-envoy-1.34.txt")
ANY = "google.protobuf.Any"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """`type`: of a message or an enum, '' otherwise."""

    name: str
    type: str


class Api(NamedTuple):
    """Messages' fields by number, and enums' values."""

    messages: dict[str, dict[int, Field]]
    enums: dict[str, set[int]]


@cache
def envoy_1_34() -> Api:
    """The list, read."""
    api = Api({}, {})
    for line in LIST.read_text().splitlines():
        kind, name, *members = line.split(" ")
        pairs = [member.split("=") for member in members]
        if kind == "enum":
            api.enums[name] = {int(value) for _, value in pairs}
        else:
            typed = [(member, *value.partition(":")[::2]) for member, value in pairs]
            api.messages[name] = {int(number): Field(member, of) for member, number, of in typed}
    return api


def used(type_name: str, body: bytes) -> Iterator[str]:
    """Every field that the message `type_name` and the messages in it use, as `message.field`, or as
    `message.<number>` where Envoy 1.34 has no such field, and `message.field=<value>` where it has no such value."""
    if type_name not in envoy_1_34().messages:
        yield f"{type_name}.<unknown message>"
        return
    fields = envoy_1_34().messages[type_name]
    for number, value in _members(body):
        field = fields.get(number)
        if field is None:
            yield f"{type_name}.<{number}>"
            continue
        yield f"{type_name}.{field.name}"
        if field.type == ANY:
            yield from _packed(value)
        elif field.type in envoy_1_34().enums and value not in envoy_1_34().enums[field.type]:
            yield f"{type_name}.{field.name}=<{value!r}>"
        elif isinstance(value, bytes) and field.type.startswith("envoy."):
            yield from used(field.type, value)


def _packed(value: int | bytes) -> Iterator[str]:
    """What an Any uses."""
    assert isinstance(value, bytes)
    members = dict(_members(value))
    url, body = members[1], members.get(2, b"")
    assert isinstance(url, bytes)
    assert isinstance(body, bytes)
    yield from used(url.decode().rpartition("/")[2], body)


def _members(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a serialised message."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(body, at)
            yield number, value
            continue
        size, at = _varint(body, at) if kind == BYTES else ({FIXED64: 8, FIXED32: 4}[kind], at)
        yield number, body[at : at + size]
        at += size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
