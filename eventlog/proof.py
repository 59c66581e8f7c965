"""Writing a proof of history: stored records and signed documents become a file that `verify_proof` checks offline.

What a proof is made of, and what it shows, is said there. Sealed bytes go in as they are stored: a proof holds no key
and nothing in the clear but positions, hashes, key ids, and the documents that API servers signed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from eventlog import checkpoints
from eventlog.archive.manifest import EPOCHS, MANIFESTS, Manifest, open_claim, open_manifest
from eventlog.archive.reader import ArchiveReader
from eventlog.driver import LogDriver
from eventlog.frames import decode_frame
from eventlog.records import Head, genesis_hash
from eventlog.sealing import parse_stored
from eventlog.signing import SigningKey
from eventlog.timeline import Timeline
from eventlog.verify_proof import CHAIN, END_PURPOSE, FORMAT, HASHES, RECORD, canonical
from mesh.errors import Damaged, NotFound, NotReady
from mesh.position import Position
from runtime.limits import PROOF_HASHES_A_LINE


class Sources(NamedTuple):
    """Where a proof is made from. The archive is loaded, or None."""

    driver: LogDriver
    archive: ArchiveReader | None


class _Signed(NamedTuple):
    """A signed document for the proof, and the points of the log that it names."""

    kind: str
    name: str
    data: bytes
    heads: tuple[Head, ...]


class _Out:
    """The file: lines in their one spelling, hashed as they are written."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._digest = hashlib.sha256()

    def add(self, document: Mapping[str, Any]) -> None:
        line = canonical(document) + b"\n"
        self._digest.update(line)
        self._write(line)

    def end(self, document: dict[str, Any], signer: SigningKey) -> None:
        signed = {**document, "sha256": self._digest.hexdigest(), "signer": signer.name, "public": signer.public.hex()}
        signature = signer.sign(END_PURPOSE + canonical(signed))
        self._write(canonical({**signed, "signature": signature.hex()}) + b"\n")


async def write_proof(
    sources: Sources,
    signer: SigningKey,
    write: Callable[[bytes], Any],
    *,
    made_us: int,
    position: int | None = None,
    hashes_only: bool = False,
) -> None:
    """Write a proof of the whole history that is kept, or of the record at `position` alone.

    `hashes_only` leaves the records' bytes out: small, and shows less. Raises NotFound (there is no such position),
    Damaged (what is signed and what is stored differ), NotReady, Unavailable.
    """
    # The documents before the head: whatever they name must be in the log by then.
    signed = await _documents(sources)
    ref = await sources.driver.read_head()
    if ref is None:
        raise NotReady("There is no log in the store yet: there is nothing to prove")
    head = ref.head
    anchors = _anchors(signed, head)
    timeline = Timeline(sources.driver, sources.archive)
    kept = await timeline.begins()
    if position is None:
        of, first, last = HASHES if hashes_only else CHAIN, _anchored_begin(kept.position, anchors), head.position
    else:
        if not kept.position < position <= head.position:
            raise NotFound(f"Position {position} is not kept: the log holds {kept.position + 1} to {head.position}")
        of, first = RECORD, position - 1
        last = min((at for at in anchors if at >= position), default=head.position)
    records = _records(timeline, Position(await _epoch_of(sources, first, head), first), last)
    out = _Out(write)
    async with aclosing(records):
        await _write(out, records, signed, signer, (of, head, first, made_us))


async def _write(
    out: _Out,
    records: AsyncGenerator[tuple[Position, bytes], None],
    signed: list[_Signed],
    signer: SigningKey,
    what: tuple[str, Head, int, int],
) -> None:
    of, head, first, made_us = what
    count, hashes = 0, bytearray()
    async for at, stored in records:
        if count == 0:
            _begin(out, of, head.log_id, Position(at.epoch, first), parse_stored(stored, at).previous_hash)
            _introduce(out, signed, signer)
        count += 1
        if of != HASHES:
            out.add({"kind": "record", "at": str(at), "stored": _text(stored)})
            continue
        hashes += hashlib.sha256(stored).digest()
        if len(hashes) == 32 * PROOF_HASHES_A_LINE:
            out.add({"kind": "hashes", "first": first + count - PROOF_HASHES_A_LINE + 1, "sha256": _text(hashes)})
            hashes.clear()
    if count == 0:
        digest = genesis_hash(head.log_id) if first == 0 else head.hash
        _begin(out, of, head.log_id, head.at, digest)
        _introduce(out, signed, signer)
    if hashes:
        out.add({"kind": "hashes", "first": first + count - len(hashes) // 32 + 1, "sha256": _text(hashes)})
    end = {
        "kind": "end",
        "log_id": head.log_id,
        "head": str(head.at),
        "hash": head.hash.hex(),
        "records": count,
        "made_us": made_us,
    }
    out.end(end | ({"record": first + 1} if of == RECORD else {}), signer)


def _begin(out: _Out, of: str, log_id: str, at: Position, digest: bytes) -> None:
    out.add({"kind": "proof", "format": FORMAT, "of": of, "log_id": log_id, "begins": str(at), "hash": digest.hex()})


def _introduce(out: _Out, signed: list[_Signed], signer: SigningKey) -> None:
    """Public keys, then what they signed."""
    import msgpack  # noqa: PLC0415

    keys = {signer.name: signer.public}
    for document in signed:
        name, public, _ = msgpack.unpackb(document.data)[-3:]
        keys[name] = public
    for name, public in sorted(keys.items()):
        out.add({"kind": "key", "name": name, "public": public.hex()})
    for document in signed:
        out.add({"kind": document.kind, "name": document.name, "data": _text(document.data)})


async def _documents(sources: Sources) -> list[_Signed]:
    """Everything signed that speaks of the current timeline: claims and manifests of the archive, checkpoints."""
    found: list[_Signed] = []
    archive = sources.archive
    seen: set[bytes] = set()
    if archive is not None:
        index, store = archive.index, archive.store
        bases: set[Position] = set()
        for listed in await store.list(EPOCHS):
            if (data := await store.get(listed.name)) is None:
                continue
            base = open_claim(listed.name, data).base
            # A restore to before an earlier one left that one's base behind.
            if index.epoch_at(base.position) == base.epoch:
                bases.add(base.at)
                found.append(_Signed("claim", listed.name, data, (base,)))
        for listed in await store.list(MANIFESTS):
            if (data := await store.get(listed.name)) is None:
                continue  # dropped meanwhile
            manifest: Manifest = open_manifest(listed.name, data)
            on_timeline = index.epoch_at(manifest.head.position) == manifest.epoch or manifest.head.at in bases
            if on_timeline and manifest.base.position <= manifest.head.position:
                found.append(_Signed("manifest", listed.name, data, (manifest.head, manifest.base)))
        for ref in await archive.checkpoints():
            data = await archive.object(ref.hash)
            seen.add(data)
            found.append(_checkpoint(data))
    for at in await checkpoints.list_checkpoints(sources.driver):
        entry = await sources.driver.read_entry(checkpoints.manifest_name(at))
        if entry is not None and entry.value not in seen:
            found.append(_checkpoint(entry.value))
    return found


def _checkpoint(data: bytes) -> _Signed:
    at = checkpoints.parse_manifest(data).at
    return _Signed("checkpoint", checkpoints.manifest_name(at.at), data, (at,))


def _anchors(signed: list[_Signed], head: Head) -> dict[int, bytes]:
    anchors: dict[int, bytes] = {}
    for document in signed:
        for named in document.heads:
            if named.log_id != head.log_id or named.epoch > head.epoch or named.position > head.position:
                raise Damaged(
                    f"{document.name} is signed and reaches to {named.at} of log {named.log_id}; etcd's log "
                    f"{head.log_id} ends at {head.at}: its tail was cut off, or it is another log. Run `meshlog fsck`"
                )
            if anchors.setdefault(named.position, named.hash) != named.hash:
                raise Damaged(f"{document.name} names another hash of {named.at} than what else is signed: run fsck")
    return anchors


def _anchored_begin(kept: int, anchors: Mapping[int, bytes]) -> int:
    """Where a proof may begin: with the first record, or where something signed names the hash."""
    if kept == 0:
        return 0
    found = min((at for at in anchors if at >= kept), default=None)
    if found is None:
        raise NotFound(
            f"The log begins after {kept}, and nothing signed names a hash of what is left: make a checkpoint"
        )
    return found


async def _epoch_of(sources: Sources, position: int, head: Head) -> int:
    return sources.archive.index.epoch_at(position) if sources.archive is not None else head.epoch


async def _records(timeline: Timeline, after: Position, last: int) -> AsyncGenerator[tuple[Position, bytes], None]:
    async with aclosing(timeline.frames(after)) as frames:
        async for frame in frames:
            stored_records = decode_frame(frame.value, frame.last)
            for number, stored in enumerate(stored_records, start=frame.last.position - len(stored_records) + 1):
                if number > last:
                    return
                yield Position(frame.last.epoch, number), stored


def _text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()
