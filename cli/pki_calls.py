"""What the commands of `meshlog pki` share: calls, and the names by which people mean an authority or a certificate."""

from __future__ import annotations

import os
import re
from typing import Any

from cli.client import ApiClient, find_target
from cli.layout import Layout
from mesh.errors import NotFound, SettingsError
from runtime.clock import SystemEntropy

AUTHORITIES = "/meshlog/v1/pki/authorities"
CERTIFICATES = "/meshlog/v1/pki/certificates"
_DURATION = re.compile(r"(\d{1,9})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def connected(layout: Layout, endpoint: str | None) -> ApiClient:
    """A client of the cluster that is meant."""
    return ApiClient(find_target(layout, os.environ, endpoint=endpoint))


def post(layout: Layout, endpoint: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A change, that is safely sent again."""
    with connected(layout, endpoint) as client:
        return client.post(path, body | {"clientToken": SystemEntropy().uuid()}, repeatable=True)


def seconds(text: str) -> int:
    """A length of time as people write it (90d, 12h, 30m, 45s), in seconds; SettingsError otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise SettingsError(f"'{text[:40]}' is no length of time: write a whole number and s, m, h or d, such as 90d")
    return int(match[1]) * _SECONDS[match[2]]


def authority_arn(client: ApiClient, text: str) -> str:
    """The ARN of an authority that is named by it, by its last part or by its name."""
    return _meant(text, client.get(AUTHORITIES)["authorities"], "name", "certificate authority", "meshlog pki ca list")


def certificate_arn(client: ApiClient, text: str) -> str:
    """The ARN of a certificate that is named by it, by its last part or by its domain."""
    found = client.get(CERTIFICATES)["certificates"]
    return _meant(text, found, "domain", "certificate", "meshlog pki certificate list")


def _meant(text: str, found: list[dict[str, Any]], member: str, kind: str, how: str) -> str:
    if text.startswith("arn:"):
        return text
    arns: list[str] = [each["arn"] for each in found if text in (each[member], each["arn"].rpartition("/")[2])]
    if len(arns) > 1:
        raise SettingsError(f"'{text}' is the {member} of {len(arns)} of them; say which by its ARN: {', '.join(arns)}")
    if not arns:
        raise NotFound(f"there is no {kind} '{text[:200]}': see `{how}`")
    return arns[0]
