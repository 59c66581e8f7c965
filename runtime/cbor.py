"""CBOR (RFC 8949) as AWS's SDKs speak it in Smithy's RPC v2 protocol: bytes to JSON-like values and back. Pure.

No library of ours reads it, and the protocol uses little: whole numbers, floats, text, bytes, lists, maps with text
keys (of definite and indefinite length), true, false, null, and tag 1 for times. What is anything else is refused, not
guessed at; nothing is read past the depth and the size that are given.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NoReturn

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_INDEFINITE = 31
_DIRECT = 24
_WIDTHS = {24: ">B", 25: ">H", 26: ">I", 27: ">Q"}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_NAMED = {20: False, 21: True, 22: None, 23: None}
_EPOCH = 1
_BREAK = 0xFF


class CborError(ValueError):
    """The bytes are no such value; the message says where."""


class EpochSeconds(float):
    """A time: tag 1 around a number."""


def decode(data: bytes, depth_max: int) -> Any:
    """The one value that `data` is; CborError if it is none, more than one, or nested deeper than `depth_max`."""
    reader = _Reader(data)
    value = reader.value(depth_max)
    if reader.at != len(data):
        raise CborError(f"{len(data) - reader.at} bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self, depth: int) -> Any:
        if depth < 0:
            raise CborError("it is nested too deep")
        [first] = self._take(1)
        major, extra = first >> 5, first & 0x1F
        if major == _SIMPLE:
            return self._simple(extra)
        if extra == _INDEFINITE:
            return self._indefinite(major, depth)
        return self._definite(major, self._number(extra), depth)

    def _definite(self, major: int, number: int, depth: int) -> Any:
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return self._take(number)
            case 3:
                return self._text(number)
            case 4:
                self._check_count(number)
                return [self.value(depth - 1) for _ in range(number)]
            case 5:
                self._check_count(number)
                return self._map((self._key(depth) for _ in range(number)), depth)
            case _:
                if number != _EPOCH:
                    self._wrong(f"tag {number} is not known here")
                return self.value(depth - 1)

    def _indefinite(self, major: int, depth: int) -> Any:
        if major == _ARRAY:
            items = []
            while not self._broke():
                items.append(self.value(depth - 1))
            return items
        if major == _MAP:
            return self._map(iter(lambda: None if self._broke() else self._key(depth), None), depth)
        if major not in (_BYTES, _TEXT):
            self._wrong("a length is missing")
        parts = []
        while not self._broke():
            [first] = self._take(1)
            if first >> 5 != major or first & 0x1F == _INDEFINITE:
                self._wrong("a piece of text or bytes is of another kind")
            parts.append(self._definite(major, self._number(first & 0x1F), depth))
        return (b"" if major == _BYTES else "").join(parts)

    def _map(self, keys: Any, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in keys:
            if key in found:
                self._wrong(f"'{key[:80]}' is there twice in one map")
            found[key] = self.value(depth - 1)
        return found

    def _key(self, depth: int) -> str:
        key = self.value(depth - 1)
        if not isinstance(key, str):
            self._wrong("a map's key is not text")
        return key

    def _simple(self, extra: int) -> Any:
        if extra in _FLOATS:
            layout = _FLOATS[extra]
            [value] = struct.unpack(layout, self._take(struct.calcsize(layout)))
            return value
        if extra not in _NAMED:
            self._wrong(f"simple value {extra} is not known here")
        return _NAMED[extra]

    def _number(self, extra: int) -> int:
        if extra < _DIRECT:
            return extra
        layout = _WIDTHS.get(extra)
        if layout is None:
            self._wrong("a length is not one of CBOR's")
        [number] = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return int(number)

    def _text(self, size: int) -> str:
        taken = self._take(size)
        try:
            return taken.decode()
        except UnicodeDecodeError:
            self._wrong("text is not UTF-8")

    def _take(self, size: int) -> bytes:
        taken = self._data[self.at : self.at + size]
        if len(taken) != size:
            self._wrong("it ends too early")
        self.at += size
        return taken

    def _check_count(self, count: int) -> None:
        if count > len(self._data) - self.at:
            self._wrong("it ends too early")

    def _broke(self) -> bool:
        if self._data[self.at : self.at + 1] != bytes([_BREAK]):
            return False
        self.at += 1
        return True

    def _wrong(self, why: str) -> NoReturn:
        raise CborError(f"byte {self.at}: {why}")


def encode(value: Any) -> bytes:
    """The value as CBOR: None, booleans, numbers, `EpochSeconds`, text, bytes, lists and mappings of text."""
    out = bytearray()
    _write(value, out)
    return bytes(out)


def _write(value: Any, out: bytearray) -> None:
    match value:
        case None:
            out.append(0xF6)
        case bool():
            out.append(0xF5 if value else 0xF4)
        case int():
            _head(_UNSIGNED if value >= 0 else _NEGATIVE, value if value >= 0 else -1 - value, out)
        case EpochSeconds():
            _head(_TAG, _EPOCH, out)
            out += b"\xfb" + struct.pack(">d", value)
        case float():
            out += b"\xfb" + struct.pack(">d", value)
        case bytes():
            _head(_BYTES, len(value), out)
            out += value
        case str():
            text = value.encode(errors="replace")
            _head(_TEXT, len(text), out)
            out += text
        case Mapping():
            _head(_MAP, len(value), out)
            for key, item in value.items():
                _write(str(key), out)
                _write(item, out)
        case list() | tuple():
            _head(_ARRAY, len(value), out)
            for item in value:
                _write(item, out)
        case _:
            raise TypeError(f"{type(value).__name__} has no CBOR form here")


def _head(major: int, number: int, out: bytearray) -> None:
    if number < _DIRECT:
        out.append(major << 5 | number)
        return
    for extra, layout in _WIDTHS.items():
        if number < 1 << (8 * struct.calcsize(layout)):
            out.append(major << 5 | extra)
            out += struct.pack(layout, number)
            return
    raise OverflowError(f"a number of {number.bit_length()} bits")
