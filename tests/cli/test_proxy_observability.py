"""`meshlog proxy bootstrap` with flags, and with the variables of App Mesh's Envoy image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import main
from proxy.image_environment import CLUSTER, NODE

FRONTEND = ("--frontend", "z1=10.0.0.1:7419")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*NODE, *CLUSTER):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "ca.crt"
    path.write_text("the root's certificate\n")
    return path


def made(capsys: pytest.CaptureFixture[str], authority: Path, *arguments: str) -> dict[str, Any]:
    assert main(["proxy", "bootstrap", "--sign", *FRONTEND, "--ca", str(authority), *arguments]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_flags(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dogstatsd", "--statsd", "10.0.0.9:9125", "--prometheus", "--stats-tags", "--tracing", "datadog"]
    document = made(capsys, authority, "--node", "mesh/shop/virtualNode/cart", *flags, "--admin-port", "19901")
    assert [sink["name"] for sink in document["stats_sinks"]] == [
        "envoy.stat_sinks.statsd",
        "envoy.stat_sinks.dog_statsd",
    ]
    names = [cluster["name"] for cluster in document["static_resources"]["clusters"]]
    assert names == ["meshlog_frontends", "meshlog_admin", "datadog_agent"]
    assert document["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 19901}
    assert document["tracing"]["http"]["name"] == "envoy.tracers.datadog"


def test_the_image_s_variables_and_flags_before_them(
    authority: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPMESH_RESOURCE_ARN", "arn:aws:appmesh:eu-north-1:123456789012:mesh/shop/virtualNode/cart")
    monkeypatch.setenv("ENABLE_ENVOY_XRAY_TRACING", "1")
    monkeypatch.setenv("ENVOY_ADMIN_ACCESS_PORT", "19901")
    document = made(capsys, authority, "--from-env", "--admin-port", "19902")
    assert document["node"]["id"].endswith(":mesh/shop/virtualNode/cart")
    assert document["admin"]["address"]["socket_address"]["port_value"] == 19902
    assert document["tracing"]["http"]["typed_config"]["segment_name"] == "shop/cart"
    assert "tracing" not in made(capsys, authority, "--from-env", "--tracing", "none")
    shared = made(capsys, authority, "--node", "mesh/shop@111122223333/virtualNode/cart", "--stats-tags")
    assert shared["stats_config"]["stats_tags"][0]["fixed_value"] == "shop@111122223333"
    # Not asked to, it reads none of them.
    assert "tracing" not in made(capsys, authority, "--node", "mesh/shop/virtualNode/cart")


def test_what_cannot_be_is_a_usage_error(
    authority: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["proxy", "bootstrap", "--sign", *FRONTEND, "--ca", str(authority)]
    assert main(base) == 2
    assert "--node" in capsys.readouterr().err
    monkeypatch.setenv("ENABLE_ENVOY_XRAY_TRACING", "1")
    monkeypatch.setenv("ENABLE_ENVOY_DATADOG_TRACING", "1")
    assert main([*base, "--node", "mesh/shop/virtualNode/cart", "--from-env"]) == 2
    assert "both on" in capsys.readouterr().err
