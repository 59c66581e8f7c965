"""The AWS KMS provider: the key-encryption key stays in KMS, which wraps and unwraps for us (Encrypt, Decrypt).

    blob   = KMS's own CiphertextBlob          kek id = the ARN of the key, which an alias may have named
    EncryptionContext = {"meshlog": base64(context)}, authenticated by KMS and shown in CloudTrail

Credentials are found the AWS way: variables, shared files, web identity, the instance's role. Tries and waits are
bounded; what may pass is Unavailable, what a person must mend is MissingKey. Never logs a request: it holds a data key.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

from eventlog.keys.provider import WrappedKey
from eventlog.records import KeyClass
from mesh.errors import Damaged, IntegrityError, MeshlogError, MissingKey, SettingsError, Unavailable, WrongKey
from runtime.limits import KEY_CALL_S, KEY_CALL_TRIES, KEY_CONNECT_S

_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:(key|alias)/.+")

_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "KMSAccessDeniedException", "OptInRequired"})
_CREDENTIALS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
        "ExpiredToken",
        "ExpiredTokenException",
    }
)
_PASSING = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "KMSInternalException",
        "KeyUnavailableException",
        "DependencyTimeoutException",
        "RequestTimeout",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
_TO_DO = {
    "DisabledException": "it is disabled: enable it (aws kms enable-key)",
    "KMSInvalidStateException": "it cannot be used in its state, perhaps it waits for its deletion: cancel that "
    "(aws kms cancel-key-deletion) and enable it",
    "NotFoundException": "there is no such key in this region and account: check the key id or alias, and the region",
    "InvalidKeyUsageException": "it is not a key for encryption: name a symmetric key of usage ENCRYPT_DECRYPT",
}


class KmsKeyProvider:
    """One KMS key, named by id, ARN or alias. `endpoint` overrides AWS's (AWS_ENDPOINT_URL_KMS does too)."""

    scheme = "aws-kms"

    def __init__(
        self,
        key: str,
        key_class: KeyClass,
        *,
        region: str = "",
        endpoint: str = "",
        profile: str = "",
        tries: int = KEY_CALL_TRIES,
    ) -> None:
        found = _ARN.fullmatch(key)
        self._region = region or (found[1] if found else "")
        self._key, self._class = key, key_class
        self._endpoint, self._profile = endpoint, profile
        self._tries = tries
        self._client: Any = None
        self.place = f"{key} in AWS KMS{f' ({self._region})' if self._region else ''}"

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        """Wrap with the key that the id or alias means now."""
        answer = await self._call("encrypt", self._key, KeyId=self._key, Plaintext=material, **_bound(context))
        return WrappedKey(str(answer["KeyId"]), bytes(answer["CiphertextBlob"]))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Unwrap with the very key that wrapped, whatever the alias means now."""
        named = wrapped.kek_id
        answer = await self._call("decrypt", named, KeyId=named, CiphertextBlob=wrapped.blob, **_bound(context))
        if answer["KeyId"] != named:
            raise _damaged(named)
        return bytes(answer["Plaintext"])

    async def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._call_blocking, operation, key, arguments)

    def _call_blocking(self, operation: str, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
        from botocore import exceptions  # noqa: PLC0415  (0.2 s that a key file must not cost)

        try:
            self._client = self._client or self._connect()
            answer: dict[str, Any] = getattr(self._client, operation)(**arguments)
        except exceptions.ClientError as error:
            # Without its cause: botocore's exceptions must not carry parts of a request into a traceback.
            raise self._refused(error.response, key) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
            raise MissingKey(
                f"{self._what(key)} cannot be asked for: this process has no AWS credentials. Give its host or user a "
                "role that may call kms:Decrypt (API servers also kms:Encrypt), or set AWS_PROFILE"
            ) from None
        except (
            exceptions.NoRegionError,
            exceptions.ProfileNotFound,
            exceptions.ParamValidationError,
            exceptions.UnknownRegionError,
            ValueError,
        ) as error:
            raise SettingsError(
                f"{self._what(key)} cannot be asked for ({type(error).__name__}): write the source as "
                "aws-kms:KEY?region=REGION, and check the key's name, the endpoint and AWS_PROFILE"
            ) from None
        except exceptions.BotoCoreError as error:
            raise Unavailable(f"{self._what(key)} cannot be reached ({type(error).__name__}): try again") from None
        return answer

    def _connect(self) -> Any:
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        session = botocore.session.Session(profile=self._profile or None)
        return session.create_client(
            "kms",
            region_name=self._region or None,
            endpoint_url=self._endpoint or None,
            config=Config(
                connect_timeout=KEY_CONNECT_S,
                read_timeout=KEY_CALL_S,
                retries={"mode": "standard", "total_max_attempts": self._tries},
            ),
        )

    def _refused(self, response: Any, key: str) -> MeshlogError:
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        what = self._what(key)
        if code in _PASSING or status >= 500:
            return Unavailable(f"{what} is not answered for right now ({code or status}): try again")
        if code == "InvalidCiphertextException":
            return _damaged(key)
        if code == "IncorrectKeyException":
            return WrongKey(
                f"{what} is not the one that wrapped this log's data key (or the wrapped key was changed): restore the "
                "wrapped key from the archive"
            )
        if code in _DENIED:
            doing = "this process's AWS identity may not use it: allow kms:Decrypt (API servers also kms:Encrypt)"
        elif code in _CREDENTIALS:
            doing = f"AWS takes this process's credentials for wrong or expired ({code}): renew them"
        else:
            doing = _TO_DO.get(code, f"AWS KMS refuses it ({code or status}): look the call up in CloudTrail")
        return MissingKey(f"{what} is not to be had: {doing}")

    def _what(self, key: str) -> str:
        where = self.place if key == self._key else f"{self.place}, key {key}"
        return f"The key-encryption key of class '{self._class.value}', {where},"


def _bound(context: bytes) -> dict[str, Any]:
    return {"EncryptionContext": {"meshlog": base64.b64encode(context).decode()}}


def _damaged(key: str) -> IntegrityError:
    return Damaged(
        f"A data key wrapped with {key} fails its authentication in AWS KMS: its bytes were changed, or it was copied "
        "from another log or id; restore it from the archive"
    )
