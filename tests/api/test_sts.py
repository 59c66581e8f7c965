"""STS on the API's endpoint, by boto3 and by hand: who am I, temporary credentials, and errors in STS's own shape."""

from __future__ import annotations

import asyncio
import datetime
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from api.commands import Origin
from api.trail import HIDDEN
from mesh.commands import CreatePrincipal, DeletePrincipal, PutInlinePolicy, idempotency_token
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, call
from tests.api.signing import Signing, ask
from tests.api.test_audit import audit
from tests.aws_cli import run_all


@pytest.fixture
def server(cloud: Cloud) -> Server:
    return cloud.server


def client(server: Server, service: str = "sts", key: dict[str, Any] | None = None) -> Any:
    """A boto3 client with the admin's key, or with `Credentials` that STS gave."""
    given = key or {"AccessKeyId": ADMIN.access_key_id, "SecretAccessKey": ADMIN.secret}
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name=REGION,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given.get("SessionToken"),
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


async def refusal(client: Any, operation: str, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        await call(client, operation, **arguments)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["RequestId"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


async def test_who_am_i(server: Server) -> None:
    answer = await call(client(server), "get_caller_identity")
    assert (answer["Account"], answer["Arn"]) == (ACCOUNT, ADMIN.principal)
    assert answer["UserId"] == "admin"
    assert answer["ResponseMetadata"]["RequestId"]


async def test_who_am_i_by_a_presigned_url(server: Server) -> None:
    url = client(server).generate_presigned_url("get_caller_identity", HttpMethod="GET")
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
    assert f"<Arn>{ADMIN.principal}</Arn>".encode() in body


async def test_app_mesh_by_a_presigned_url(server: Server) -> None:
    await server.call("create_mesh", meshName="one")
    url = server.client().generate_presigned_url("describe_mesh", Params={"meshName": "one"})
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
    assert b'"meshName":"one"' in body

    def changed() -> int:
        try:
            urllib.request.urlopen(url.replace("/one?", "/two?"))
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    assert await asyncio.to_thread(changed) == 403


async def test_a_session_token_acts_for_its_user_until_the_key_is_disabled(server: Server) -> None:
    made = await ask(server, "POST", "/meshlog/v1/access-keys", {"user": "ann", "admin": True}, Signing())
    ann = {"AccessKeyId": made.document["access_key_id"], "SecretAccessKey": made.document["secret_access_key"]}
    answer = await call(client(server, key=ann), "get_session_token", DurationSeconds=900)
    key = answer["Credentials"]
    assert key["AccessKeyId"].startswith("MLTK")
    await call(client(server, "appmesh", key), "create_mesh", meshName="hers")
    told = await call(client(server, key=key), "get_caller_identity")
    assert told["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/ann"
    assert (await refusal(client(server, key=key), "get_session_token"))[:2] == (403, "AccessDenied")
    await ask(server, "POST", "/meshlog/v1/access-keys/disable", {"access_key_id": ann["AccessKeyId"]}, Signing())
    status, code, message = await refusal(client(server, key=key), "get_caller_identity")
    assert (status, code) == (403, "InvalidClientTokenId")
    assert ann["AccessKeyId"] in message


async def test_every_server_opens_what_one_has_sealed(pair: Cloud) -> None:
    key = (await call(client(pair.servers[0]), "get_session_token"))["Credentials"]
    assert (await call(client(pair.servers[1], key=key), "get_caller_identity"))["Arn"] == ADMIN.principal


async def test_errors_have_the_codes_of_sts(server: Server) -> None:
    wrong = {"AccessKeyId": ADMIN.access_key_id, "SecretAccessKey": "guess"}
    nobody = {"AccessKeyId": "MLOGNOBODYKNOWSTHIS1", "SecretAccessKey": "guess"}
    told = await refusal(client(server, key=wrong), "get_caller_identity")
    assert told[:2] == (403, "SignatureDoesNotMatch")
    assert await refusal(client(server, key=nobody), "get_caller_identity") == told
    foreign = {**wrong, "SessionToken": "IQoJb3JpZ2luX2VjEXAMPLE"}
    status, code, message = await refusal(client(server, key=foreign), "get_caller_identity")
    assert (status, code) == (403, "InvalidClientTokenId")
    assert "unset AWS_SESSION_TOKEN" in message
    assert (await refusal(client(server), "get_session_token", DurationSeconds=899))[:2] == (400, "ValidationError")
    mfa = await refusal(client(server), "get_session_token", SerialNumber="arn:aws:iam::1:mfa/x", TokenCode="123456")
    assert mfa[:2] == (400, "ValidationError")
    assert "SerialNumber" in mfa[2]
    federated = await refusal(client(server), "get_federation_token", Name="x1")
    assert federated[:2] == (400, "InvalidAction")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("GET", "/", b""), ("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15")],
)
async def test_who_signs_nothing_is_told_so(server: Server, method: str, target: str, body: bytes) -> None:
    reply = await ask(server, method, target, body, Signing(key=None))
    assert (reply.status, reply.headers["content-type"]) == (403, "text/xml")
    assert b"<Code>MissingAuthenticationToken</Code>" in reply.body


async def test_a_name_that_xml_cannot_say_breaks_nothing(server: Server) -> None:
    query = "/?Action=GetSessionToken&Version=2011-06-15&%00%3Cb%3E=1"
    reply = await ask(server, "POST", query, b"", Signing(service="sts"))
    assert (reply.status, reply.code) == (400, "ValidationError")
    assert b"?&lt;b&gt;: GetSessionToken does not take this" in reply.body


ROLE = f"arn:aws:iam::{ACCOUNT}:role/deployer"
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


def trust(principal: str, **more: Any) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


async def submit(server: Server, command: Any, account: str = ACCOUNT) -> None:
    """A change of who there is, as the admin's."""
    name = type(command).__name__
    token = idempotency_token(account, ADMIN.principal, name, uuid4().hex, {})
    origin = Origin(account, ADMIN.principal, "", "r", name, token)
    outcome = await server.app.state.commands.submit(command, origin)
    await server.replica.wait_for(outcome.position, 5.0)


async def assumed(server: Server, key: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    arguments = {"RoleArn": ROLE, "RoleSessionName": "ann", **more}
    answer: dict[str, Any] = await call(client(server, key=key), "assume_role", **arguments)
    return answer


async def test_an_assumed_role_is_who_calls(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    answer = await assumed(server, DurationSeconds=900)
    shown = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/ann"
    assert answer["AssumedRoleUser"]["Arn"] == shown
    left = answer["Credentials"]["Expiration"] - datetime.datetime.now(datetime.UTC)
    assert 890 < left.total_seconds() <= 900
    told = await call(client(server, key=answer["Credentials"]), "get_caller_identity")
    assert (told["Arn"], told["Account"]) == (shown, ACCOUNT)
    assert told["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"] == "deployer:ann"
    # It is not the admin that it was assumed by.
    status, code, message = await refusal(client(server, "appmesh", answer["Credentials"]), "list_meshes")
    assert (status, code) == (403, "ForbiddenException")
    assert f"User: {shown} is not authorized to perform: appmesh:ListMeshes" in message


async def test_a_session_ends_with_its_role(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    key = (await assumed(server))["Credentials"]
    await submit(server, DeletePrincipal(ROLE))
    assert (await refusal(client(server, key=key), "get_caller_identity"))[1] == "InvalidClientTokenId"
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))  # of the same name, and another role
    assert (await refusal(client(server, key=key), "get_caller_identity"))[1] == "InvalidClientTokenId"


async def test_who_may_assume_it(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal, Condition={
        "StringEquals": {"sts:ExternalId": "42", "sts:RoleSessionName": "ann"}})))  # fmt: skip
    assert (await assumed(server, ExternalId="42"))["Credentials"]
    sts = client(server)
    arguments = {"RoleArn": ROLE, "RoleSessionName": "ann"}
    told = await refusal(sts, "assume_role", **arguments)
    assert told[:2] == (403, "AccessDenied")
    assert f"not authorized to perform: sts:AssumeRole on resource: {ROLE}" in told[2]
    assert (await refusal(sts, "assume_role", **arguments, ExternalId="43"))[1] == "AccessDenied"
    bob = {**arguments, "RoleSessionName": "bob", "ExternalId": "42"}
    assert (await refusal(sts, "assume_role", **bob))[1] == "AccessDenied"
    absent = {**arguments, "RoleArn": ROLE + "2"}
    assert (await refusal(sts, "assume_role", **absent))[2] == told[2].replace(ROLE, ROLE + "2")


async def test_a_chain_of_roles_lives_an_hour_at_most(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    await submit(server, CreatePrincipal(ROLE + "2", trust(ROLE)))
    first = (await assumed(server, DurationSeconds=43_200))["Credentials"]
    second = await assumed(server, first, RoleArn=ROLE + "2", DurationSeconds=3600)
    assert second["AssumedRoleUser"]["Arn"].endswith("assumed-role/deployer2/ann")
    told = await refusal(
        client(server, key=first), "assume_role", RoleArn=ROLE + "2", RoleSessionName="ann", DurationSeconds=3601
    )
    assert told[1] == "ValidationError"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"RoleArn": "arn:aws:iam::1:role/x"}, "ValidationError"),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:user/x"}, "ValidationError"),
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"DurationSeconds": 43_201}, "ValidationError"),
        ({"Policy": "{"}, "MalformedPolicyDocument"),
        ({"Policy": '{"Version": "2012-10-17", "Statement": [{"Effect": "Maybe"}]}'}, "MalformedPolicyDocument"),
        ({"Tags": [{"Key": "a", "Value": "b"}]}, "ValidationError"),
        ({"SourceIdentity": "ann"}, "ValidationError"),
    ],
)
async def test_what_assume_role_does_not_take(server: Server, arguments: dict[str, Any], code: str) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    whole = {"RoleArn": ROLE, "RoleSessionName": "ann", **arguments}
    assert (await refusal(client(server), "assume_role", **whole))[:2] == (400, code)


async def test_a_session_policy_travels_in_the_token(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    statement = {"Effect": "Allow", "Action": "appmesh:Describe*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=400)
    answer = await assumed(server, Policy=policy)
    assert answer["PackedPolicySize"] > 0
    assert len(answer["Credentials"]["SessionToken"]) < 1_000


async def test_the_audit_tells_who_was_refused_in_which_session(cloud: Cloud, server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    key = (await assumed(server))["Credentials"]
    await refusal(client(server, key=key), "assume_role", RoleArn=ROLE, RoleSessionName="bob", Policy=POLICY)
    await server.refused.flush()
    (event,) = await audit(cloud, status="refused")
    assert (event["eventSource"], event["eventName"], event["errorCode"]) == (
        "sts.amazonaws.com", "AssumeRole", "ForbiddenException",
    )  # fmt: skip
    assert event["requestParameters"] == {"RoleArn": ROLE, "RoleSessionName": "bob", "Policy": HIDDEN}
    identity = event["userIdentity"]
    assert (identity["type"], identity["arn"]) == ("AssumedRole", f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/ann")
    assert identity["sessionContext"]["sessionIssuer"]["arn"] == ROLE
    assert identity["accessKeyId"] == key["AccessKeyId"]


async def test_all_sessions_of_a_role_are_revoked_as_aws_revokes_them(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    await submit(server, PutInlinePolicy(ROLE, "all", POLICY))
    key = (await assumed(server))["Credentials"]
    await call(client(server, "appmesh", key), "list_meshes")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    condition = {"DateLessThan": {"aws:TokenIssueTime": later.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await submit(server, PutInlinePolicy(ROLE, "AWSRevokeOlderSessions", document))
    status, code, message = await refusal(client(server, "appmesh", key), "list_meshes")
    assert (status, code) == (403, "ForbiddenException")
    assert "explicit deny" in message
    earlier = document.replace(condition["DateLessThan"]["aws:TokenIssueTime"], "2020-01-01T00:00:00Z")
    await submit(server, PutInlinePolicy(ROLE, "AWSRevokeOlderSessions", earlier))
    await call(client(server, "appmesh", key), "list_meshes")


async def test_a_session_policy_takes_away_and_never_adds(server: Server) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    await submit(server, PutInlinePolicy(ROLE, "lists", POLICY.replace('"*", "Resource', '"appmesh:List*", "Resource')))
    less = POLICY.replace('"*", "Resource', '"appmesh:Describe*", "Resource')
    none = (await assumed(server, Policy=less))["Credentials"]
    assert (await refusal(client(server, "appmesh", none), "list_meshes"))[1] == "ForbiddenException"
    more = (await assumed(server, Policy=POLICY))["Credentials"]
    await call(client(server, "appmesh", more), "list_meshes")
    assert (await refusal(client(server, "appmesh", more), "create_mesh", meshName="m"))[1] == "ForbiddenException"


async def test_a_profile_of_the_aws_cli_assumes_a_role_by_itself(server: Server, tmp_path: Path) -> None:
    await submit(server, CreatePrincipal(ROLE, trust(ADMIN.principal)))
    await submit(server, PutInlinePolicy(ROLE, "all", POLICY))
    config = tmp_path / "config"
    config.write_text(
        f"[profile base]\naws_access_key_id = {ADMIN.access_key_id}\naws_secret_access_key = {ADMIN.secret}\n"
        f"[profile deploy]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = ann\n"
    )
    environment = {
        "HOME": str(tmp_path),  # where the CLI keeps the sessions of roles
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "deploy",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_STS": server.url,
        "AWS_ENDPOINT_URL_APP_MESH": server.url,
    }
    commands = [
        ["sts", "get-caller-identity", "--output", "json"],
        ["appmesh", "create-mesh", "--mesh-name", "by-role"],
        ["sts", "get-session-token"],
    ]
    who, made, token = await asyncio.to_thread(run_all, commands, environment)
    assert who.code == 0, who
    assert json.loads(who.out)["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/ann"
    assert json.loads(made.out)["mesh"]["meshName"] == "by-role"
    assert "Cannot call GetSessionToken with session credentials" in token.err
