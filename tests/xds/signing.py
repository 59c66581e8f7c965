"""gRPC call credentials that sign as Envoy's `envoy.grpc_credentials.aws_iam` does: SigV4 over an empty POST to the
method's path, `host` from the channel's target, in the call's metadata."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class AwsIam(grpc.AuthMetadataPlugin):
    """`key`: access key id, secret and, of temporary credentials, session token."""

    def __init__(self, *key: str, region: str = "eu-north-1", service: str = "appmesh") -> None:
        self._key, self._region, self._service = key, region, service

    def __call__(self, context: grpc.AuthMetadataContext, callback: Any) -> None:
        url = f"{context.service_url}/{context.method_name}"
        request = AWSRequest("POST", url, headers={"x-amz-content-sha256": EMPTY_SHA256})
        SigV4Auth(Credentials(*self._key), self._service, self._region).add_auth(request)
        callback(tuple((name.lower(), value) for name, value in request.headers.items()), None)


def signing_channel(address: str, root_pem: bytes, plugin: AwsIam, name: str | None = None) -> grpc.aio.Channel:
    """A channel to `address` without a client certificate. `name`: what to dial it as, if not by its address."""
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(root_pem), grpc.metadata_call_credentials(plugin)
    )
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(address, credentials, options=options)
