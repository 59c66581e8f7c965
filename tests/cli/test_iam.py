"""`meshlog iam` against a real API server: users, roles, policies and keys, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, cloud
from tests.cli.shell import Shell, use

__all__ = ["cloud"]

ANN, OPS = f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:role/ops"
MESH = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:mesh/shop"
ONLY_SHOP = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Action": "appmesh:*", "Resource": [MESH, f"{MESH}/*"]},
}
TRUST = {"Statement": {"Effect": "Allow", "Principal": {"AWS": ANN}, "Action": "sts:AssumeRole"}}


@pytest.fixture
def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return use(cloud, monkeypatch)


def file(directory: Path, document: object) -> str:
    path = directory / "document.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


async def test_a_colleague_is_let_in_and_kept_out_again(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shell.run("iam", "user", "create", "ann")
    made = await shell.run("iam", "key", "create", "--user", "ann", "-o", "json")
    assert "iam policy attach AWSAppMeshFullAccess --user ann" in made.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.data["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.data["secret_access_key"])
    denied = await shell.run("get", "mesh", code=1)
    assert f"User: {ANN} is not authorized to perform: appmesh:ListMeshes on resource: * because" in denied.err

    as_admin = use(shell.cloud, monkeypatch)
    attached = await as_admin.run("iam", "policy", "attach", "AWSAppMeshReadOnly", "--user", "ann")
    assert f"{ANN} has AWSAppMeshReadOnly" in attached.err
    assert (await as_admin.run("iam", "can", "appmesh:ListMeshes", "--user", "ann", "-o", "json")).data[
        "decision"
    ] == "allowed"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.data["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.data["secret_access_key"])
    await shell.run("get", "mesh")

    as_admin = use(shell.cloud, monkeypatch)
    await as_admin.run("iam", "policy", "detach", "AWSAppMeshReadOnly", "--user", "ann")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.data["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.data["secret_access_key"])
    await shell.run("get", "mesh", code=1)


async def test_can_tells_what_decides(shell: Shell, tmp_path: Path) -> None:
    await shell.run("iam", "user", "create", "ann")
    await shell.run("iam", "policy", "put", "only-shop", file(tmp_path, ONLY_SHOP), "--user", "ann")
    yes = await shell.run("iam", "can", "appmesh:DeleteMesh", MESH, "--user", "ann")
    assert "allowed" in yes.out
    assert "only-shop" in yes.out
    no = await shell.run("iam", "can", "appmesh:DeleteMesh", MESH + "2", "--user", "ann", code=1)
    assert "implicit deny" in no.out
    assert "no identity-based policy allows the appmesh:DeleteMesh action" in no.err
    assert (
        "The user with name bob cannot be found"
        in (await shell.run("iam", "can", "appmesh:DeleteMesh", "--user", "bob", code=4)).err
    )
    await shell.run("iam", "can", "appmesh:DeleteMesh", code=1)


async def test_a_managed_policy_of_ones_own_lives_and_dies(shell: Shell, tmp_path: Path) -> None:
    await shell.run("iam", "policy", "put", "shop", file(tmp_path, ONLY_SHOP))
    await shell.run("iam", "user", "create", "ann")
    await shell.run("iam", "policy", "attach", "shop", "--user", "ann")
    listed = (await shell.run("iam", "policy", "list", "-o", "json")).data
    assert (listed[0]["name"], listed[0]["version"], listed[0]["attached"]) == ("shop", 1, [ANN])
    assert {each["name"] for each in listed[1:]} >= {
        "AWSAppMeshFullAccess",
        "AWSAppMeshReadOnly",
        "AWSAppMeshEnvoyAccess",
    }
    again = await shell.run("iam", "policy", "put", "shop", file(tmp_path, {**ONLY_SHOP, "Id": "two"}), "-o", "json")
    assert again.data["version"] == 2
    assert json.loads((await shell.run("iam", "policy", "show", "shop")).out)["Id"] == "two"
    assert "detach it from" in (await shell.run("iam", "policy", "delete", "shop", code=5)).err
    assert "must detach all policies first" in (await shell.run("iam", "user", "delete", "ann", code=5)).err
    await shell.run("iam", "policy", "detach", "shop", "--user", "ann")
    await shell.run("iam", "policy", "delete", "shop")
    await shell.run("iam", "user", "delete", "ann")
    assert (await shell.run("iam", "user", "list", "-o", "json")).data == []


async def test_what_is_wrong_with_a_document_is_told_by_its_place(shell: Shell, tmp_path: Path) -> None:
    wrong = {"Statement": [{"Effect": "Allow", "Action": "DescribeMesh", "Resource": "*"}]}
    ran = await shell.run("iam", "policy", "put", "p", file(tmp_path, wrong), code=1)
    assert "Statement[0].Action: 'DescribeMesh' is no action" in ran.err
    assert "No such file" in (await shell.run("iam", "policy", "put", "p", str(tmp_path / "none"), code=2)).err
    assert "name either a --user or a --role" in (await shell.run("iam", "policy", "attach", "p", code=2)).err
    assert (
        "one of AWS's own"
        in (await shell.run("iam", "policy", "put", "AWSAppMeshReadOnly", file(tmp_path, ONLY_SHOP), code=5)).err
    )


async def test_a_role_and_who_may_assume_it(shell: Shell, tmp_path: Path) -> None:
    await shell.run("iam", "role", "create", "ops", "--trust", file(tmp_path, TRUST))
    await shell.run("iam", "policy", "put", "only-shop", file(tmp_path, ONLY_SHOP), "--role", "ops")
    shown = (await shell.run("iam", "role", "show", "ops")).out
    assert shown.startswith(f"{OPS}\n")
    assert "inline policy only-shop:" in shown
    assert ANN in shown.partition("trust policy:")[2]
    await shell.run(
        "iam", "role", "trust", "ops", file(tmp_path, {"Statement": {**TRUST["Statement"], "Principal": "*"}})
    )
    assert ANN not in (await shell.run("iam", "role", "show", "ops")).out
    await shell.run("iam", "policy", "delete", "only-shop", "--role", "ops")
    await shell.run("iam", "role", "delete", "ops")
    assert (await shell.run("iam", "role", "list", "-o", "name")).out == ""


async def test_a_key_is_rotated_disabled_enabled_and_deleted(shell: Shell) -> None:
    old = (await shell.run("iam", "key", "create", "--user", "ann", "-o", "json")).data["access_key_id"]
    rotated = await shell.run("iam", "key", "rotate", old, "-o", "json")
    new = rotated.data["access_key_id"]
    assert f"iam key disable {old}" in rotated.err
    third = await shell.run("iam", "key", "create", "--user", "ann", code=1)
    assert f"Cannot exceed quota for AccessKeysPerUser: 2. {ANN} has " in third.err
    await shell.run("iam", "key", "disable", old, "--yes")
    listed = {
        key["access_key_id"]: key for key in (await shell.run("iam", "key", "list", "--user", "ann", "-o", "json")).data
    }
    assert listed.keys() == {old, new}
    assert listed[old]["disabled"]
    assert listed[new]["disabled"] is None
    assert (await shell.run("iam", "key", "enable", old, "-o", "json")).data["disabled"] is None
    await shell.run("iam", "key", "delete", old, "--yes")
    assert (await shell.run("iam", "key", "list", "--user", "ann", "-o", "name")).out.split() == [new]
    assert "has no access key" in (await shell.run("iam", "key", "enable", old, code=4)).err
    assert "say --yes" in (await shell.run("iam", "key", "delete", new, code=2)).err


async def test_the_history_says_who_gave_what_to_whom(shell: Shell, tmp_path: Path) -> None:
    await shell.run("iam", "user", "create", "ann")
    await shell.run("iam", "policy", "attach", "AWSAppMeshReadOnly", "--user", "ann")
    await shell.run("iam", "policy", "put", "only-shop", file(tmp_path, ONLY_SHOP), "--user", "ann")
    await shell.run("iam", "policy", "delete", "only-shop", "--user", "ann")
    log = (await shell.run("log", "--actor", ADMIN.principal)).out
    for line in (
        "user ann created",
        "policy AWSAppMeshReadOnly attached to user ann",
        "inline policy only-shop of user ann set",
        "inline policy only-shop of user ann deleted",
    ):
        assert line in log
    audit = (await shell.run("audit", "-o", "json")).data["Records"]
    told = {(each["eventSource"], each["eventName"]) for each in audit}
    assert ("iam.amazonaws.com", "AttachUserPolicy") in told
    assert "appmesh:*" not in json.dumps([each["requestParameters"] for each in audit])
