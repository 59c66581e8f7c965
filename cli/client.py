"""HTTP to the API servers of a cluster: signed, with time-outs, at whichever zone answers. Errors become mesh.errors.

A call that changes something is sent again elsewhere only where it certainly was not carried out (nobody listened), or
under the same token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from cli.contexts import chosen_context
from cli.credentials import AdminCredentials, load_credentials
from cli.layout import Layout
from cli.probes import probe_all
from mesh.errors import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    Forbidden,
    MeshlogError,
    NotAuthenticated,
    NotFound,
    ResourceInUse,
    SettingsError,
    TimedOut,
    TooManyRequests,
    Unavailable,
)
from runtime.limits import CLI_CONNECT_TIMEOUT_S, CLI_READ_TIMEOUT_S

APPMESH, MESHLOG, CLOUD_MAP = "appmesh", "meshlog", "servicediscovery"
_CLOUD_MAP_TARGET = "Route53AutoNaming_v20170314"
_BY_CODE: Mapping[str, type[MeshlogError]] = {
    "ResourceInUseException": ResourceInUse,
    "ForbiddenException": Forbidden,
    "AccessDeniedException": Forbidden,
}
_BY_STATUS: Mapping[int, type[MeshlogError]] = {
    400: BadRequest,
    403: NotAuthenticated,
    404: NotFound,
    409: Conflict,
    413: BodyTooLarge,
    429: TooManyRequests,
    503: Unavailable,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a cluster's API is: base URLs in the order to try, the key to sign with, what HTTPS is verified by."""

    urls: Sequence[str]
    key: AdminCredentials
    ca_bundle: Path | None = None


def find_target(
    layout: Layout, environ: Mapping[str, str], *, endpoint: str | None = None, zone: str | None = None
) -> Target:
    """`endpoint` (or MESHLOG_ENDPOINT) with the AWS_* key or the directory's, else a context, else the directory.

    Servers of `zone` come first, and those that answer before those that do not. Several endpoints are separated by
    commas.
    """
    endpoint = endpoint or environ.get("MESHLOG_ENDPOINT")
    if endpoint:
        urls = [url.strip().rstrip("/") for url in endpoint.split(",") if url.strip()]
        return Target(urls, _key(layout, environ), _ca_bundle(layout, environ))
    context = chosen_context(layout, environ)
    if context is not None and context.endpoints:
        return Target(context.endpoints, context.key, Path(context.ca_bundle) if context.ca_bundle else None)
    if context is not None and context.data_dir:
        layout = Layout(Path(context.data_dir))
    cluster = layout.load()
    probes = probe_all(layout, cluster.of_role("api"), local=cluster.local)
    if zone is not None and zone not in cluster.zones:
        raise SettingsError(f"there is no zone '{zone}'; this cluster has {', '.join(cluster.zones)}")
    probes.sort(key=lambda found: (not found.ready, found.process.zone != zone))
    urls = [found.process.url for found in probes]
    return Target(urls, load_credentials(layout.credentials_file), _ca_bundle(layout, {}))


def _ca_bundle(layout: Layout, environ: Mapping[str, str]) -> Path | None:
    ours = layout.http_authority
    named = environ.get("MESHLOG_CA_BUNDLE") or (None if ours.exists() else environ.get("AWS_CA_BUNDLE"))
    if named:
        return Path(named)
    return ours if ours.exists() else None


class ApiClient:
    """Calls of one cluster. Use as a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.position: str | None = None
        """The log's position, `epoch.position`, in the last answer that told one."""
        timeout = urllib3.Timeout(connect=CLI_CONNECT_TIMEOUT_S, read=CLI_READ_TIMEOUT_S)
        ca_certs = str(target.ca_bundle) if target.ca_bundle else None
        self._pool = urllib3.PoolManager(retries=False, timeout=timeout, ca_certs=ca_certs)

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.clear()

    def get(self, path: str, query: Mapping[str, str] | None = None, service: str = MESHLOG) -> dict[str, Any]:
        """A read; every server is asked until one answers."""
        return self._call("GET", _with_query(path, query), None, service, again=True)

    def post(self, path: str, body: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        """A call that may change something. `repeatable`: the body has a token, so that sending it twice is once."""
        return self._call("POST", path, body, MESHLOG, again=repeatable)

    def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """A call of the App Mesh API that may change something; `repeatable` as in `post`."""
        return self._call(method, _with_query(path, query), body, APPMESH, again=repeatable)

    def cloud_map(self, operation: str, members: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        """A call of the Cloud Map API; `repeatable`: it reads, or has a request id."""
        target = {"X-Amz-Target": f"{_CLOUD_MAP_TARGET}.{operation}"}
        return self._call("POST", "/", members, CLOUD_MAP, again=repeatable, headers=target)

    def _call(
        self,
        method: str,
        path: str,
        body: object,
        service: str,
        *,
        again: bool,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        failure: MeshlogError | None = None
        for url in self._target.urls:
            try:
                return self._send(method, url + path, body, service, headers)
            except Unavailable as error:
                failure = error
                if not again and not isinstance(error, _NobodyThere):
                    raise
            except TimedOut as error:
                failure = error
                if not again:
                    raise
        if failure is None:
            raise SettingsError("this cluster has no API server: see `meshlog status`")
        raise failure

    def _send(
        self, method: str, url: str, body: object, service: str, more: Mapping[str, str] | None
    ) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = sign(method, url, data, self._target.key, service, more=more)
        try:
            answer = self._pool.request(method, url, body=data or None, headers=headers)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise _NobodyThere(f"no API server answers at {_base(url)}: see `meshlog status`") from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise TimedOut(
                f"{url} did not answer within {CLI_READ_TIMEOUT_S:.0f} s; whether it did what was asked is not known: "
                "look with `meshlog log`"
            ) from error
        except urllib3.exceptions.SSLError as error:
            raise SettingsError(
                f"{_base(url)} is not who it must be ({error}): name its authority with "
                "MESHLOG_CA_BUNDLE, which is pki/http-ca.crt of the cluster's directory"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(
                f"the connection to {url} broke ({type(error).__name__}): see `meshlog status`"
            ) from error
        self.position = answer.headers.get("x-meshlog-position") or self.position
        return _read(answer, url)


class _NobodyThere(Unavailable):
    """Nothing was sent."""


def sign(
    method: str,
    url: str,
    body: bytes,
    key: AdminCredentials,
    service: str,
    *,
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a SigV4-signed request. `more` are signed as well."""
    from botocore.auth import SigV4Auth  # noqa: PLC0415  (0.2 s that `--help` must not pay)
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    headers = {"Content-Type": "application/json", **(more or {})}
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token or None)
    SigV4Auth(credentials, service, key.region).add_auth(request)
    return dict(request.headers.items())


def pages(fetch: Callable[[str | None], tuple[list[Any], str | None]]) -> list[Any]:
    """All items of a paged answer; `fetch(token)` gives a page and the next token."""
    items, token = fetch(None)
    while token:
        more, token = fetch(token)
        items = items + more
    return items


def segment(name: str) -> str:
    """A name as one path segment."""
    return quote(name, safe="")


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query, quote_via=quote)}" if query else path


def _base(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _read(answer: urllib3.BaseHTTPResponse, url: str) -> dict[str, Any]:
    try:
        document = json.loads(answer.data or b"{}")
    except ValueError:
        document = {}
    if answer.status < 300 and isinstance(document, dict):
        return document
    fields = document if isinstance(document, dict) else {}
    code = (answer.headers.get("x-amzn-ErrorType") or str(fields.get("code", ""))).partition(":")[0]
    text = fields.get("message") or fields.get("Message") or f"{url} answered HTTP {answer.status}"
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status, MeshlogError)
    raise kind(str(text))


def _key(layout: Layout, environ: Mapping[str, str]) -> AdminCredentials:
    access_key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access_key_id and secret:
        region = environ.get("AWS_REGION") or "us-east-1"
        return AdminCredentials(access_key_id, secret, "", region, environ.get("AWS_SESSION_TOKEN", ""))
    if layout.credentials_file.exists():
        return load_credentials(layout.credentials_file)
    raise SettingsError(
        "an endpoint needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name the cluster's --data-dir"
    )
