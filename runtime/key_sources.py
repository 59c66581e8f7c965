"""Where key-encryption keys come from, as a setting: text in, checked values out. It opens nothing.

    config.kek                                        a key file, relative to the settings file
    file:/etc/meshlog/config.kek                      the same, said out loud
    aws-kms:alias/meshlog?region=eu-west-1            an AWS KMS key: id, ARN or alias
    vault:https://vault.example:8200/transit/meshlog  a key of Vault's Transit engine: address, mount, name
    command:/usr/local/bin/wrap --slot 3              a program that wraps and unwraps

A class may have several: the first wraps, all unwrap what was wrapped by their kind. That is how a cluster moves from
one to another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mesh.errors import SettingsError

FILE, AWS_KMS, VAULT, COMMAND = SCHEMES = ("file", "aws-kms", "vault", "command")
_SCHEME = re.compile(r"([a-z][a-z0-9-]*):(.*)", re.DOTALL)


class KeySource(NamedTuple):
    """One provider of key-encryption keys. `place` is what follows the scheme: of a file its path."""

    scheme: str
    place: str

    def __str__(self) -> str:
        """As `parse_source` reads it; a file's path is written plain where nothing could mistake it."""
        plain = self.scheme == FILE and ":" not in self.place
        return self.place if plain else f"{self.scheme}:{self.place}"

    @property
    def path(self) -> Path | None:
        """The key file; None for another kind of provider."""
        return Path(self.place) if self.scheme == FILE else None


KeySources = tuple[KeySource, ...]


def parse_source(text: str, base: Path) -> KeySource:
    """Read one source; a file's path is taken relative to `base`. SettingsError says what may be written."""
    found = _SCHEME.fullmatch(text)
    scheme, place = found.groups() if found else (FILE, text)
    if scheme not in SCHEMES or not place.strip():
        raise SettingsError(
            f"'{text[:80]}' is no source of key-encryption keys: write the path of a key file, or one of "
            f"{', '.join(f'{known}:…' for known in SCHEMES)}"
        )
    return KeySource(scheme, str(base / place) if scheme == FILE else place)


def key_files(*paths: Path) -> KeySources:
    """Key files as sources."""
    return tuple(KeySource(FILE, str(path)) for path in paths)


def shorten_sources(sources: Iterable[KeySource], directory: Path) -> KeySources:
    """The same with files under `directory` written relative to it."""
    return tuple(
        source._replace(place=str(source.path.relative_to(directory)))
        if source.path is not None and source.path.is_relative_to(directory)
        else source
        for source in sources
    )
