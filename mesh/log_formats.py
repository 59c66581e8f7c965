"""Access log formats as Envoy reads them: what is wrong with one. Pure.

A format is text with commands in it: `%NAME%`, `%NAME(argument)%` or `%NAME(argument):length%`; `%%` is a per cent
sign. Envoy refuses a whole listener for one command that it does not know. The names are those of Envoy 1.34 (Envoy's
documentation, "Access logging", command operators) without those that need an extension; what each takes was tried on
1.36.2 and on 1.40, and is what both take.
"""

from __future__ import annotations

import re

_COMMAND = re.compile(r"%(?P<name>[A-Z][A-Z0-9_]*)(?P<argument>\([^)\n]*\))?(?P<length>:[0-9]{1,9})?%", re.ASCII)
_HEADERS = re.compile(r"\(:?[\w!#$&'*+.^`|~-]+(\?:?[\w!#$&'*+.^`|~-]+)?\)", re.ASCII)

_ADDRESSES = tuple(
    f"{side}_{part}"
    for side in (
        "UPSTREAM_LOCAL",
        "UPSTREAM_REMOTE",
        "DOWNSTREAM_LOCAL",
        "DOWNSTREAM_REMOTE",
        "DOWNSTREAM_DIRECT_REMOTE",
    )
    for part in ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")
)
_TLS = tuple(
    f"{side}_{part}"
    for side in ("UPSTREAM", "DOWNSTREAM")
    for part in (
        "TLS_SESSION_ID", "TLS_CIPHER", "TLS_VERSION", "PEER_SUBJECT", "PEER_ISSUER", "PEER_CERT", "PEER_URI_SAN",
        "PEER_DNS_SAN", "LOCAL_URI_SAN", "LOCAL_DNS_SAN", "TRANSPORT_FAILURE_REASON",
    )
)  # fmt: skip
_WIRE = tuple(
    f"{side}_{what}_BYTES_{way}"
    for side in ("UPSTREAM", "DOWNSTREAM")
    for what in ("WIRE", "HEADER")
    for way in ("SENT", "RECEIVED")
)
BARE = frozenset({
    *_ADDRESSES, *_TLS, *_WIRE, "REQUEST_HEADERS_BYTES", "BYTES_RECEIVED", "BYTES_RETRANSMITTED",
    "PACKETS_RETRANSMITTED", "PROTOCOL", "UPSTREAM_PROTOCOL", "RESPONSE_CODE",
    "CONNECTION_TERMINATION_DETAILS", "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "BYTES_SENT",
    "CUSTOM_FLAGS", "TLS_JA3_FINGERPRINT", "TRACE_ID",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT", "DURATION", "REQUEST_DURATION", "REQUEST_TX_DURATION", "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION", "DOWNSTREAM_HANDSHAKE_DURATION", "ROUNDTRIP_DURATION", "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG", "UPSTREAM_HOST", "UPSTREAM_CONNECTION_ID", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW",
    "CONNECTION_ID", "REQUESTED_SERVER_NAME", "DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1", "DOWNSTREAM_PEER_SERIAL", "HOSTNAME", "LOCAL_REPLY_BODY", "FILTER_CHAIN_NAME",
    "VIRTUAL_CLUSTER_NAME", "ROUTE_NAME", "STREAM_ID", "GRPC_STATUS_NUMBER", "ACCESS_LOG_TYPE", "UNIQUE_ID",
})  # fmt: skip
"""Commands that take nothing."""
EITHER = frozenset({
    "START_TIME", "START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL", "RESPONSE_CODE_DETAILS",
    "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START", "UPSTREAM_PEER_CERT_V_END",
})  # fmt: skip
"""Commands that may have an argument."""
OF_HEADERS = frozenset({"REQ", "RESP", "TRAILER"})
"""Commands that name a header, and maybe another one (`?`), and are cut to a length."""
OF_METADATA = frozenset({"CLUSTER_METADATA", "UPSTREAM_METADATA", "DYNAMIC_METADATA"})
"""Commands that need an argument."""
CUT = frozenset({"ENVIRONMENT", "QUERY_PARAM"})
"""Commands that need an argument, and may be cut to a length."""
GRPC_STATUSES = ("CAMEL_STRING", "SNAKE_STRING", "NUMBER")
_FILTER_STATE = re.compile(r"\([^:)]+(:PLAIN|:TYPED|:FIELD:[^:)]+)?\)")


def fault(text: str) -> str:
    """Why Envoy would refuse the format, as the end of a sentence about it; '' if it would not."""
    at = 0
    while (found := text.find("%", at)) >= 0:
        if text.startswith("%%", found):
            at = found + 2
            continue
        command = _COMMAND.match(text, found)
        if command is None:
            return f"has a '%' at character {found} that begins no command (write '%%' for the sign itself)"
        wrong = _wrong(command["name"], command["argument"], command["length"])
        if wrong:
            return f"has {command[0]}, {wrong}"
        at = command.end()
    return ""


def _wrong(name: str, argument: str | None, length: str | None) -> str:
    given = argument not in (None, "()")
    if name in BARE or name in EITHER:
        taken = length is None and (name in EITHER or not given)
        return "" if taken else "which takes no argument and no length"
    if name == "PATH":
        return "" if not given else "which is not understood with an argument by every Envoy"
    if name == "GRPC_STATUS":
        known = not given or (argument or "").strip("()") in GRPC_STATUSES
        return "" if known and length is None else f"which takes nothing, or one of {', '.join(GRPC_STATUSES)}"
    if name == "FILTER_STATE":
        found = argument is not None and _FILTER_STATE.fullmatch(argument)
        return "" if found else "which needs a name, and maybe :PLAIN, :TYPED or :FIELD:<name>"
    if name in OF_HEADERS:
        named = argument is not None and _HEADERS.fullmatch(argument)
        return "" if named else "which needs the name of a header, such as %REQ(USER-AGENT)%"
    if name in OF_METADATA or name in CUT:
        whole = length is None or name in CUT
        return "" if given and whole else f"which needs an argument{'' if whole else ', and takes no length'}"
    return "which Envoy 1.34 does not know by itself"
