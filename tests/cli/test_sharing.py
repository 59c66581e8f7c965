"""`meshlog mesh` and `meshlog account` against a real API server; other accounts' meshes as `NAME@ACCOUNT`."""

from __future__ import annotations

import pytest

from cli.options import split_mesh
from mesh.errors import SettingsError
from tests.api.conftest import ACCOUNT, Cloud, call, cloud
from tests.cli.shell import Shell, use

__all__ = ["cloud"]


def test_a_mesh_is_named_with_its_owner_as_in_a_node_id() -> None:
    assert split_mesh("shop") == ("shop", {})
    assert split_mesh("shop@123456789012") == ("shop", {"account": "123456789012"})
    assert split_mesh("") == ("", {})


@pytest.mark.parametrize("wrong", ["shop@", "shop@12", "shop@me", "shop@1234567890123", "shop@" + "１" * 12])
def test_an_owner_is_twelve_digits(wrong: str) -> None:
    with pytest.raises(SettingsError, match="twelve digits"):
        split_mesh(wrong)


OTHER = "999999999999"


@pytest.fixture
async def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """In which two meshes are, by the account that the cluster was made with."""
    for name in ("shop", "bank"):
        await call(cloud.server.client(), "create_mesh", meshName=name)
    return use(cloud, monkeypatch)


async def as_other(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as the admin of a new account."""
    made = (await shell.run("account", "create", OTHER, "--name", "team two", "-o", "json")).data
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["secret_access_key"])


async def test_an_account_is_added_with_its_key_told_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = await shell.run("account", "list", "-o", "name")
    assert listed.out.split() == [ACCOUNT]
    await as_other(shell, monkeypatch)
    assert (await shell.run("account", "list", "-o", "name")).out.split() == [OTHER]
    assert "cannot call meshlog:CreateAccount" in (await shell.run("account", "create", "888888888888", code=1)).err
    assert (await shell.run("get", "mesh", "-o", "name")).out == ""


async def test_a_mesh_is_shared_listed_and_shared_no_more(shell: Shell) -> None:
    done = await shell.run("mesh", "share", "shop", "--with", OTHER, "--with", "888888888888", "-o", "name")
    assert done.out.split() == ["888888888888", OTHER]
    assert f"shop@{ACCOUNT}" in done.err
    assert "nothing changed" in (await shell.run("mesh", "share", "shop", "--with", OTHER)).err
    table = (await shell.run("mesh", "shares")).out.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [["shop", ACCOUNT, "888888888888"], ["shop", ACCOUNT, OTHER]]
    assert (await shell.run("mesh", "unshare", "shop", "--with", OTHER, code=2)).err.count("--yes") == 1
    await shell.run("mesh", "unshare", "shop", "--with", OTHER, "--yes")
    assert (await shell.run("mesh", "shares", "shop", "-o", "name")).out.split() == [f"shop@{ACCOUNT}/888888888888"]
    assert (await shell.run("mesh", "unshare", "shop", "--all", "--yes", "-o", "json")).data["shared_with"] == []
    assert "shared with nobody" in (await shell.run("mesh", "unshare", "shop", "--all", "--yes")).err
    for wrong in (("shop",), ("shop", "--all", "--with", OTHER)):
        await shell.run("mesh", "unshare", *wrong, "--yes", code=2)
    await shell.run("mesh", "share", "none", "--with", OTHER, code=4)


async def test_another_accounts_mesh_is_read_as_name_at_account(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    await shell.run("mesh", "share", "shop", "--with", OTHER)
    await as_other(shell, monkeypatch)
    theirs = f"shop@{ACCOUNT}"
    assert (await shell.run("get", "mesh", "-o", "name")).out.split() == ["mesh/shop"]
    assert (await shell.run("get", "mesh")).out.splitlines()[1].split()[:2] == ["shop", ACCOUNT]
    assert (await shell.run("get", "mesh", theirs, "-o", "json")).data["metadata"]["meshOwner"] == ACCOUNT
    assert (await shell.run("get", "mesh", "-o", "json")).data[0]["metadata"]["meshOwner"] == ACCOUNT
    assert f":{ACCOUNT}:mesh/shop" in (await shell.run("describe", "mesh", theirs)).out
    assert (await shell.run("get", "vn", "-m", theirs, "-o", "name")).out == ""
    events = (await shell.run("log", "-m", theirs, "-o", "json")).data
    assert [event["type"] for event in events] == ["MeshShared"]
    since = events[0]["position"]
    await shell.run("diff", str(since), "-m", theirs)
    assert "is its owner's" in (await shell.run("diff", str(since - 1), "-m", theirs, code=1)).err
    await shell.run("rollback", "-m", theirs, "--to", str(since), "--own", "--yes")
    for mesh in (f"bank@{ACCOUNT}", f"none@{ACCOUNT}"):
        assert "is not shared with" in (await shell.run("get", "vn", "-m", mesh, code=1)).err
