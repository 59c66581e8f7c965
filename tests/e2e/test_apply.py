"""Manifests applied to a real cluster by the command alone, while the API server that it talks to is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster import Cluster
from tests.conditions import eventually
from tests.e2e.conftest import Connect

NAMESPACE = "applied"
NODES = 30
HEAD = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {{name: {NAMESPACE}}}
spec: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {NAMESPACE}}}}}}}
"""
NODE = """---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {{name: n{number}, namespace: applied}}
spec:
  listeners: [{{portMapping: {{port: 80, protocol: http}}}}]
  serviceDiscovery: {{dns: {{hostname: n{number}.example.com}}}}
  backends: [{{virtualService: {{virtualServiceRef: {{name: s{number}}}}}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {{name: s{number}, namespace: applied}}
spec: {{provider: {{virtualNode: {{virtualNodeRef: {{name: n{number}}}}}}}}}
"""


@pytest.fixture
def manifest(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "applied.yaml"
    path.write_text(HEAD + "".join(NODE.format(number=number) for number in range(NODES)))
    yield path
    cluster.wait_ready()
    cluster.run("delete", "-f", str(path))


def begun(client: Any) -> bool:
    if NAMESPACE not in [mesh["meshName"] for mesh in client.list_meshes()["meshes"]]:
        return False
    return len(client.list_virtual_nodes(meshName=NAMESPACE)["virtualNodes"]) > 5


def test_a_killed_server_costs_nothing_and_counts_nothing_twice(
    cluster: Cluster, connect: Connect, manifest: Path
) -> None:
    first = cluster.processes("api")[0]
    with ThreadPoolExecutor(1) as beside:
        applying = beside.submit(cluster.run, "apply", "-f", str(manifest), "-o", "json")
        client = connect(1)
        eventually(lambda: begun(client), what="a start")
        cluster.kill([first])
        assert not applying.done(), "it was killed in the middle"
        done = json.loads(applying.result())
    cluster.restart([first])
    assert len(done["changes"]) == 2 * NODES + 1
    seen = [event["resource"] for event in cluster.log(NAMESPACE) if event["type"] == "ResourceCreated"]
    assert sorted(seen) == sorted(change["resource"] for change in done["changes"]), "each once"
    again = json.loads(cluster.run("apply", "-f", str(manifest), "-o", "json"))
    assert (again["changes"], len(again["unchanged"])) == ([], 2 * NODES + 1)
