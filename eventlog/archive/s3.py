"""An archive in an S3-compatible store. Create-only puts are `If-None-Match: *`, which the store must honour.

Nothing is tried again here, and a put is one request, never multipart: it lands whole or not at all, and whoever gets
no answer may repeat it. Credentials come from the environment (AWS_ACCESS_KEY_ID, a web identity, a container's or an
instance's role): never from settings, and they never reach a message or a log line.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as ObstoreS3

from eventlog.archive.store import StoredObject, check_name
from mesh.errors import SettingsError, Unavailable
from runtime.limits import ARCHIVE_CONNECT_S, ARCHIVE_REQUEST_S

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

T = TypeVar("T")

_STATUS = re.compile(r"status code: (\d{3}[ A-Za-z]*)")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_REFUSED = (PermissionDeniedError, UnauthenticatedError)
_KNOWN = frozenset({"endpoint", "region"})


class S3Store:
    """An ObjectStore at `s3://bucket/prefix?endpoint=https://host&region=name`."""

    def __init__(self, url: str, request_s: float = ARCHIVE_REQUEST_S) -> None:
        parts = urlsplit(url)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if parts.username or parts.password or not parts.hostname or set(query) - _KNOWN:
            # The URL itself is not quoted: somebody may have put a key into it.
            raise SettingsError(
                "An archive in S3 is written s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION; keys come from "
                "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role), never from the URL"
            )
        self.place = url
        endpoint = query.get("endpoint", "")
        config: S3Config = {"virtual_hosted_style_request": False}
        if endpoint:
            config["endpoint"] = endpoint
        if "region" in query:
            config["region"] = query["region"]
        client: ClientConfig = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=ARCHIVE_CONNECT_S),
            "timeout": timedelta(seconds=request_s),
        }
        self._store = ObstoreS3(
            parts.hostname,
            prefix=parts.path.strip("/") or None,
            config=config,
            client_options=client,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=request_s)},
        )

    async def put_new(self, name: str, data: bytes) -> bool:
        try:
            await self._call(obstore.put_async(self._store, check_name(name), data, mode="create", use_multipart=False))
        except AlreadyExistsError:
            return False
        return True

    async def get(self, name: str) -> bytes | None:
        try:
            return await self._call(self._get(check_name(name)))
        except FileNotFoundError:
            return None

    async def list(self, prefix: str, after: str = "") -> Sequence[StoredObject]:
        return await self._call(self._list(prefix, after))

    async def delete(self, name: str) -> None:
        try:
            await self._call(obstore.delete_async(self._store, check_name(name)))
        except FileNotFoundError:
            return

    async def _get(self, name: str) -> bytes:
        answer = await obstore.get_async(self._store, name)
        return bytes(await answer.bytes_async())

    async def _list(self, prefix: str, after: str) -> Sequence[StoredObject]:
        found: list[StoredObject] = []
        async for page in obstore.list(self._store, prefix, offset=after or None):
            found.extend(StoredObject(each["path"], each["size"]) for each in page)
        return sorted(found)

    async def _call(self, call: Awaitable[T]) -> T:
        """Its result; AlreadyExistsError and FileNotFoundError as they are, all else as errors that name the place."""
        try:
            return await call
        except AlreadyExistsError:
            raise
        except (BaseError, OSError, TimeoutError) as failure:
            said, reason = str(failure), _reason(failure)
            if "<Code>NoSuchBucket</Code>" in said:
                raise SettingsError(
                    f"There is no bucket for the archive in {self.place}: make it, or mend the URL"
                ) from None
            if isinstance(failure, FileNotFoundError):
                raise
            if isinstance(failure, _REFUSED) or reason.startswith(("401", "403")):
                raise SettingsError(
                    f"The archive in {self.place} refuses this role's credentials ({reason}): give the API servers "
                    "credentials that may read, list, write and delete there"
                ) from None
            raise Unavailable(f"The archive in {self.place} does not answer ({reason})") from None


def _reason(failure: BaseException) -> str:
    """What S3 or the network said, in a few words. The whole text may hold signatures and headers: never shown."""
    text = str(failure)
    said = [match[1].strip() for match in (_STATUS.search(text), _CODE.search(text)) if match]
    if not said:
        said = ["timed out" if "timed out" in text or "TimedOut" in text else "the connection failed"]
    return ", ".join(said)
