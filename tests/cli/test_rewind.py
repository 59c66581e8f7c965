"""The past on the command line, against a real API server over a log in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io

import pytest
import yaml

from cli.main import main
from mesh.position import Position
from tests.api.canary import NAMES, make_canary, route
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, call, cloud
from tests.cli.shell import Shell, on_a_terminal, use
from tests.conditions import await_until

__all__ = ["cloud"]

ROUTE = "mesh/m/virtualRouter/r/route/all"
LISTENING = {
    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
    "serviceDiscovery": {"dns": {"hostname": "v1.internal"}},
}


@pytest.fixture
async def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Over the canary: 2 mesh m, 3 and 4 nodes v1 and v2, 5 router r, 6 route 90/10, 7 route 0/100, 8 mesh other."""
    await make_canary(cloud)
    return use(cloud, monkeypatch)


async def time_of(shell: Shell, position: int) -> str:
    events = (await shell.run("log", "-o", "json", "--since", str(position), "--limit", "1")).data
    time: str = events[0]["time"]
    return time


async def test_get_at_shows_what_was(shell: Shell) -> None:
    at6 = await shell.run("get", "route", "all", "-m", "m", "--at", "6", "-o", "json")
    assert at6.data["spec"] == route(90, 10)
    now = await shell.run("get", "route", "all", "-m", "m", "-o", "json")
    at7 = await shell.run("get", "route", "all", "-m", "m", "--at", "1.7", "-o", "json")
    assert at7.data == now.data, "the present shape, and what is told at the head is what is"
    assert "as of position 1.6, 20" in at6.err
    assert (await shell.run("get", "vn", "-m", "m", "--at", "3", "-o", "name")).out.split() == ["mesh/m/virtualNode/v1"]
    assert (await shell.run("get", "mesh", "--at", "7", "-o", "name")).out.split() == ["mesh/m"]


async def test_get_at_a_time_is_the_state_after_the_last_event_by_then(shell: Shell) -> None:
    time = await time_of(shell, 6)
    shown = await shell.run("get", "route", "all", "-m", "m", "--at", time, "-o", "json")
    assert shown.data["spec"] == route(90, 10)
    assert f"{time} is {time}" in shown.err
    early = await shell.run("get", "route", "all", "-m", "m", "--at", "2000-01-01T00:00Z", code=4)
    assert "Mesh with name m is not present" in early.err
    assert "after position 1.0" in early.err
    future = await shell.run("get", "mesh", "--at", "2100-01-01T00:00Z", code=1)
    assert "has not come yet" in future.err


async def test_what_was_not_there_yet_is_not_found(shell: Shell) -> None:
    ran = await shell.run("get", "route", "all", "-m", "m", "--at", "5", code=4)
    assert "Route with name all is not present under mesh m after position 1.5" in ran.err
    assert (await shell.run("get", "route", "-m", "m", "--at", "5", "-o", "json")).data == []
    assert "has no position 99" in (await shell.run("get", "mesh", "--at", "99", code=1)).err.replace("1.99", "99")


async def test_two_routes_of_a_name_are_told_apart(shell: Shell) -> None:
    client = shell.cloud.server.client()
    await call(client, "create_virtual_router", meshName="m", virtualRouterName="r2", spec={})
    await call(client, "create_route", **{**NAMES, "virtualRouterName": "r2"}, spec=route(1, 1))
    ran = await shell.run("get", "route", "all", "-m", "m", "--at", "10", code=2)
    assert "r, r2 all have a route 'all': choose with --router" in ran.err
    chosen = await shell.run("get", "route", "all", "-m", "m", "--at", "10", "--router", "r2", "-o", "json")
    assert chosen.data["spec"] == route(1, 1)


async def test_describe_tells_who_changed_it_last(shell: Shell) -> None:
    arn = f"arn:aws:appmesh:{REGION}:{ACCOUNT}:{ROUTE}"
    await call(shell.cloud.server.client(), "tag_resource", resourceArn=arn, tags=[{"key": "team", "value": "shop"}])
    text = (await shell.run("describe", "route", "all", "-m", "m")).out
    assert text.startswith(f"{ROUTE}\n")
    assert f"by {ADMIN.principal} (1.9 TagsChanged)" in text
    assert "team=shop" in text
    assert "weightedTargets" in text
    before = yaml.safe_load((await shell.run("describe", "route", "all", "-m", "m", "--at", "6", "-o", "yaml")).out)
    assert (before["last_change"]["position"], before["tags"]) == (6, [])
    await shell.run("describe", "route", "none", "-m", "m", code=4)


async def test_diff_shows_each_change_with_who_and_when(shell: Shell) -> None:
    ran = await shell.run("diff", "5", "7", "--mesh", "m", code=3)
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"# {ROUTE} added, last touched 20")
    assert lines[0].endswith(f"by {ADMIN.principal} (1.7 ResourceUpdated)")
    assert lines[1:3] == ["--- /dev/null", f"+++ {ROUTE}\t{lines[2].partition(chr(9))[2]}"]
    changed = (await shell.run("diff", "6", "7", "-m", "m", code=3)).out
    assert "-        weight: 90" in changed
    assert "+        weight: 0" in changed
    assert (await shell.run("diff", "7", "6", "-m", "m", "-o", "name", code=3)).out.split() == [ROUTE]
    same = await shell.run("diff", "7", "8", "-m", "m")
    assert (same.out, "nothing differs" in same.err) == ("", True)


async def test_diff_of_all_meshes_against_now_as_json(shell: Shell) -> None:
    document = (await shell.run("diff", "5", "-o", "json", code=3)).data
    assert [(change["resource"], change["change"]) for change in document["changes"]] == [
        (ROUTE, "created"), ("mesh/other", "created"),
    ]  # fmt: skip
    assert (document["from"]["position"], document["to"]["position"]) == (5, 8)
    last = document["changes"][0]["last_change"]
    assert (last["position"], last["type"], last["actor"]) == (7, "ResourceUpdated", ADMIN.principal)
    assert (await shell.run("diff", "8", "-o", "json")).data["changes"] == []


async def test_diff_tells_who_took_something_away(shell: Shell) -> None:
    await call(shell.cloud.server.client(), "delete_route", **NAMES)
    (change,) = (await shell.run("diff", "8", "now", "-o", "json", code=3)).data["changes"]
    assert (change["change"], change["after"]) == ("deleted", None)
    assert (change["last_change"]["position"], change["last_change"]["type"]) == (9, "ResourceDeleted")


async def test_diff_of_what_envoys_are_given(shell: Shell) -> None:
    client = shell.cloud.server.client()
    await call(client, "update_virtual_node", meshName="m", virtualNodeName="v1", spec=LISTENING)
    node = ("--xds", "--node", "mesh/m/virtualNode/v1")
    document = (await shell.run("diff", "8", "9", *node, "-o", "json", code=3)).data
    changed = {change["resource"]: change for change in document["changes"]}
    assert changed["Cluster/cds_ingress_m_v1_http_8080"]["change"] == "created"
    assert changed["Cluster/cds_ingress_m_v1_http_8080"]["after"]["spec"]["loadAssignment"]
    text = (await shell.run("diff", "8", "9", *node, code=3)).out
    assert "+++ Cluster/cds_ingress_m_v1_http_8080" in text
    await shell.run("diff", "7", "8", *node)
    missing = await shell.run("diff", "7", "8", "--xds", "--node", "mesh/m/virtualNode/ghost", code=4)
    assert "ghost is there neither after 1.7 nor after 1.8" in missing.err


async def test_log_is_filtered_by_the_server(shell: Shell) -> None:
    async def positions(*filters: str) -> list[int]:
        return [event["position"] for event in (await shell.run("log", *filters, "-o", "json")).data]

    assert await positions("--kind", "vn") == [3, 4]
    assert await positions("--name", "v2") == [4]
    assert await positions("--kind", "route", "--name", "r/all") == []
    assert await positions("--name", "route/r/all") == [6, 7]
    assert await positions("--type", "resourceupdated") == [7]
    assert await positions("--actor", "admin") == await positions("--actor", "*:user/ad*") == list(range(1, 9))
    assert await positions("--actor", "nobody") == []
    assert await positions("--since", "3", "--until", "5") == [3, 4, 5]
    assert await positions("--order", "newest", "--limit", "3") == [8, 7, 6]
    assert await positions("--mesh", "m", "--limit", "2") == [2, 3]
    assert await positions("--account", ACCOUNT, "--type", "AccessKeyCreated") == [1]
    assert await positions("--since", await time_of(shell, 4), "--until", await time_of(shell, 6)) == [4, 5, 6]
    assert await positions("--until", "2100-01-01T00:00Z", "--since", "8") == [8]
    await shell.run("log", "--account", "999999999999", code=1)
    assert "none of" in (await shell.run("log", "--type", "Nonsense", code=1)).err


async def test_a_rollback_is_found_under_everything_that_it_touched(shell: Shell) -> None:
    await shell.run("rollback", "-m", "m", "--to", "6", "--yes")
    (event,) = (await shell.run("log", "--name", "route/r/all", "--type", "MeshRolledBack", "-o", "json")).data
    assert event["position"] == 9


async def test_rollback_shows_a_diff_first(shell: Shell) -> None:
    ran = await shell.run("rollback", "-m", "m", "--to", "6", "--dry-run")
    assert f"# {ROUTE} changed, last touched 20" in ran.out
    assert "+        weight: 90" in ran.out
    table = await shell.run("rollback", "-m", "m", "--to", "6", "--dry-run", "-o", "table")
    assert "would be updated" in table.out
    done = await shell.run("rollback", "-m", "m", "--before", "7", "--yes")
    assert "updated" in done.out
    assert "to undo it: meshlog rollback --mesh m --before 9" in done.err
    assert (await shell.run("get", "route", "all", "-m", "m", "-o", "json")).data["spec"] == route(90, 10)
    await shell.run("rollback", "-m", "m", "--before", "9", "--yes")
    assert (await shell.run("get", "route", "all", "-m", "m", "-o", "json")).data["spec"] == route(0, 100)


async def test_rollback_shows_asks_and_does_what_was_shown(shell: Shell) -> None:
    rollback = ("rollback", "-m", "m", "--before", "7")
    code, shown = await asyncio.to_thread(on_a_terminal, b"n", *rollback)
    assert (code, "+        weight: 90" in shown) == (130, True)
    assert shell.cloud.server.replica.position == Position(1, 8)
    code, shown = await asyncio.to_thread(on_a_terminal, b"y", *rollback)
    assert (code, "Take mesh m back to 1.6 (20" in shown) == (0, True)
    assert "done at position 9" in shown
    assert (await shell.run("get", "route", "all", "-m", "m", "-o", "json")).data["spec"] == route(90, 10)


async def test_rollback_to_a_time(shell: Shell) -> None:
    time = await time_of(shell, 6)
    done = (await shell.run("rollback", "-m", "m", "--to", time, "--yes", "-o", "json")).data
    assert (done["position"], done["to"]["position"]) == (9, 6)


async def test_rollback_of_a_part_names_what_else_it_needs(shell: Shell) -> None:
    client = shell.cloud.server.client()
    only_v2 = route(1, 1)
    del only_v2["httpRoute"]["action"]["weightedTargets"][0]
    await call(client, "update_route", **NAMES, spec=only_v2)
    await call(client, "delete_virtual_node", meshName="m", virtualNodeName="v1")
    part = ("rollback", "-m", "m", "--to", "6", "--only", "route/r/all")
    refused = await shell.run(*part, "--dry-run", code=5)
    assert "route/r/all needs virtualNode/v1, which is not in --only: add it" in refused.err
    assert "--only virtualNode/v1" in refused.err
    await shell.run(*part, "--yes", code=5)
    done = await shell.run(*part, "--only", "vn/v1", "--yes", "-o", "json")
    assert {change["resource"] for change in done.data["changes"]} == {ROUTE, "mesh/m/virtualNode/v1"}
    assert "names no resource" in (await shell.run(*part, "--only", "cat/v1", "--dry-run", code=1)).err
    await shell.run(*part, "--only", "vn/ghost", "--dry-run", code=4)


async def test_a_mesh_goes_only_with_its_flag(shell: Shell) -> None:
    look = await shell.run("rollback", "-m", "m", "--to", "1", "--dry-run")
    assert "the real thing needs --allow-mesh-deletion" in look.err
    assert "allow" in (await shell.run("rollback", "-m", "m", "--to", "1", "--yes", code=5)).err
    await shell.run("rollback", "-m", "m", "--to", "1", "--yes", "--allow-mesh-deletion")
    assert (await shell.run("get", "mesh", "-o", "name")).out.split() == ["mesh/other"]


async def test_follow_shows_what_was_and_what_comes(shell: Shell) -> None:
    out = io.StringIO()

    def follow() -> None:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(out):
            main(["log", "--follow", "--limit", "2", "-o", "name"])

    following = asyncio.create_task(asyncio.to_thread(follow))  # ends with the server: see below
    await await_until(lambda: out.getvalue().split() == ["7", "8"], what="the last two are shown")
    await shell.cloud.server.call("create_mesh", meshName="late")
    await await_until(lambda: out.getvalue().split() == ["7", "8", "9"], what="the new one follows")
    out.close()  # the next line that is written ends it, as a closed pipe does
    await shell.cloud.server.call("create_mesh", meshName="last")
    await following


async def test_keys_are_made_used_listed_and_disabled(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    made = (await shell.run("iam", "key", "create", "--user", "ann", "--admin", "-o", "json")).data
    secret, key_id = made["secret_access_key"], made["access_key_id"]
    assert key_id.startswith("MLOG")
    listed = await shell.run("iam", "key", "list")
    assert key_id in listed.out
    assert secret not in listed.out
    assert secret not in (await shell.run("log", "-o", "json")).out
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    gone = (await shell.run("iam", "key", "disable", ADMIN.access_key_id, "--yes", "-o", "json")).data
    assert gone["disabled"]
    last = await shell.run("iam", "key", "disable", key_id, "--yes", code=5)
    assert f"{key_id} is the last admin key of account {ACCOUNT}" in last.err
    assert "the very key" in last.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
    refused = await shell.run("get", "mesh", code=1)
    assert f"The access key {ADMIN.access_key_id} is disabled" in refused.err
    assert shell.cloud.server.replica.state.position == Position(1, 10)
