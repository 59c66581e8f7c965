"""What `meshlog env` prints is read by the tools that it is for."""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from cli.client import Target
from cli.credentials import AdminCredentials
from cli.env import Environment, as_profile, as_shell, as_terraform
from cli.main import main

URL = "https://10.0.0.1:7411"
KEY = AdminCredentials("MLOGAAAABBBBCCCCDDDD", "se'cr$et/+%{x}${y}", "123456789012", "eu-west-1")
WHOLE = Environment(URL, Target([URL], KEY), "/etc/meshlog/http-ca.crt", "/srv/a mesh")
ALONE = Environment("http://127.0.0.1:7410")


@pytest.fixture(autouse=True)
def _a_user_of_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "CA_BUNDLE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("MESHLOG_CONTEXT", "MESHLOG_DATA_DIR", "MESHLOG_ENDPOINT", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_shell_has_every_value_as_it_is() -> None:
    script = as_shell(WHOLE, {"AWS_SESSION_TOKEN": "old"}) + "\nenv -0"
    ran = subprocess.run(["env", "-i", "AWS_SESSION_TOKEN=old", "sh", "-c", script], capture_output=True, check=True)
    values = dict(part.split("=", 1) for part in ran.stdout.decode().split("\0") if part.startswith(("AWS", "MESHLOG")))
    assert values == WHOLE.variables()
    assert values["AWS_ENDPOINT_URL_STS"] == values["AWS_ENDPOINT_URL_APP_MESH"] == URL
    assert values["MESHLOG_DATA_DIR"] == "/srv/a mesh"
    assert values["AWS_SECRET_ACCESS_KEY"] == KEY.secret_access_key
    assert "unset" not in as_shell(WHOLE, {})


def test_a_profile_is_what_botocore_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "aws-config"
    config.write_text("[default]\nregion = us-west-2\n" + as_profile(WHOLE, "mesh") + "\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    session = botocore.session.Session(profile="mesh")
    credentials = session.get_credentials()
    assert credentials is not None
    assert (credentials.access_key, credentials.secret_key) == (KEY.access_key_id, KEY.secret_access_key)
    assert session.get_config_variable("ca_bundle") == "/etc/meshlog/http-ca.crt"
    assert session.get_config_variable("disable_host_prefix_injection") is True
    for service in ("appmesh", "sts", "servicediscovery"):
        client = session.create_client(service, verify=False)
        assert client.meta.endpoint_url == URL
        assert client.meta.region_name == "eu-west-1"
    assert session.create_client("s3", verify=False).meta.endpoint_url != URL, "other services stay where they are"


def test_a_provider_block_has_every_value_as_it_is() -> None:
    lines = [line.strip() for line in as_terraform(WHOLE).splitlines()]
    assert lines[0] == 'provider "aws" {'
    assert 'secret_key = "se\'cr$et/+%%{x}$${y}"' in lines, "HCL's templates are escaped"
    assert 'custom_ca_bundle = "/etc/meshlog/http-ca.crt"' in lines
    inner = lines[lines.index("endpoints {") :]
    named = [f'{name} = "{URL}"' for name in ("appmesh", "sts", "servicediscovery")]
    assert inner == ["endpoints {", *named, "}", "}"]


@pytest.mark.parametrize("form", ["shell", "profile", "terraform", "json"])
def test_a_local_endpoint_leaves_credentials_alone(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--connect", "--format", form]) == 0
    said = capsys.readouterr().out
    assert "127.0.0.1:7410" in said
    assert "key" not in said.lower()
    assert "sts" not in said.lower()


def test_json_and_another_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--connect", "localhost:9", "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == {"AWS_ENDPOINT_URL_APP_MESH": "http://localhost:9"}


def test_a_profile_alone_is_well_formed() -> None:
    parsed = configparser.RawConfigParser()
    parsed.read_string(as_profile(ALONE, "x"))
    assert parsed["profile x"]["services"] == "x"
    assert "endpoint_url = http://127.0.0.1:7410" in parsed["services x"]["app_mesh"]


def test_without_a_cluster_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--data-dir", str(tmp_path / "none")]) == 2
    assert "start one with `meshlog up`" in capsys.readouterr().err
