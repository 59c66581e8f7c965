"""Files that must be whole or absent, and private ones that nobody else may read. Bytes in, a replaced file out.

A reader (Envoy's file-based SDS, a role at its start) sees the old bytes or the new ones, never a part of either.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mesh.errors import SettingsError

PRIVATE = 0o600
PUBLIC = 0o644


def write_atomic(path: Path, data: bytes, mode: int = PUBLIC, owner: tuple[int, int] | None = None) -> None:
    """Replace `path` by `data` in one step, durable before the new name shows. Makes the parent directory (0700).

    `owner` is the user and group to give it to; ours if None.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(
                file.fileno(), mode
            )  # the umask must not decide who reads a key, or who cannot read a certificate
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_private(path: Path) -> bytes:
    """The bytes of a file that only its owner may read; SettingsError if it is missing or open to others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise SettingsError(f"{path} can be read by others (mode {mode:o}): run chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
