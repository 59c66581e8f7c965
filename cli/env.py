"""`meshlog env`: what AWS's tools need to use a cluster, for a shell, as an AWS profile or for Terraform. Text only."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import rich_click as click

from cli.client import Target, find_target
from cli.contexts import chosen_context
from cli.layout import Layout
from cli.options import data_dir_option
from mesh.errors import SettingsError

CONNECT_LISTEN = "127.0.0.1:7410"
"""Where `meshlog connect` listens unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is told. Without a key: only where App Mesh is, for callers whose credentials are for other services.
    `data_dir`: where the cluster's own files are, if they are on this machine, for `meshlog` itself.
    """

    url: str
    target: Target | None = None
    ca_bundle: str | None = None
    data_dir: str | None = None

    def variables(self) -> dict[str, str]:
        values = {"AWS_ENDPOINT_URL_APP_MESH": self.url}
        if self.target is not None:
            key = self.target.key
            values |= {
                "AWS_ENDPOINT_URL_STS": self.url,
                "AWS_ENDPOINT_URL_SERVICEDISCOVERY": self.url,
                # SDKs would call DiscoverInstances at data-<host>, which is no name here.
                "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
                "AWS_ACCESS_KEY_ID": key.access_key_id,
                "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
                "AWS_REGION": key.region,
                "AWS_DEFAULT_REGION": key.region,
            }
        values |= {"AWS_CA_BUNDLE": self.ca_bundle} if self.ca_bundle else {}
        return values | ({"MESHLOG_DATA_DIR": self.data_dir} if self.data_dir else {})


def as_shell(found: Environment, environ: Mapping[str, str]) -> str:
    """Lines for `eval`. A session token of other credentials would go along with our key, and be refused."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in found.variables().items()]
    if found.target is not None and environ.get("AWS_SESSION_TOKEN"):
        lines.append("unset AWS_SESSION_TOKEN")
    return "\n".join(lines)


def as_profile(found: Environment, name: str) -> str:
    """Sections for ~/.aws/config; `services` is understood by the aws CLI 2.13 and SDKs since mid-2023."""
    lines = [f"[profile {name}]"]
    if found.target is not None:
        key = found.target.key
        lines += [
            f"region = {key.region}",
            f"aws_access_key_id = {key.access_key_id}",
            f"aws_secret_access_key = {key.secret_access_key}",
        ]
        lines.append("disable_host_prefix_injection = true")
    lines += [f"ca_bundle = {found.ca_bundle}"] if found.ca_bundle else []
    lines += [f"services = {name}", "", f"[services {name}]"]
    for service in ("app_mesh", "sts", "servicediscovery") if found.target is not None else ("app_mesh",):
        lines += [f"{service} =", f"  endpoint_url = {found.url}"]
    return "\n".join(lines)


def as_terraform(found: Environment) -> str:
    """A provider block. STS answers at the same endpoint, so that the provider learns the account from it."""
    settings: dict[str, str] = {}
    if found.target is not None:
        key = found.target.key
        settings = {"region": key.region, "access_key": key.access_key_id, "secret_key": key.secret_access_key}
    settings |= {"custom_ca_bundle": found.ca_bundle} if found.ca_bundle else {}
    beside = ("sts", "servicediscovery") if found.target is not None else ()
    endpoints = {"appmesh": found.url} | dict.fromkeys(beside, found.url)
    flags = ("skip_metadata_api_check", "skip_region_validation") if found.target is not None else ()
    lines = ['provider "aws" {']
    lines += [f"  {name} = {_hcl(value)}" for name, value in settings.items()]
    lines += [f"  {name} = true" for name in flags]
    lines += ["", "  endpoints {", *(f"    {name} = {_hcl(value)}" for name, value in endpoints.items()), "  }", "}"]
    return "\n".join(lines)


def _hcl(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


@click.command()
@data_dir_option
@click.option("--zone", help="Prefer this zone's API server.")
@click.option(
    "--connect",
    "connect_at",
    is_flag=False,
    flag_value=CONNECT_LISTEN,
    metavar="[HOST:PORT]",
    help=f"Point App Mesh alone at a running `meshlog connect`, and leave credentials as they are.  [{CONNECT_LISTEN}]",
)
@click.option("--profile-name", default="meshlog", show_default=True, help="What the profile is called.")
@click.option(
    "-o",
    "--format",
    "--output",
    "form",
    type=click.Choice(["shell", "profile", "terraform", "json"]),
    default="shell",
    show_default=True,
    help="For `eval`, for ~/.aws/config, or a provider block.",
)
def env(layout: Layout, *, zone: str | None, connect_at: str | None, profile_name: str, form: str) -> None:
    """Print what boto3, the aws CLI and Terraform need to use this cluster, and `meshlog` itself to find it.

    It names one API server. `meshlog connect` gives a local endpoint that goes on when a zone fails.
    """
    found = Environment(f"http://{connect_at}") if connect_at else _of_cluster(layout, zone)
    forms: Mapping[str, Callable[[], str]] = {
        "shell": lambda: as_shell(found, os.environ),
        "profile": lambda: as_profile(found, profile_name),
        "terraform": lambda: as_terraform(found),
        "json": lambda: json.dumps(found.variables(), indent=2),
    }
    click.echo(forms[form]())


def _of_cluster(layout: Layout, zone: str | None) -> Environment:
    # Keys and endpoints in the environment may be those of another cluster, or of AWS: the directory says what to use.
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and name not in ("MESHLOG_ENDPOINT", "MESHLOG_CA_BUNDLE")
    }
    target = find_target(layout, environ, zone=zone)
    if not target.urls:
        raise SettingsError(f"the cluster in {layout.root} has no API server")
    context = chosen_context(layout, environ)
    data_dir = str(layout.root) if context is None else context.data_dir
    return Environment(target.urls[0], target, str(target.ca_bundle) if target.ca_bundle else None, data_dir)
