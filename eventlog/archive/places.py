"""Where an archive is kept, by its URL: a setting becomes a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from eventlog.archive.directory import DirectoryStore
from eventlog.archive.store import ObjectStore
from mesh.errors import SettingsError


def open_store(url: str) -> ObjectStore:
    """The store at `file:///path` or `s3://bucket/prefix?endpoint=…`; SettingsError for any other address.

    Nothing is called yet: a place that cannot be reached shows at the first use.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from eventlog.archive.s3 import S3Store  # noqa: PLC0415 - loads a client that a directory does not need

        return S3Store(url)
    raise SettingsError(
        "An archive's address is file:///ABSOLUTE/PATH or s3://BUCKET/PREFIX?endpoint=https://HOST: this is neither"
    )


def within(url: str, folder: str) -> str:
    """The address of a folder of an archive: another log's, in the same store."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{folder.strip('/')}"))
