"""An archive in a directory: on this host, or on a file system that the API servers share. Names become files.

    <root>/objects/<first two digits>/<sha256>     and every other name as it is, its `/` being directories
    <root>/.new/<pid>-<n>                          files that are being written

A file appears under its name whole and durable (written aside, fsync, link, fsync of the directory), and link(2) never
replaces one. Symbolic links are followed nowhere below the root. Files are 0600, directories 0700.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from eventlog.archive.store import StoredObject, check_name
from mesh.errors import Unavailable
from runtime.limits import ARCHIVE_OBJECT_BYTES, ARCHIVE_STALE_FILE_S

T = TypeVar("T")

_NEW = ".new"
_FANNED_OUT = "objects"
_numbers = count(1)


class DirectoryStore:
    """An ObjectStore in `root`, which is made by the first put. Its calls run in threads."""

    def __init__(self, root: Path) -> None:
        self.place = root.absolute().as_uri()
        self._root = root.absolute()
        self._swept = False

    async def put_new(self, name: str, data: bytes) -> bool:
        return await self._run("written", self._put, _components(name), data)

    async def get(self, name: str) -> bytes | None:
        return await self._run("read", self._read, _components(name))

    async def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        found = await self._run("read", self._walk, prefix.rpartition("/")[0])
        return sorted(each for each in found if each.name.startswith(prefix) and each.name > after)

    async def delete(self, name: str) -> None:
        await self._run("written", self._unlink, _components(name))

    async def _run(self, what: str, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.to_thread(work, *arguments)
        except OSError as failure:
            raise Unavailable(
                f"The archive in {self.place} cannot be {what} ({failure.strerror}): check that its file system is "
                "mounted, has room, and belongs to the user that runs this role"
            ) from failure

    def _put(self, components: Sequence[str], data: bytes) -> bool:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._directory([_NEW], make=True) as aside:
            fresh = f"{os.getpid()}-{next(_numbers)}"
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=aside)
            try:
                _write(fresh, data, aside)
                if not self._swept:
                    _sweep(aside)
                    self._swept = True
                with self._directory(components[:-1], make=True) as directory:
                    return _link(fresh, components[-1], aside, directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=aside)

    def _read(self, components: Sequence[str]) -> bytes | None:
        try:
            with self._directory(components[:-1]) as directory:
                descriptor = os.open(components[-1], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > ARCHIVE_OBJECT_BYTES:
                raise OSError(errno.EFBIG, f"{components[-1]} is no file that an archiver wrote")
            return file.read()

    def _walk(self, folder: str) -> Sequence[StoredObject]:
        found = []
        top = self._root.joinpath(*folder.split("/")) if folder else self._root
        for path, folders, files in os.walk(top, onerror=_raise_unless_missing):
            below = Path(path).relative_to(self._root).parts
            if not below:
                folders[:] = [each for each in folders if each != _NEW]
            for each in files:
                name = "/".join((*(below[:1] if below[:1] == (_FANNED_OUT,) else below), each))
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append(StoredObject(name, os.lstat(Path(path, each)).st_size))
        return found

    def _unlink(self, components: Sequence[str]) -> None:
        with suppress(FileNotFoundError), self._directory(components[:-1]) as directory:
            os.unlink(components[-1], dir_fd=directory)

    @contextmanager
    def _directory(self, components: Sequence[str], make: bool = False) -> Iterator[int]:
        """An open directory below the root. Every step of the way is a directory itself, never a link to one."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for component in components:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(component, 0o700, dir_fd=descriptor)
                        os.fsync(descriptor)
                inner = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _components(name: str) -> list[str]:
    components = check_name(name).split("/")
    return [_FANNED_OUT, components[1][:2], components[1]] if components[0] == _FANNED_OUT else components


def _write(name: str, data: bytes, directory: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(fresh: str, name: str, aside: int, directory: int) -> bool:
    try:
        os.link(fresh, name, src_dir_fd=aside, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        return False
    finally:
        os.fsync(directory)  # also when it was there: whoever linked it may have died before this
    return True


def _sweep(aside: int) -> None:
    """Remove what a crash left half written long ago: by the file system's own clock, at the last change here."""
    now_s = os.fstat(aside).st_mtime
    for name in os.listdir(aside):
        with suppress(FileNotFoundError):
            if os.lstat(name, dir_fd=aside).st_mtime < now_s - ARCHIVE_STALE_FILE_S:
                os.unlink(name, dir_fd=aside)


def _raise_unless_missing(failure: OSError) -> None:
    if not isinstance(failure, FileNotFoundError):
        raise failure
