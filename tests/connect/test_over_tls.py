"""The local endpoint before a real API server over HTTPS: boto3 with credentials of AWS, and a wrong certificate."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cluster import pki
from connect.requests import CallerKey
from runtime.clock import SystemClock, SystemEntropy
from runtime.settings import TlsFiles
from tests.api.conftest import ADMIN, REGION, call, running
from tests.connect.servers import Endpoint, connected

KEY = CallerKey(ADMIN.access_key_id, ADMIN.secret, REGION)


def issued(directory: Path, authority: pki.Authority) -> TlsFiles:
    files = TlsFiles(certificate=directory / "http.crt", key=directory / "http.key", authority=directory / "ca.crt")
    leaf = pki.http_leaf(["127.0.0.1"])
    pki.save_issued(pki.issue(authority, leaf, SystemClock().now_us(), SystemEntropy()), authority, files)
    return files


def root() -> pki.Authority:
    return pki.create_authority(pki.HTTP_ROOT, SystemClock().now_us(), SystemEntropy())


def client(endpoint: Endpoint, service: str = "appmesh") -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint.url,
        region_name="us-west-2",
        aws_access_key_id="ASIAOFAWS",
        aws_secret_access_key="theirs",
        aws_session_token="theirs too",
        config=Config(retries={"total_max_attempts": 1}),
    )


async def test_a_script_with_credentials_of_aws_over_https(tmp_path: Path) -> None:
    tls = issued(tmp_path, root())
    trust = ssl.create_default_context(cafile=str(tls.authority))
    async with running(tmp_path, tls=tls) as cloud, connected([cloud.server.url], key=KEY, tls=trust) as endpoint:
        appmesh = client(endpoint)
        made = (await call(appmesh, "create_mesh", meshName="a b"))["mesh"]
        assert (await call(appmesh, "describe_mesh", meshName="a b"))["mesh"] == made
        assert made["metadata"]["arn"] == f"arn:aws:appmesh:{REGION}:{ADMIN.account}:mesh/a b"
        arn = made["metadata"]["arn"]
        await call(appmesh, "tag_resource", resourceArn=arn, tags=[{"key": "ü", "value": "/ + %"}])
        assert (await call(appmesh, "list_tags_for_resource", resourceArn=arn))["tags"][0]["value"] == "/ + %"
        with pytest.raises(ClientError, match="ConflictException"):
            await call(appmesh, "create_mesh", meshName="a b")
        assert (await call(client(endpoint, "sts"), "get_caller_identity"))["Arn"] == ADMIN.principal
        await call(client(endpoint, "servicediscovery"), "create_http_namespace", Name="shop.local")
        named = (await call(client(endpoint, "servicediscovery"), "list_namespaces"))["Namespaces"]
        assert [each["Name"] for each in named] == ["shop.local"]


async def test_a_server_that_is_not_who_it_must_be_is_sent_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    trust = ssl.create_default_context(cafile=str(issued(tmp_path / "other", root()).authority))
    async with running(tmp_path, tls=issued(tmp_path, root())) as cloud:
        async with connected([cloud.server.url], key=KEY, tls=trust, nobody_s=0.0) as endpoint:
            with pytest.raises(ClientError, match="certificate does not verify"):
                await asyncio.to_thread(client(endpoint).list_meshes)
