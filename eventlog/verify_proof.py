#!/usr/bin/env python3
"""Verifies a proof of history that `meshlog fsck --prove FILE` wrote. Offline: no cluster, no key, only this file.

    python3 verify_proof.py FILE [--trusted-key NAME:HEX ...]

It needs Python 3.11 and the package `cryptography` (for Ed25519) and imports nothing of Meshlog, so that an auditor can
read all of it. Exit code 0: verified; 1: not; 2: wrong usage.

A proof is a text file of JSON documents, one a line:

    {"kind": "proof", ...}       which log, where the proof begins, and what it is of: "chain", "record" or "hashes"
    {"kind": "key", ...}         a public key, by the name of its signer
    {"kind": "manifest"|"checkpoint"|"claim", "name", "data"}
                                 documents that API servers signed when they were written, long before the proof
    {"kind": "record", "at", "stored"}       a record's stored (sealed) bytes; or
    {"kind": "hashes", "first", "sha256"}    only the SHA-256 of each record
    {"kind": "end", ...}         where it ends, the SHA-256 of every byte before, signed

Every record carries the SHA-256 of the stored bytes of the one before it, and signed documents name the hash of the
record that they reach to. So once one hash is signed, no record before it can be changed, left out, put in or moved
without every later hash changing too. `shows` and `does_not_show` below say exactly what follows from it and what not.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = 1
"""Of a proof."""
RECORD_FORMAT = 2
"""Of the records in it, as the log stores them."""
CHAIN, RECORD, HASHES = "chain", "record", "hashes"
END_PURPOSE = b"meshlog/proof-end/1\0"
MANIFEST_PURPOSE = b"meshlog/archive-manifest/1\0"
CLAIM_PURPOSE = b"meshlog/archive-epoch/1\0"
CHECKPOINT_PURPOSE = b"meshlog/checkpoint-manifest/1\0"
EMPTY_SIGNATURE = b"\xc4\x00"
"""How an empty signature is spelled at the end of a checkpoint: what was signed ended so."""
SIGNATURE_SUFFIX = b"\xc4\x40"
LINE_BYTES_MAX = 16 * 1024 * 1024


class ProofError(Exception):
    """The proof does not hold; the text says where and why."""


@dataclass
class Verified:
    """What a proof was found to hold. Hashes are in hex, positions `<epoch>.<position>`."""

    log_id: str
    of: str
    begins: str
    ends: str
    head: str
    head_hash: str
    records: int = 0
    signed_documents: int = 0
    anchored: int = 0
    signers: dict[str, str] = field(default_factory=dict)
    pinned: bool = False
    shows: list[str] = field(default_factory=list)
    does_not_show: list[str] = field(default_factory=list)


# --- MessagePack, as much of it as signed documents and stored records are made of


class Unpacker:
    """Reads MessagePack; every length is checked against what is there."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def whole(self) -> Any:
        """The one value that the bytes are."""
        value = self._value(0)
        if self._at != len(self._data):
            raise ProofError("a document goes on after its end")
        return value

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise ProofError("a document is cut off")
        self._at += size
        return piece

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "big", signed=signed)

    def _value(self, depth: int) -> Any:
        if depth > 16:
            raise ProofError("a document is nested too deeply")
        code = self._number(1)
        if code <= 0x7F or code >= 0xE0:
            return code if code <= 0x7F else code - 0x100
        if code <= 0x8F:
            return self._map(code & 0x0F, depth)
        if code <= 0x9F:
            return self._array(code & 0x0F, depth)
        return self._text(code & 0x1F) if code <= 0xBF else self._long(code, depth)

    def _long(self, code: int, depth: int) -> Any:
        """A value whose first byte only says what it is and how long its length is."""
        constants = {0xC0: None, 0xC2: False, 0xC3: True}
        if code in constants:
            return constants[code]
        if code in (0xC4, 0xC5, 0xC6):
            return self._take(self._number(1 << (code - 0xC4)))
        if 0xCC <= code <= 0xD3:
            return self._number(1 << (code & 0x03), signed=code >= 0xD0)
        if code in (0xD9, 0xDA, 0xDB):
            return self._text(self._number(1 << (code - 0xD9)))
        if code in (0xDC, 0xDD):
            return self._array(self._number(2 << (code - 0xDC)), depth)
        if code in (0xDE, 0xDF):
            return self._map(self._number(2 << (code - 0xDE)), depth)
        raise ProofError(f"a document holds a byte of an unknown meaning, 0x{code:02x}")

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise ProofError("a document's text is not UTF-8") from None

    def _array(self, count: int, depth: int) -> list[Any]:
        return [self._value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        return {self._value(depth + 1): self._value(depth + 1) for _ in range(count)}


def genesis_hash(log_id: str) -> bytes:
    """What the first record of a log carries as the hash of the one before it."""
    return hashlib.sha256(b"meshlog/genesis/1\0" + log_id.encode()).digest()


def previous_hash(stored: bytes) -> bytes:
    """Of a stored record: [1, schema, key id, salt, commitment, previous hash, ciphertext]."""
    fields = Unpacker(stored).whole()
    if not isinstance(fields, list) or len(fields) != 7 or fields[0] != RECORD_FORMAT or not _is_hash(fields[5]):
        raise ProofError("a record is not of the form that Meshlog stores")
    found: bytes = fields[5]
    return found


# --- signatures


class Signatures:
    """Public keys by name: those that were pinned, else those that the proof carries."""

    def __init__(self, pinned: Mapping[str, bytes]) -> None:
        self.pinned = dict(pinned)
        self.used: dict[str, bytes] = {}
        self.count = 0

    def check(self, signer: object, public: object, signature: object, message: bytes, what: str) -> None:
        """ProofError unless `signature` over `message` was made by the key that goes by that name."""
        if not (isinstance(signer, str) and isinstance(public, bytes) and isinstance(signature, bytes)):
            raise ProofError(f"{what}: its signature is not readable")
        if self.pinned and self.pinned.get(signer) != public:
            raise ProofError(f"{what}: it is signed as {signer} with a key that you did not pin by that name")
        if self.used.setdefault(signer, public) != public:
            raise ProofError(f"{what}: two different keys go by the name {signer}")
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise ProofError(f"{what}: the signature of {signer} does not fit: its bytes were changed") from None
        self.count += 1


# --- the proof, line by line


class Verifier:
    """Takes the documents in order. `anchors` are signed hashes by position."""

    def __init__(self, pinned: Mapping[str, bytes]) -> None:
        self.signatures = Signatures(pinned)
        self.keys: dict[str, bytes] = {}
        self.anchors: dict[int, bytes] = {}
        self.of = ""
        self.log_id = ""
        self.first = 0
        self.begins = ""
        self.at = 0
        self.epoch = 0
        self.hash: bytes | None = None
        self.hash_at_begin = b""
        self.records = 0
        self.anchored: set[int] = set()
        self._manifest: tuple[int, int, bytes] | None = None

    def take(self, document: dict[str, Any]) -> None:
        """One document; the first is the proof's own."""
        kind = document.get("kind")
        if (kind == "proof") != (not self.of):
            raise ProofError("a proof begins with one document of its own, and this one does not")
        steps = {
            "proof": self._begin,
            "key": self._key,
            "manifest": self._signed_manifest,
            "claim": self._claim,
            "checkpoint": self._checkpoint,
            "record": self._record,
            "hashes": self._hashes,
        }
        if kind not in steps:
            raise ProofError(f"a document is of the unknown kind {kind!r}: use a newer verifier")
        steps[kind](document)

    def _begin(self, document: dict[str, Any]) -> None:
        if document.get("format") != FORMAT:
            raise ProofError(f"the proof has format {document.get('format')!r}; this verifier reads {FORMAT}")
        self.of, self.log_id = document["of"], document["log_id"]
        self.begins = document["begins"]
        self.epoch, self.first = _position(self.begins)
        self.at, self.hash = self.first, _unhex(document["hash"])
        self.hash_at_begin = self.hash
        if self.of not in (CHAIN, RECORD, HASHES):
            raise ProofError(f"the proof is of {self.of!r}, which this verifier does not know")
        if self.first == 0 and self.hash != genesis_hash(self.log_id):
            raise ProofError("the proof begins with the first record, and not with this log's own beginning")

    def _key(self, document: dict[str, Any]) -> None:
        name, public = document["name"], _unhex(document["public"])
        if self.signatures.pinned and self.signatures.pinned.get(name, public) != public:
            raise ProofError(f"the proof has another key under the name {name} than the one that you pinned")
        self.keys[name] = public

    def _signed_manifest(self, document: dict[str, Any]) -> None:
        name, data = document["name"], _bytes(document["data"])
        fields = self._signed(MANIFEST_PURPOSE, name, data)
        log_id, epoch, seq, previous, _, _, base, head = fields[:8]
        if log_id != self.log_id or name != f"manifests/{epoch:08d}/{seq:020d}":
            raise ProofError(f"{name} is the manifest {seq} of epoch {epoch} of log {log_id}: it does not belong here")
        before = self._manifest
        if before is not None and before[:2] == (epoch, seq - 1) and previous != before[2]:
            raise ProofError(f"{name} does not follow the manifest before it: one was changed or left out")
        self._manifest = epoch, seq, hashlib.sha256(data).digest()
        self._anchor(name, head)
        self._anchor(name, base)

    def _claim(self, document: dict[str, Any]) -> None:
        name, data = document["name"], _bytes(document["data"])
        log_id, epoch, base = self._signed(CLAIM_PURPOSE, name, data)[:3]
        if log_id != self.log_id or name != f"epochs/{epoch:08d}":
            raise ProofError(f"{name} claims epoch {epoch} of log {log_id}: it does not belong here")
        self._anchor(name, base)

    def _checkpoint(self, document: dict[str, Any]) -> None:
        name, data = document["name"], _bytes(document["data"])
        fields = Unpacker(data).whole()
        if not isinstance(fields, list) or len(fields) < 9 or data[-66:-64] != SIGNATURE_SUFFIX:
            raise ProofError(f"{name} is no checkpoint's manifest")
        signer, public, signature = fields[-3:]
        self.signatures.check(signer, public, signature, CHECKPOINT_PURPOSE + data[:-66] + EMPTY_SIGNATURE, name)
        self._anchor(name, fields[1:5])

    def _signed(self, purpose: bytes, name: str, data: bytes) -> list[Any]:
        document = Unpacker(data).whole()
        if not isinstance(document, list) or len(document) != 5 or not isinstance(document[1], bytes):
            raise ProofError(f"{name} is no signed document")
        _, body, signer, public, signature = document
        if data[-66:-64] != SIGNATURE_SUFFIX:
            raise ProofError(f"{name} is no signed document")
        self.signatures.check(signer, public, signature, purpose + data[:-64], name)
        fields = Unpacker(body).whole()
        if not isinstance(fields, list) or len(fields) < 5:
            raise ProofError(f"{name} is not of the form that Meshlog signs")
        return fields

    def _anchor(self, name: str, head: Any) -> None:
        """A signed document says: the record at that position of this log has that hash."""
        if not isinstance(head, list) or len(head) != 4 or head[0] != self.log_id or not _is_hash(head[3]):
            raise ProofError(f"{name} speaks of another log, or names no hash")
        _, _, position, digest = head
        if not isinstance(position, int) or self.anchors.setdefault(position, digest) != digest:
            raise ProofError(f"{name} and another signed document name different hashes of the record at {position}")
        if self.records:
            raise ProofError(f"{name} stands after the records that it speaks of")

    def _record(self, document: dict[str, Any]) -> None:
        if self.of not in (CHAIN, RECORD):
            raise ProofError("a proof of hashes holds a record")
        epoch, position = _position(document["at"])
        stored = _bytes(document["stored"])
        if position != self.at + 1 or epoch < self.epoch:
            raise ProofError(f"record {document['at']} follows position {self.at}: one was left out, put in or moved")
        if previous_hash(stored) != self.hash:
            raise ProofError(f"record {document['at']} does not carry the hash of the one before: the chain is broken")
        self.epoch = epoch
        self._next(hashlib.sha256(stored).digest())

    def _hashes(self, document: dict[str, Any]) -> None:
        if self.of != HASHES or document["first"] != self.at + 1:
            raise ProofError(f"hashes follow position {self.at} that do not belong there")
        digests = _bytes(document["sha256"])
        if not digests or len(digests) % 32:
            raise ProofError(f"the hashes from {document['first']} on are cut off")
        for start in range(0, len(digests), 32):
            self._next(digests[start : start + 32])

    def _next(self, digest: bytes) -> None:
        if self.records == 0:
            self._meets(self.first, self.hash_at_begin)
        self.at, self.hash = self.at + 1, digest
        self.records += 1
        self._meets(self.at, digest)

    def _meets(self, position: int, digest: bytes) -> None:
        signed = self.anchors.get(position)
        if signed is None:
            return
        if signed != digest:
            raise ProofError(f"the record at {position} is not the one whose hash was signed: history was changed")
        self.anchored.add(position)

    def end(self, line: bytes, digest: bytes) -> Verified:
        """The last line, and the SHA-256 of all that is before it."""
        end = _document(line)
        if end.get("kind") != "end" or not self.of:
            raise ProofError("the proof has no end: it was cut off")
        signature = _unhex(end.pop("signature", ""))
        signer, public = end.get("signer"), _unhex(end.get("public"))
        self.signatures.check(signer, public, signature, END_PURPOSE + canonical(end), "the proof's end")
        for name, key in self.signatures.used.items():
            if self.keys.get(name) != key:
                raise ProofError(f"the proof does not list the key of {name}, or lists another one")
        if _unhex(end["sha256"]) != digest:
            raise ProofError("the proof's bytes were changed: they are not those that its end was signed over")
        if (end["log_id"], end["records"]) != (self.log_id, self.records):
            raise ProofError(f"the proof's end speaks of {end['records']} records, and {self.records} are here")
        self._check_extent(end)
        ends = f"{self.epoch}.{self.at}"
        found = Verified(self.log_id, self.of, self.begins, ends, end["head"], end["hash"], self.records)
        found.signed_documents, found.anchored = self.signatures.count, len(self.anchored)
        found.signers = {name: key.hex() for name, key in sorted(self.signatures.used.items())}
        found.pinned = bool(self.signatures.pinned)
        _tell(found)
        return found

    def _check_extent(self, end: Mapping[str, Any]) -> None:
        """What the proof is of begins and ends where something signed says so."""
        ends, (_, head_position) = f"{self.epoch}.{self.at}", _position(end["head"])
        if max(self.anchors, default=0) > head_position:
            raise ProofError(f"a signed document reaches beyond the head {end['head']}: the log's tail was cut off")
        if self.of == RECORD and (end["record"] != self.first + 1 or not self.records):
            raise ProofError("the record that this is a proof of is not the first one in it")
        if self.of == RECORD and self.at != head_position:
            if self.at not in self.anchored:
                raise ProofError(f"nothing signed names the record at {self.at}, where the proof ends")
            return
        if self.at != head_position:
            raise ProofError(f"the proof ends at {ends}, and the head that it was signed with is {end['head']}")
        if self.hash != _unhex(end["hash"]):
            raise ProofError("the last record is not the one whose hash the proof's end was signed over")
        if self.of != RECORD and self.first and self.anchors.get(self.first) != self.hash_at_begin:
            raise ProofError(f"the proof begins after {self.begins}, and nothing signed names that hash")


def _tell(found: Verified) -> None:
    span = f"after {found.begins} up to {found.ends}"
    if found.of == CHAIN:
        found.shows.append(
            f"The {found.records} records {span} are one unbroken chain: none was changed, left out, put in or moved "
            f"since a hash after it was signed; {found.anchored} signed hashes along it agree, and so does the head."
        )
    elif found.of == RECORD:
        found.shows.append(
            f"The first record here is, byte for byte, in the history that the signed hash of {found.ends} stands for."
        )
        found.does_not_show.append(f"Anything of the records after {found.ends}, or before this one.")
    else:
        found.shows.append(
            f"{found.anchored} hashes that were signed over time, and the head, agree with this list of hashes {span}; "
            "two such lists of one log that differ at a position show that history was changed between them."
        )
        found.does_not_show.append(
            "That each record follows the one before: that takes the records' bytes. Between two signed hashes the "
            "list is the signer's word."
        )
    found.does_not_show += [
        "What the records say: they are sealed, and opening them takes the cluster's keys.",
        "That nothing was written after the head, or that the cluster still has this history now.",
    ]
    if not found.pinned:
        found.does_not_show.append(
            "Whose the signing keys are: compare the names and keys with those that you were given, or pin them with "
            "--trusted-key."
        )
    if found.begins.rpartition(".")[2] != "0" and found.of != RECORD:
        found.does_not_show.append(f"Anything of the records up to {found.begins}, which are no longer kept.")


def verify(file: BinaryIO, pinned: Mapping[str, bytes] | None = None) -> Verified:
    """Verify a proof; ProofError says where it does not hold. `pinned`: public keys (32 bytes) by name."""
    verifier = Verifier(pinned or {})
    digest = hashlib.sha256()
    held: bytes | None = None
    try:
        for line in _lines(file):
            if held is not None:
                verifier.take(_document(held))
                digest.update(held)
            held = line
        if held is None:
            raise ProofError("the file is empty")
        return verifier.end(held, digest.digest())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as failure:
        raise ProofError(f"a document is not of the form that it should have ({type(failure).__name__})") from failure


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document: what is signed, and what a line must be."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            raise ProofError("the proof is cut off, or a line is too long")
        yield line


def _document(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise ProofError("a line is no JSON document: its bytes were changed") from None
    if not isinstance(document, dict) or canonical(document) + b"\n" != line:
        raise ProofError("a line is not spelled as a proof's lines are: its bytes were changed")
    return document


def _position(text: str) -> tuple[int, int]:
    epoch, _, position = text.partition(".")
    if not (epoch.isdecimal() and position.isdecimal() and f"{int(epoch)}.{int(position)}" == text):
        raise ProofError(f"{text[:40]!r} is no position")
    return int(epoch), int(position)


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProofError("some base64 is not readable: its bytes were changed") from None
    if base64.b64encode(data).decode() != text:
        raise ProofError("some base64 is spelled in two ways: its bytes were changed")
    return data


def _unhex(text: Any) -> bytes:
    try:
        data = bytes.fromhex(text)
    except (ValueError, TypeError):
        raise ProofError("some hex is not readable: its bytes were changed") from None
    if data.hex() != text:
        raise ProofError("some hex is spelled in two ways: its bytes were changed")
    return data


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def parse_trusted(values: list[str]) -> dict[str, bytes]:
    """NAME:HEX pairs; ValueError if one is none."""
    pinned: dict[str, bytes] = {}
    for value in values:
        name, _, public = value.rpartition(":")
        key = bytes.fromhex(public)
        if not name or len(key) != 32:
            raise ValueError(value)
        pinned[name] = key
    return pinned


def report(found: Verified) -> str:
    """What was verified, for people."""
    lines = [
        f"verified: log {found.log_id}, {found.records} records from {found.begins} to {found.ends}, head {found.head}",
        f"head hash: {found.head_hash}",
        f"signatures: {found.signed_documents}, signed hashes met: {found.anchored}",
        *(f"signer: {name}:{public}{' (pinned)' if found.pinned else ''}" for name, public in found.signers.items()),
        *(f"shows: {text}" for text in found.shows),
        *(f"does not show: {text}" for text in found.does_not_show),
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Verify a proof of history, offline.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--trusted-key", action="append", default=[], metavar="NAME:HEX")
    asked = parser.parse_args(arguments)
    try:
        pinned = parse_trusted(asked.trusted_key)
    except ValueError:
        parser.error("--trusted-key takes NAME:HEX, a signer's name and its public key of 32 bytes in hex")
    try:
        with asked.file.open("rb") as file:
            print(report(verify(file, pinned)))
    except ProofError as failure:
        print(f"NOT VERIFIED: {failure}", file=sys.stderr)
        return 1
    except OSError as failure:
        print(f"{asked.file}: {failure.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
