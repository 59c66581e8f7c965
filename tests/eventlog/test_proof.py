"""Proofs of history: what is written verifies anywhere, and no byte of it can be changed, nor history behind it."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.verify import verify as verify_command
from eventlog.driver import StoredFrame
from eventlog.frames import decode_frame, frame_name
from eventlog.proof import Sources, write_proof
from eventlog.records import Head
from eventlog.signing import SigningKey, signing_key
from eventlog.verify_proof import END_PURPOSE, ProofError, Verified, canonical, main, parse_trusted, verify
from mesh.errors import Damaged, MeshlogError, NotFound
from mesh.position import Position
from tests.eventlog.archive.archives import Archived, make_archived
from tests.eventlog.archive.archives import restored as restored_from_archive
from tests.eventlog.damage import make_world
from tests.eventlog.test_damage import restored

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_proof.py"
MODES: dict[str, dict[str, Any]] = {"chain": {}, "hashes": {"hashes_only": True}, "record": {"position": 3}}


async def a_log(seed: str = "seed") -> Archived:
    """Seven records; a checkpoint and the archive vouch for five of them."""
    world = await make_archived(seed)
    await world.append(2, 2)
    await world.checkpoint()
    await world.append(1)
    await world.ship()
    await world.append(1, 2)
    return world


async def signer_of(world: Archived) -> SigningKey:
    log = world.log
    return await signing_key(log.driver, log.keyring, log.head.head.log_id, log.clock, log.entropy)


async def prove(world: Archived, archive: bool = True, **how: Any) -> bytes:
    out = io.BytesIO()
    reader = await world.reader() if archive else None
    await write_proof(Sources(world.log.driver, reader), await signer_of(world), out.write, made_us=1, **how)
    return out.getvalue()


def check(proof: bytes, pinned: dict[str, bytes] | None = None) -> Verified:
    return verify(io.BytesIO(proof), pinned)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("archive", [True, False])
async def test_what_is_written_verifies(mode: str, archive: bool) -> None:
    world = await a_log()
    signer = await signer_of(world)
    found = check(await prove(world, archive, **MODES[mode]), {signer.name: signer.public})
    assert (found.of, found.head, found.head_hash) == (mode, "1.7", world.log.head.head.hash.hex())
    assert found.signers == {signer.name: signer.public.hex()}
    assert found.pinned
    assert found.anchored >= 1
    assert found.shows
    assert found.does_not_show


async def test_a_proof_holds_sealed_bytes_only() -> None:
    proof = await prove(await a_log())
    assert b"api.shop.local" not in proof
    assert b"ResourceCreated" not in proof


@pytest.mark.parametrize("mode", ["chain", "hashes", "record"])
async def test_a_proof_with_any_byte_changed_fails(mode: str) -> None:
    """Two records, a checkpoint after the first; for the proof of one record the archive's documents too."""
    world = await make_archived()
    await world.append(1)
    await world.checkpoint()
    await world.append(1)
    if mode == "record":
        await world.ship()
    modes: dict[str, dict[str, Any]] = {"chain": {}, "hashes": {"hashes_only": True}, "record": {"position": 2}}
    proof = await prove(world, archive=mode == "record", **modes[mode])
    check(proof)
    every = 1 if mode == "chain" else 5
    for index in range(0, len(proof), every):
        changed = bytearray(proof)
        changed[index] ^= 1 << (index % 8)
        with pytest.raises(ProofError):
            check(bytes(changed))


async def test_a_proof_cut_off_or_with_lines_moved_fails() -> None:
    lines = (await prove(await a_log())).splitlines(keepends=True)
    for number in range(len(lines)):
        with pytest.raises(ProofError):
            check(b"".join(lines[:number]))
        with pytest.raises(ProofError):
            check(b"".join(lines[:number] + lines[number + 1 :]))
        if number + 1 < len(lines):
            swapped = [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]]
            with pytest.raises(ProofError):
                check(b"".join(swapped))


def resigned(proof: bytes, signer: SigningKey, change: Any) -> bytes:
    """The proof as somebody would write it who has the signing key, and has changed the documents."""
    *documents, end = [json.loads(line) for line in proof.splitlines()]
    documents = change(documents)
    body = b"".join(canonical(document) + b"\n" for document in documents)
    end = {name: value for name, value in end.items() if name != "signature"}
    end |= {
        "sha256": hashlib.sha256(body).hexdigest(),
        "records": sum(document["kind"] == "record" for document in documents),
    }
    signature = signer.sign(END_PURPOSE + canonical(end)).hex()
    return body + canonical(end | {"signature": signature}) + b"\n"


async def test_the_chain_holds_even_against_the_signer_of_the_proof() -> None:
    """Whoever writes the proof cannot leave a record out, swap two or change one: the records speak for themselves."""
    world = await a_log()
    signer, proof = await signer_of(world), await prove(world)
    assert check(resigned(proof, signer, lambda documents: documents)).records == 7
    places = [n for n, line in enumerate(proof.splitlines()) if b'"record"' in line]

    def without(documents: list[Any]) -> list[Any]:
        return [each for n, each in enumerate(documents) if n != places[3]]

    def renumbered(documents: list[Any]) -> list[Any]:
        rest = without(documents)
        for position, each in enumerate((each for each in rest if each["kind"] == "record"), start=1):
            each["at"] = f"1.{position}"
        return rest

    def swapped(documents: list[Any]) -> list[Any]:
        one, other = documents[places[1]], documents[places[2]]
        one["stored"], other["stored"] = other["stored"], one["stored"]
        return documents

    def changed(documents: list[Any]) -> list[Any]:
        text = documents[places[0]]["stored"]
        documents[places[0]]["stored"] = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
        return documents

    for change in (without, renumbered, swapped, changed):
        with pytest.raises(ProofError):
            check(resigned(proof, signer, change))


async def test_a_cut_tail_is_not_proven_away() -> None:
    world = await make_archived()
    await world.append(1, 3)
    await world.ship()
    store = world.etcd
    del store.frames[frame_name(Position(1, 3))]
    store.names.remove(frame_name(Position(1, 3)))
    shorter = await make_archived()
    await shorter.append(1, 2)
    assert shorter.etcd.head is not None
    store.head = shorter.etcd.head
    with pytest.raises(Damaged, match="tail was cut off"):
        await prove(world)


async def test_a_proof_of_another_cluster_does_not_pass_for_this_ones() -> None:
    one, other = await a_log("one"), await a_log("other")
    ours = await signer_of(one)
    with pytest.raises(ProofError, match="did not pin"):
        check(await prove(other), {ours.name: ours.public})
    with pytest.raises(ProofError, match="another key under the name"):
        check(await prove(one), {ours.name: bytes(32)})


async def test_a_record_that_is_not_there_cannot_be_proven() -> None:
    with pytest.raises(NotFound, match="Position 8"):
        await prove(await a_log(), position=8)


async def test_every_record_can_be_proven_alone() -> None:
    world = await a_log()
    for position in range(1, 8):
        found = check(await prove(world, position=position))
        assert found.begins == f"1.{position - 1}"
        assert found.records <= 4


async def test_a_trimmed_log_is_proven_from_where_something_signed_begins() -> None:
    world = await make_archived()
    await world.append(2, 2)
    await world.checkpoint()
    await world.append(1, 2)
    fence = world.etcd.grant("duties/trim")
    await world.log.driver.trim(Position(1, 4), expected={}, fence=fence)
    found = check(await prove(world, archive=False))
    assert (found.begins, found.ends) == ("1.4", "1.6")
    assert any("no longer kept" in text for text in found.does_not_show)


async def test_a_restored_log_is_proven_over_its_epochs_seam() -> None:
    new = await restored(await make_world())
    log_id = new.head.head.log_id
    await new.keyring.load(log_id)
    signer = await signing_key(new.driver, new.keyring, log_id, new.clock, new.entropy)
    out = io.BytesIO()
    await write_proof(Sources(new.driver, None), signer, out.write, made_us=1)
    found = check(out.getvalue(), {signer.name: signer.public})
    assert (found.begins, found.ends, found.records, found.anchored) == ("2.3", "2.4", 1, 1)


async def test_a_log_restored_to_before_an_earlier_restore_is_proven_without_what_was_left_behind() -> None:
    world = await a_log()
    await world.ship()
    frames = world.frames()
    early, late = (head_after(world, frames, last) for last in (4, 7))
    second = await restored_from_archive(world, late)
    await second.append(2)
    await second.ship()
    third = await restored_from_archive(second, early)
    await third.append(1)
    await third.ship()
    found = check(await prove(third))
    assert (found.head, found.records) == ("3.5", 5)


def head_after(world: Archived, frames: Sequence[StoredFrame], last: int) -> Head:
    """The point of the first epoch's log at position `last`, a frame's end."""
    stored = next(decode_frame(frame.value, frame.last) for frame in frames if frame.last.position == last)
    return Head(world.log.head.head.log_id, 1, last, hashlib.sha256(stored[-1]).digest())


def test_the_verifier_needs_nothing_of_meshlog() -> None:
    tree = ast.parse(SCRIPT.read_text())
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    roots = {name.partition(".")[0] for name in imported}
    assert roots <= {*sys.stdlib_module_names, "cryptography"}


def run_alone(script: Path, proof: Path) -> subprocess.CompletedProcess[str]:
    """In a directory of its own, with nothing on the path but what is installed."""
    command = [sys.executable, "-I", str(script), str(proof)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=script.parent)


async def test_the_script_alone_verifies_a_proof(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_bytes(SCRIPT.read_bytes())
    proof = tmp_path / "proof"
    proof.write_bytes(await prove(await a_log()))
    ran = await asyncio.to_thread(run_alone, script, proof)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "verified: log" in ran.stdout
    assert "does not show: " in ran.stdout
    proof.write_bytes(proof.read_bytes().replace(b'"at":"1.2"', b'"at":"1.3"'))
    ran = await asyncio.to_thread(run_alone, script, proof)
    assert ran.returncode == 1
    assert ran.stderr.startswith("NOT VERIFIED: ")


async def test_the_command_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = await a_log()
    signer = await signer_of(world)
    proof = tmp_path / "proof"
    proof.write_bytes(await prove(world))
    trusted = f"{signer.name}:{signer.public.hex()}"
    ran = CliRunner().invoke(
        verify_command, [str(proof), "--trusted-key", trusted, "-o", "json"], catch_exceptions=False
    )
    assert json.loads(ran.stdout)["pinned"] is True
    assert main([str(proof), "--trusted-key", trusted]) == 0
    assert f"{trusted} (pinned)" in capsys.readouterr().out
    proof.write_bytes(proof.read_bytes()[:-1])
    with pytest.raises(MeshlogError, match="is not verified"):
        CliRunner().invoke(verify_command, [str(proof)], catch_exceptions=False)
    assert main([str(proof)]) == 1


@pytest.mark.parametrize("text", ["", "name", "name:", "name:zz", f"name:{'00' * 31}", f":{'00' * 32}"])
def test_a_trusted_key_is_a_name_and_32_bytes(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - argparse's own kind
        parse_trusted([text])
