"""What a failed call to etcd means: a gRPC status and its text become one of five verdicts. Pure.

The rule for writes is a short list of what is certain; everything else is unknown, NOSPACE among it ("possible to get
ErrGRPCNoSpace and still have the write succeed", etcd's maintenance guide).
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import grpc

from mesh.errors import LimitExceeded, SettingsError


class Verdict(Enum):
    """For a read, all but DENIED and COMPACTED mean: ask another member."""

    UNKNOWN = "a write may have been carried out"
    REFUSED = "certainly not carried out; may pass"
    DENIED = "certainly not carried out; an operator has to change something"
    TOO_LARGE = "certainly not carried out; too large"
    COMPACTED = "the asked revision is gone"


# Texts of etcd api/v3rpc/rpctypes/error.go.
_REFUSED_TEXTS = ("too many requests", "revision of auth store is old", "requested lease not found")
# The second is the etcd server's gRPC refusing to read a call; this side's own such error is worded otherwise.
_TOO_LARGE_TEXTS = ("request is too large", "grpc: received message larger than max")
_DENIED_CODES = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)


def judge(code: grpc.StatusCode, details: str) -> Verdict:
    """The verdict on a call that ended with `code` and `details`."""
    if any(text in details for text in _REFUSED_TEXTS):
        return Verdict.REFUSED
    if any(text in details for text in _TOO_LARGE_TEXTS):
        return Verdict.TOO_LARGE
    if "has been compacted" in details:
        return Verdict.COMPACTED
    return Verdict.DENIED if code in _DENIED_CODES else Verdict.UNKNOWN


def denied(what: str, address: str, details: str) -> SettingsError:
    """etcd will never take this call from this user."""
    return SettingsError(
        f"etcd at {address} refuses {what}: {details}. Check that this role's client certificate is the right one and "
        "that its etcd user has the rights"
    )


def too_large(what: str, details: str) -> LimitExceeded:
    return LimitExceeded(f"etcd refuses {what}: {details}. Make the change smaller")


def describe(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Code and text of a failed call."""
    call: Any = error  # every error of a call is the call itself too, which the type stubs cannot say
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    return code, call.details() or code.name
