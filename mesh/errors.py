"""The one error tree. Every room raises these; the type alone decides retry, HTTP status and exit code.

    MeshlogError
    ├── CallerError                      the caller must change something (4xx)
    │   ├── BadRequest                   400  the request breaks the model or a rule
    │   │   ├── LimitExceeded            400  a quota or a size
    │   │   └── TooManyTags              400  more tags than a resource may have
    │   ├── NotAuthenticated             403  no, unknown, wrong or expired credentials
    │   ├── Forbidden                    403  known, but not allowed
    │   ├── NotFound                     404  the named resource, or one it refers to, is absent
    │   ├── Conflict                     409  the name, or the token, is taken
    │   │   ├── ResourceInUse            409  something still refers to it
    │   │   └── LevelTooLow              409  a running server would not understand what this leads to
    │   ├── RequestTimeout               408  the request itself came too slowly
    │   ├── BodyTooLarge                 413  refused before it was read
    │   └── TooManyRequests              429  slow down
    ├── Unavailable                      503  nothing wrong with the call; try again
    │   ├── OutcomeUnknown               503  the write may or may not have landed: repeat with the same token
    │   ├── NoQuorum                     503  etcd cannot confirm the head of the log
    │   └── NotReady                     503  this replica has not caught up yet
    ├── IntegrityError                   500  the log or a key is not what it must be: stop, never guess
    │   ├── Damaged                      500  bytes fail their hash, tag or chain
    │   ├── WrongKey                     500  the key at hand is not the one that sealed this
    │   ├── MissingKey                   500  no key at hand for a key id
    │   ├── Poison                       500  a record opens but cannot be folded at this build's level
    │   └── TimelineMoved                500  a higher epoch, a head that moved back, another cluster
    ├── TimedOut                         504  what was waited for did not happen in time (exit 6)
    └── SettingsError                    exit 2  a flag, file or variable is wrong

A message says what happened, to which resource, and what to do next. It never holds a secret, and text for callers
never holds a stack trace.
"""

# ruff: noqa: N818 (named for what they tell the caller, as AWS's own codes are)
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class MeshlogError(Exception):
    """Base. `code` is the AWS-style error name, `http_status` its status, `exit_code` the CLI's.

    `members` go on the wire beside the message.
    """

    code: ClassVar[str] = "InternalServerErrorException"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.members: Mapping[str, str] = {}


class CallerError(MeshlogError):
    """The caller must change something before it calls again."""

    code = "BadRequestException"
    http_status = 400


class BadRequest(CallerError):
    """The request breaks the model or a rule; the message names the field."""


class LimitExceeded(BadRequest):
    """A quota or a size limit."""

    code = "LimitExceededException"


class TooManyTags(BadRequest):
    """More tags on one resource than App Mesh allows."""

    code = "TooManyTagsException"


class NotAuthenticated(CallerError):
    """No, unknown, wrong or expired credentials. `code` differs by cause (SigV4's own error names)."""

    http_status = 403

    def __init__(self, message: str, code: str = "UnrecognizedClientException") -> None:
        super().__init__(message)
        self.auth_code = code


class Forbidden(CallerError):
    """The principal is known but may not do this."""

    code = "ForbiddenException"
    http_status = 403


class NotFound(CallerError):
    """The named resource, or one that it refers to, does not exist."""

    code = "NotFoundException"
    http_status = 404
    exit_code = 4


class Conflict(CallerError):
    """The name is taken, or the token was used with another body."""

    code = "ConflictException"
    http_status = 409
    exit_code = 5


class ResourceInUse(Conflict):
    """Something still refers to the resource."""

    code = "ResourceInUseException"


class RequestTimeout(CallerError):
    """The request did not arrive in time; sending it again may do."""

    code = "RequestTimeoutException"
    http_status = 408
    retryable = True


class LevelTooLow(Conflict):
    """Older builds that are still running would not understand the events that this leads to."""


class BodyTooLarge(CallerError):
    """The body is over the limit; it was refused before it was read."""

    code = "RequestEntityTooLargeException"
    http_status = 413


class TooManyRequests(CallerError):
    """The caller, or the server, is over a rate or concurrency limit."""

    code = "TooManyRequestsException"
    http_status = 429
    retryable = True

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(MeshlogError):
    """Nothing is wrong with the call; the same call may succeed later or elsewhere."""

    code = "ServiceUnavailableException"
    http_status = 503
    exit_code = 7
    retryable = True


class OutcomeUnknown(Unavailable):
    """The write may or may not have landed. Repeating it with the same clientToken is safe."""


class NoQuorum(Unavailable):
    """etcd could not confirm the head of the log in time."""


class NotReady(Unavailable):
    """This replica has not caught up with the log yet."""


class IntegrityError(MeshlogError):
    """The log or a key is not what it must be. Stop; never guess (I7)."""


class Damaged(IntegrityError):
    """Stored bytes fail their hash, their authentication tag or the chain."""


class LogTrimmed(Damaged):
    """Records are not in the store where they are looked for: trimmed away, or lost. A newer checkpoint may do."""


class WrongKey(IntegrityError):
    """The key at hand is not the one that sealed this (the key-commitment tag differs)."""


class MissingKey(IntegrityError):
    """There is no key at hand for a key id."""


class Poison(IntegrityError):
    """A record opens but cannot be folded by this build."""


class TimelineMoved(IntegrityError):
    """A higher epoch, a head that moved back, or another etcd cluster: this process's history is not the live one."""


class TimedOut(MeshlogError):
    """What was waited for did not happen within the time given."""

    code = "RequestTimeoutException"
    http_status = 504
    exit_code = 6


class SettingsError(MeshlogError):
    """A flag, a file or a variable is wrong."""

    exit_code = 2


def error_code(error: MeshlogError) -> str:
    """The AWS-style name to put on the wire."""
    return error.auth_code if isinstance(error, NotAuthenticated) else error.code


def _tree(root: type[MeshlogError]) -> Mapping[str, type[MeshlogError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        if child.__module__ == __name__:
            found.update(_tree(child))
    return found


def all_errors() -> Mapping[str, type[MeshlogError]]:
    """Every class of the tree by its name (for the tests that prove status and exit code of each)."""
    return _tree(MeshlogError)
