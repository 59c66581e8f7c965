"""What Cloud Map refuses, under its own names and statuses: leaves of the one error tree (`mesh.errors`).

Their HTTP statuses are those of Cloud Map's model; a test holds both together.
"""

# ruff: noqa: N818 (named for what they tell the caller, as Cloud Map's own codes are)

from __future__ import annotations

from mesh.errors import BadRequest, CallerError, Conflict, NotFound, TooManyTags


class _ToldError(CallerError):
    """An error with members beside its message, as the model has them."""

    def __init__(self, message: str, **members: str) -> None:
        super().__init__(message)
        self.members = members


class InvalidInput(BadRequest):
    code = "InvalidInput"


class NamespaceNotFound(NotFound):
    code = "NamespaceNotFound"


class ServiceNotFound(NotFound):
    code = "ServiceNotFound"


class InstanceNotFound(NotFound):
    code = "InstanceNotFound"


class OperationNotFound(NotFound):
    code = "OperationNotFound"


class CustomHealthNotFound(NotFound):
    code = "CustomHealthNotFound"


class ResourceNotFound(NotFound):
    code = "ResourceNotFoundException"


class ResourceLimitExceeded(BadRequest):
    code = "ResourceLimitExceeded"


class ServiceAttributesLimitExceeded(BadRequest):
    code = "ServiceAttributesLimitExceededException"


class RegistryTooManyTags(_ToldError, TooManyTags):
    """`ResourceName` names the resource."""

    code = "TooManyTagsException"


class InUse(Conflict):
    code = "ResourceInUse"


class DuplicateRequest(_ToldError, Conflict):
    """`DuplicateOperationId` names the first one's operation."""

    code = "DuplicateRequest"


class NamespaceAlreadyExists(_ToldError, Conflict):
    """`NamespaceId` and `CreatorRequestId` are those of the one that is there."""

    code = "NamespaceAlreadyExists"
    http_status = 400


class ServiceAlreadyExists(_ToldError, Conflict):
    """`ServiceId`, `ServiceArn` and `CreatorRequestId` are those of the one that is there."""

    code = "ServiceAlreadyExists"
    http_status = 400
