"""Files that are whole or absent, and private ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mesh.errors import SettingsError
from runtime.files import PRIVATE, PUBLIC, read_private, write_atomic


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o177 if mode == PUBLIC else 0)
    try:
        write_atomic(tmp_path / "file", b"x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_replaced_file_is_another_one_and_a_reader_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"
    assert list(path.parent.iterdir()) == [path], "nothing half-made is left"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_private_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"k", PRIVATE)
    assert read_private(path) == b"k"
    path.chmod(0o604)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_private(path)
    with pytest.raises(SettingsError, match="cannot read"):
        read_private(tmp_path / "absent")
