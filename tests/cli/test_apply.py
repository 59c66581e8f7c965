"""Manifests on the command line, against a real API server over a log in memory."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.client import ApiClient, find_target
from cli.layout import Layout
from tests.api.conftest import ACCOUNT, Cloud, call, cloud
from tests.cli.shell import Shell, on_a_terminal, use

__all__ = ["cloud"]

KUBERNETES = """\
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {mesh: shop}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {namespaceSelector: {matchLabels: {mesh: shop}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: cart, namespace: web}
spec: {provider: {virtualRouter: {virtualRouterRef: {name: cart}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: cart, namespace: web}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  routes:
    - name: all
      httpRoute:
        match: {prefix: /}
        action: {weightedTargets: [{virtualNodeRef: {name: v1}, weight: 1}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: v1, namespace: web}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  serviceDiscovery: {dns: {hostname: v1.web.svc.cluster.local}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: v1, namespace: web}
"""
ALL = [
    "mesh/shop",
    "mesh/shop/virtualNode/v1_web",
    "mesh/shop/virtualRouter/cart_web",
    "mesh/shop/virtualRouter/cart_web/route/all",
    "mesh/shop/virtualService/cart.web",
]


@pytest.fixture
def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return use(cloud, monkeypatch)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(KUBERNETES)
    return path


def written(path: Path, document: object) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


async def node(shell: Shell, name: str) -> Any:
    client = shell.cloud.server.client()
    return await call(client, "describe_virtual_node", meshName="shop", virtualNodeName=name)


async def test_apply_makes_all_of_it_and_a_second_time_nothing(shell: Shell, shop: Path) -> None:
    first = await shell.run("apply", "-f", str(shop), "-o", "name")
    assert first.out.split() == ALL
    assert "skipped" in first.err
    assert "Deployment web/v1: is no App Mesh resource" in first.err
    assert "5 created" in first.err
    assert "to undo it: meshlog rollback --mesh shop --before 1.2" in first.err
    described = await node(shell, "v1_web")
    assert described["virtualNode"]["spec"] == {
        "listeners": [{"portMapping": {"port": 80, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "v1.web.svc.cluster.local"}},
    }
    records = len(await shell.cloud.records())
    again = await shell.run("apply", "-f", str(shop))
    assert (again.out, "5 as they shall be" in again.err) == ("", True)
    assert len(await shell.cloud.records()) == records
    await shell.run("rollback", "--mesh", "shop", "--before", "1.2", "--allow-mesh-deletion", "--yes")
    assert (await shell.run("get", "mesh", "-o", "name")).out == ""


async def test_a_dry_run_and_a_diff_change_nothing(shell: Shell, shop: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    records = len(await shell.cloud.records())
    rewrite(shop, KUBERNETES.replace("weight: 1", "weight: 2"))
    dry = await shell.run("apply", "-f", str(shop), "--dry-run", "-o", "json")
    (change,) = dry.data["changes"]
    assert (change["resource"], change["change"]) == (ALL[3], "updated")
    assert change["source"] == f"{shop}:21"
    assert dry.data["unchanged"] == [ALL[0], ALL[4], ALL[2], ALL[1]]
    assert {skipped["what"] for skipped in dry.data["skipped"]} == {"Namespace web", "Deployment web/v1"}
    compared = await shell.run("diff", "-f", str(shop), code=3)
    assert "-        weight: 1\n+        weight: 2" in compared.out
    assert len(await shell.cloud.records()) == records
    rewrite(shop, KUBERNETES)
    assert (await shell.run("diff", "-f", str(shop), code=0)).out == ""


async def test_one_bad_document_changes_nothing_unless_told_to_keep_going(
    shell: Shell, shop: Path, tmp_path: Path
) -> None:
    bad = written(
        tmp_path / "bad.json",
        [
            {"meshName": "shop", "virtualNodeName": "worse", "spec": {"listeners": [{"portMapping": {"port": 0}}]}},
            {
                "meshName": "shop",
                "virtualServiceName": "s",
                "spec": {"provider": {"virtualNode": {"virtualNodeName": "no"}}},
            },
        ],
    )
    refused = await shell.run("apply", "-f", str(shop), "-f", bad, code=1)
    assert "nothing was changed" in refused.err
    assert f"{bad}:1: mesh/shop/virtualNode/worse: " in refused.err
    assert "VirtualNode with name no is not present under mesh shop" in refused.err
    assert await shell.cloud.records() == []
    kept = await shell.run("apply", "-f", str(shop), "-f", bad, "--keep-going", "-o", "name", code=1)
    assert kept.out.split() == ALL
    assert "left out: " in kept.err


async def test_delete_takes_all_of_it_away_and_does_not_miss_what_is_gone(shell: Shell, shop: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    gone = await shell.run("delete", "-f", str(shop), "-o", "name")
    assert gone.out.split() == [ALL[4], ALL[3], ALL[2], ALL[1], ALL[0]]
    again = await shell.run("delete", "-f", str(shop))
    assert "5 as they shall be" in again.err


async def test_delete_says_what_is_in_the_way_before_it_begins(shell: Shell, shop: Path, tmp_path: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    some = written(tmp_path / "some.json", {"meshName": "shop", "virtualNodeName": "v1_web", "spec": {}})
    refused = await shell.run("delete", "-f", some, code=1)
    assert (
        "VirtualNode with name v1_web cannot be deleted because it is the target of one or more routes." in refused.err
    )


async def test_prune_takes_what_is_in_no_file_after_a_word(shell: Shell, shop: Path, tmp_path: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    extra = written(tmp_path / "extra.json", {"meshName": "shop", "virtualNodeName": "extra", "spec": {}})
    await shell.run("apply", "-f", extra)
    asked = await shell.run("apply", "-f", str(shop), "--prune", code=2)
    assert "say --yes" in asked.err
    pruned = await shell.run("apply", "-f", str(shop), "--prune", "--yes", "-o", "json")
    assert [(change["resource"], change["change"], change["why"]) for change in pruned.data["changes"]] == [
        ("mesh/shop/virtualNode/extra", "deleted", "is in no file")
    ]
    assert "--prune-mesh" in (await shell.run("apply", "-f", extra, "--prune", "--yes", code=2)).err


async def test_the_routes_of_a_router_are_those_of_its_document(shell: Shell, shop: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    rewrite(shop, KUBERNETES.replace("name: all\n", "name: every\n"))
    changed = await shell.run("apply", "-f", str(shop), "-o", "name")
    assert changed.out.split() == [ALL[3].replace("all", "every"), ALL[3]]


async def test_tags_become_those_of_the_document(shell: Shell, tmp_path: Path) -> None:
    document: dict[str, Any] = {"meshName": "shop", "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]}
    path = written(tmp_path / "mesh.json", document)
    await shell.run("apply", "-f", path)
    document["tags"] = [{"key": "b", "value": "3"}]
    written(Path(path), document)
    assert "1 tagged" in (await shell.run("apply", "-f", path)).err
    described = await shell.run("describe", "mesh", "shop", "-m", "shop", "-o", "json")
    assert described.data["tags"] == [{"key": "b", "value": "3"}]


async def test_what_get_prints_can_be_applied_elsewhere(shell: Shell, shop: Path, tmp_path: Path) -> None:
    await shell.run("apply", "-f", str(shop))
    copied = []
    for kind in ("mesh", "vn", "vr", "route", "vs"):
        found = (await shell.run("get", kind, "-m", "shop", "-o", "json")).data
        copied += [document | {"meshName": "copy"} for document in found]
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump_all(copied))
    made = await shell.run("apply", "-f", str(path), "-o", "name")
    assert made.out.split() == [name.replace("shop", "copy") for name in ALL]


async def test_a_directory_and_stdin(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "dir" / "deeper"
    inside.mkdir(parents=True)
    written(tmp_path / "dir" / "a.json", {"meshName": "a"})
    (tmp_path / "dir" / "notes.txt").write_text("nothing")
    written(tmp_path / "dir" / "package.json", {"name": "x", "scripts": {}})
    written(inside / "b.json", {"meshName": "b"})
    flat = await shell.run("apply", "-f", str(tmp_path / "dir"), "--dry-run", "-o", "name")
    assert flat.out.split() == ["mesh/a"]
    assert "package.json:1: an object with name, scripts: is no manifest" in flat.err
    deep = await shell.run("apply", "-f", str(tmp_path / "dir"), "-R", "--dry-run", "-o", "name")
    assert deep.out.split() == ["mesh/a", "mesh/b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"meshName": "c"}')))
    assert (await shell.run("apply", "-f", "-", "-o", "name")).out.split() == ["mesh/c"]


async def test_a_template_with_its_arguments(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(
        """\
AWSTemplateFormatVersion: "2010-09-09"
Parameters: {Name: {Type: String}}
Resources:
  Mesh: {Type: "AWS::AppMesh::Mesh", Properties: {MeshName: !Ref Name}}
  Node:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualNodeName: !Sub "of-${AWS::AccountId}"
      Spec: {Logging: {AccessLog: {File: {Path: !ImportValue log-path}}}}
  Service: {Type: "AWS::ECS::Service"}
"""
    )
    arguments = ("--parameter", "Name=shop", "--import-value", "log-path=/dev/stdout")
    made = await shell.run("apply", "-f", str(path), *arguments, "-o", "name")
    assert made.out.split() == ["mesh/shop", f"mesh/shop/virtualNode/of-{ACCOUNT}"]
    assert "AWS::ECS::Service Service" in made.err
    assert "NAME=VALUE" in (await shell.run("apply", "-f", str(path), "--parameter", "Name", code=2)).err


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (None, 2, "there is no such file or directory"),
        (b"\xff\xfe", 2, "is not UTF-8 text"),
        (b"{}", 1, "there is no App Mesh resource in"),
        (b"a: [", 1, "is neither YAML nor JSON"),
    ],
)
async def test_files_that_are_none(shell: Shell, tmp_path: Path, text: bytes | None, code: int, says: str) -> None:
    path = tmp_path / "f.yaml"
    if text is not None:
        path.write_bytes(text)
    assert says in (await shell.run("apply", "-f", str(path), code=code)).err


async def test_a_diff_is_of_files_or_of_moments(shell: Shell, shop: Path) -> None:
    assert "leave out the moments" in (await shell.run("diff", "1", "-f", str(shop), code=2)).err
    assert "say what to compare" in (await shell.run("diff", code=2)).err


async def test_a_gateway_route_may_come_in_a_file_of_its_own(shell: Shell, shop: Path, tmp_path: Path) -> None:
    gateway = """---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: in, namespace: web}
spec:
  namespaceSelector: {matchLabels: {mesh: shop}}
  listeners: [{portMapping: {port: 8088, protocol: http}}]
"""
    route = """
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: all, namespace: web}
spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: cart}}}}}}
"""
    rewrite(
        shop, KUBERNETES.replace("spec: {provider", "spec: {awsName: cart.web.svc.cluster.local, provider") + gateway
    )
    await shell.run("apply", "-f", str(shop))
    alone = tmp_path / "route.yaml"
    rewrite(alone, route)
    assert "or say --mesh NAME" in (await shell.run("apply", "-f", str(alone), code=1)).err
    made = await shell.run("apply", "-f", str(alone), "--mesh", "shop", "-o", "json")
    (change,) = made.data["changes"]
    assert change["resource"] == "mesh/shop/virtualGateway/in_web/gatewayRoute/all_web"
    target = change["after"]["spec"]["httpRoute"]["action"]["target"]
    assert target == {"virtualService": {"virtualServiceName": "cart.web.svc.cluster.local"}}


async def test_whoever_may_call_app_mesh_alone_can_apply(
    shell: Shell, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shell.run("apply", "-f", str(shop))
    allowed = {"Effect": "Allow", "Action": "appmesh:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    target = find_target(Layout(tmp_path), os.environ)
    with ApiClient(target) as client:
        await asyncio.to_thread(client.post, "/meshlog/v1/iam/users", {"user": "ci"})
        policy = {"user": "ci", "name": "mesh", "document": document}
        await asyncio.to_thread(client.post, "/meshlog/v1/iam/users/policies", policy)
        key = await asyncio.to_thread(client.post, "/meshlog/v1/access-keys", {"user": "ci"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["secret_access_key"])
    rewrite(shop, KUBERNETES.replace("weight: 1", "weight: 2").replace("v1.web.svc", "v2.web.svc"))
    changed = await shell.run("apply", "-f", str(shop), "-o", "name")
    assert changed.out.split() == [ALL[1], ALL[3]]
    assert len((await shell.run("delete", "-f", str(shop), "-o", "name")).out.split()) == len(ALL)


async def test_on_a_terminal_it_asks_and_shows_how_far_it_is(shell: Shell, shop: Path) -> None:
    code, shown = await asyncio.to_thread(on_a_terminal, b"n", "apply", "-f", str(shop))
    assert code == 130
    assert "mesh/shop/virtualNode/v1_web" in shown
    assert "5 to create. Go on?" in shown
    assert await shell.cloud.records() == []
    code, shown = await asyncio.to_thread(on_a_terminal, b"y", "apply", "-f", str(shop))
    assert (code, "5 created" in shown, "━" in shown) == (0, True, True)
