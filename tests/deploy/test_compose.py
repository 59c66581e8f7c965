"""The Compose file is valid by the official schema, and gives each container no more than its role needs."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.deploy.compose import COMPOSE_FILE, DEPLOY, load, services

ROLES = {"etcd", "api", "projector", "frontend"}
SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())


def test_the_file_is_valid_by_the_compose_schema() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(load())


@pytest.mark.parametrize("mutant", [{"services": {"a": {"imagge": "x"}}}, {"services": {"a": {"ports": "80"}}}])
def test_the_schema_refuses_what_is_wrong(mutant: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(mutant)


def test_three_zones_each_with_every_role() -> None:
    found: dict[str, set[str]] = {}
    for service in services().values():
        if service.role:
            found.setdefault(service.zone, set()).add(service.role)
    assert len(found) == 3
    assert all(roles == ROLES for roles in found.values())


def test_the_names_that_certificates_are_made_for_are_the_services(cluster_zones: dict[str, str]) -> None:
    """`init` writes addresses `{role}-z1` into settings and certificates; Compose resolves service names."""
    for zone, host in cluster_zones.items():
        assert {host.replace("{role}", role) for role in ROLES} <= set(services())
        assert host.endswith(zone)


@pytest.fixture
def cluster_zones() -> dict[str, str]:
    words = services()["init"].command
    pairs = [word.removeprefix("--zone=").partition("=") for word in words if word.startswith("--zone=")]
    return {zone: host for zone, _, host in pairs}


def test_a_role_sees_its_own_files_only() -> None:
    for service in services().values():
        if service.role:
            sources = {source for source, _, _ in service.mounts}
            own = f"./cluster/zones/{service.zone}/{service.role}"
            assert sources == {own, f"{own}.toml"}, service.name


def test_every_container_is_locked_down() -> None:
    for name, service in services().items():
        body = service.document
        assert body["read_only"] is True, name
        assert body["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in body["security_opt"], name
        assert not body["user"].startswith(("0", "root")), name
        assert "privileged" not in body, name


def test_every_service_that_another_names_exists() -> None:
    names = set(services())
    for service in services().values():
        assert set(service.document.get("depends_on", [])) <= names
        assert not service.role or service.name == f"{service.role}-{service.zone}"


def test_the_image_is_not_root_and_its_packages_are_pinned() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert not users[-1].startswith(("0", "root"))
    assert any("--require-hashes -r /src/requirements.lock" in line for line in lines)
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(":" in image and not image.endswith(":latest") for image in images)
    go_version = (DEPLOY.parent / "scripts/etcd/go.mod").read_text().split("\ngo ")[1].split()[0]
    assert f"golang:{go_version}-bookworm" in images, "the image builds the etcd that the tests run"


def test_what_the_dockerfile_copies_is_in_its_context() -> None:
    allowed = {
        line.removeprefix("!").strip()
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    packaged = {path.parent.name for path in DEPLOY.parent.glob("*/__init__.py")} - {"tests"}
    assert packaged <= allowed
    assert {"pyproject.toml", "requirements.lock", "scripts/etcd"} <= allowed


def test_the_file_is_plain_yaml() -> None:
    assert yaml.safe_load(COMPOSE_FILE.read_text())["name"] == "meshlog"
