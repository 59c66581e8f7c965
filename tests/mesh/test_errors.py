"""The error tree: each class has the status, code and exit code that callers rely on."""

from __future__ import annotations

from mesh.errors import NotAuthenticated, all_errors, error_code

EXPECTED = {
    "MeshlogError": ("InternalServerErrorException", 500, 1),
    "CallerError": ("BadRequestException", 400, 1),
    "BadRequest": ("BadRequestException", 400, 1),
    "LimitExceeded": ("LimitExceededException", 400, 1),
    "TooManyTags": ("TooManyTagsException", 400, 1),
    "NotAuthenticated": ("UnrecognizedClientException", 403, 1),
    "Forbidden": ("ForbiddenException", 403, 1),
    "NotFound": ("NotFoundException", 404, 4),
    "Conflict": ("ConflictException", 409, 5),
    "ResourceInUse": ("ResourceInUseException", 409, 5),
    "LevelTooLow": ("ConflictException", 409, 5),
    "BodyTooLarge": ("RequestEntityTooLargeException", 413, 1),
    "RequestTimeout": ("RequestTimeoutException", 408, 1),
    "TooManyRequests": ("TooManyRequestsException", 429, 1),
    "Unavailable": ("ServiceUnavailableException", 503, 7),
    "OutcomeUnknown": ("ServiceUnavailableException", 503, 7),
    "NoQuorum": ("ServiceUnavailableException", 503, 7),
    "NotReady": ("ServiceUnavailableException", 503, 7),
    "IntegrityError": ("InternalServerErrorException", 500, 1),
    "Damaged": ("InternalServerErrorException", 500, 1),
    "LogTrimmed": ("InternalServerErrorException", 500, 1),
    "WrongKey": ("InternalServerErrorException", 500, 1),
    "MissingKey": ("InternalServerErrorException", 500, 1),
    "Poison": ("InternalServerErrorException", 500, 1),
    "TimelineMoved": ("InternalServerErrorException", 500, 1),
    "TimedOut": ("RequestTimeoutException", 504, 6),
    "SettingsError": ("InternalServerErrorException", 500, 2),
}


def test_the_tree_is_exactly_this() -> None:
    found = {}
    for name, error in all_errors().items():
        if not error.__module__.startswith("mesh."):
            continue
        made = error("said")
        assert made.message == str(made) == "said"
        found[name] = (error_code(made), error.http_status, error.exit_code)
    assert found == EXPECTED


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    retryable = {name for name, error in all_errors().items() if error.retryable}
    assert retryable == {"RequestTimeout", "TooManyRequests", "Unavailable", "OutcomeUnknown", "NoQuorum", "NotReady"}


def test_authentication_errors_carry_sigv4_s_own_names() -> None:
    assert error_code(NotAuthenticated("x", "InvalidSignatureException")) == "InvalidSignatureException"
