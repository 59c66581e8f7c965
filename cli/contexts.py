"""Contexts: clusters by name, so that commands find one that is not on this machine. `meshlog context …`.

They are kept in `$XDG_CONFIG_HOME/meshlog/contexts.json` (0600, since they hold access keys). A context is used where
`meshlog --context NAME` or MESHLOG_CONTEXT names it, and the current one wherever nothing else says which cluster.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich_click as click

from cli.credentials import AdminCredentials
from cli.layout import Layout, default_data_dir
from cli.options import data_dir_option
from cli.output import columns, note, output_option, print_data
from mesh.errors import NotFound, SettingsError
from runtime.files import PRIVATE, read_private, write_atomic
from runtime.settings import DEFAULT_REGION


@dataclass(frozen=True, slots=True)
class Context:
    """How one cluster is reached: by its API servers and a key, or by its directory on this machine."""

    endpoints: tuple[str, ...] = ()
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    region: str = DEFAULT_REGION
    ca_bundle: str | None = None
    """What its HTTPS certificates are verified by (PEM); None: as the system verifies any."""
    data_dir: str | None = None

    @property
    def key(self) -> AdminCredentials:
        return AdminCredentials(self.access_key_id, self.secret_access_key, "", self.region)


class ContextFile:
    """The contexts of one user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.current: str | None = None
        self.contexts: dict[str, Context] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            document: Any = json.loads(read_private(self.path))
            self.current = document["current"]
            for name, fields in document["contexts"].items():
                self.contexts[name] = Context(**fields | {"endpoints": tuple(fields["endpoints"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingsError(f"{self.path} is not a file of contexts: mend it, or remove it") from error

    def save(self) -> None:
        contexts = {name: dataclasses.asdict(context) for name, context in self.contexts.items()}
        text = json.dumps({"current": self.current, "contexts": contexts}, indent=2)
        write_atomic(self.path, f"{text}\n".encode(), PRIVATE)

    def get(self, name: str) -> Context:
        """NotFound with the names that there are."""
        if name not in self.contexts:
            known = f"there are {', '.join(self.contexts)}" if self.contexts else "there is none yet"
            raise NotFound(f"there is no context '{name}': {known}; `meshlog context add` makes one")
        return self.contexts[name]


def contexts_of(environ: Mapping[str, str]) -> ContextFile:
    """The file of the user whose environment this is."""
    config = environ.get("XDG_CONFIG_HOME")
    root = Path(config) if config else Path(environ.get("HOME") or Path.home()) / ".config"
    return ContextFile(root / "meshlog" / "contexts.json")


def chosen_context(layout: Layout, environ: Mapping[str, str]) -> Context | None:
    """The context that is asked for, else the current one where no directory is asked for, else None."""
    name = environ.get("MESHLOG_CONTEXT")
    if name:
        return contexts_of(environ).get(name)
    if layout.root != default_data_dir(environ).absolute() or "MESHLOG_DATA_DIR" in environ:
        return None
    file = contexts_of(environ)
    return file.get(file.current) if file.current else None


@click.group()
def context() -> None:
    """Name clusters, and choose the one that commands use."""


@context.command()
@click.argument("name")
@click.option("--endpoint", "endpoints", multiple=True, metavar="URL", help="An API server. Give those of all zones.")
@click.option("--region", default=DEFAULT_REGION, show_default=True, help="The cluster's region.")
@click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="What its HTTPS certificates are verified by, PEM: pki/http-ca.crt of the cluster's directory.",
)
@data_dir_option
def add(layout: Layout, name: str, *, endpoints: tuple[str, ...], region: str, ca_bundle: str | None) -> None:
    """Add a context, or replace it: API servers with the key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
    without --endpoint the cluster in --data-dir.
    """
    file = contexts_of(os.environ)
    if endpoints:
        made = _remote(endpoints, region, ca_bundle)
    else:
        layout.load()
        made = Context(data_dir=str(layout.root))
    file.contexts[name] = made
    file.current = file.current or name
    file.save()
    note(f"context '{name}' is kept in {file.path}" + (" and is the current one" if file.current == name else ""))


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Make a context the current one."""
    file = contexts_of(os.environ)
    file.get(name)
    file.current = name
    file.save()


@context.command("list")
@output_option()
def list_contexts(output: str) -> None:
    """List the contexts. Secrets are not shown."""
    file = contexts_of(os.environ)
    rows = [
        {
            "name": name,
            "current": name == file.current,
            "cluster": each.data_dir or " ".join(each.endpoints),
            "access_key_id": each.access_key_id,
            "region": each.region if each.endpoints else "",
        }
        for name, each in file.contexts.items()
    ]
    titles = {
        "name": "NAME",
        "current": "CURRENT",
        "cluster": "CLUSTER",
        "access_key_id": "ACCESS KEY",
        "region": "REGION",
    }
    print_data(rows, output, lambda: columns(rows, titles), lambda: list(file.contexts))


@context.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a context, with its key."""
    file = contexts_of(os.environ)
    file.get(name)
    del file.contexts[name]
    if file.current == name:
        file.current = None
    file.save()


def _remote(endpoints: tuple[str, ...], region: str, ca_bundle: str | None) -> Context:
    key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        raise SettingsError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key of the cluster, and run it again")
    for url in endpoints:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"--endpoint '{url}' is not a URL: write for example https://meshlog.example.com:7411")
    return Context(tuple(url.rstrip("/") for url in endpoints), key_id, secret, region, ca_bundle)
