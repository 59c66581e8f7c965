"""`meshlog verify`: a proof of history, checked offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from cli.output import output_option, print_data
from mesh.errors import Damaged, SettingsError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--trusted-key",
    multiple=True,
    metavar="NAME:HEX",
    help="Believe only signatures of this key (repeatable). Without it the keys in the proof are believed, and shown.",
)
@output_option("table", "json", "yaml")
def verify(file: Path, *, trusted_key: Sequence[str], output: str) -> None:
    """Verify a proof that `meshlog fsck --prove` wrote. Needs no cluster, no key and no network.

    Exits with 1 if the proof does not hold. The same check is one plain Python file that imports nothing of Meshlog,
    scripts/verify_proof.py, for those who would rather read what they run.
    """
    from eventlog import verify_proof  # noqa: PLC0415

    try:
        pinned = verify_proof.parse_trusted(list(trusted_key))
    except ValueError as failure:
        raise SettingsError(
            "--trusted-key takes NAME:HEX: a signer's name and its public key, 32 bytes in hex"
        ) from failure
    try:
        with file.open("rb") as proof:
            found = verify_proof.verify(proof, pinned)
    except verify_proof.ProofError as failure:
        raise Damaged(f"{file} is not verified: {failure}") from failure
    print_data(dataclasses.asdict(found), output, lambda: verify_proof.report(found), list)
