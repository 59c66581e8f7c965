"""`meshlog keys`: what wraps what, new data keys, another key-encryption key, and keys that come back from a copy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from cli.client import ApiClient, Target, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import columns, note, output_option, print_data
from mesh.errors import Conflict, MeshlogError, SettingsError
from runtime.clock import Clock, SystemClock, SystemEntropy
from runtime.limits import CLI_KEYS_TOLD_S, PROBE_PAUSE_S

_KEYS, _ROTATE, _REWRAP = "/meshlog/v1/keys", "/meshlog/v1/keys/rotate", "/meshlog/v1/keys/rewrap"
_DATA_KEYS = {"id": "DATA KEY", "class": "CLASS", "created": "CREATED", "sealing": "SEALING", "kek": "WRAPPED BY"}
_KEKS = {
    "id": "KEY-ENCRYPTION KEY",
    "class": "CLASS",
    "scheme": "PROVIDER",
    "data_keys": "DATA KEYS",
    "current": "CURRENT",
}
_PROVIDERS = {
    "class": "CLASS",
    "scheme": "PROVIDER",
    "place": "PLACE",
    "reachable": "REACHABLE",
    "current": "WRAPS WITH",
}


@click.group()
def keys() -> None:
    """Look after the keys that the log is sealed with."""


@keys.command()
@data_dir_option
@endpoint_options
@output_option()
def status(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """Show every data key and what wraps it, the providers, which key-encryption keys are needed, and what to do."""
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        document = client.get(_KEYS)
    names = [str(key["id"]) for key in document["data_keys"]]
    print_data(document, output, lambda: _tables(document), lambda: names)


@keys.command()
@data_dir_option
@endpoint_options
@click.option(
    "--class",
    "key_class",
    type=click.Choice(["config", "secrets", "signing", "all"]),
    default="all",
    show_default=True,
    help="Which keys.",
)
@click.option("--kek", is_flag=True, help="The key-encryption key in the key files, instead of data keys.")
@output_option("table", "json", "yaml")
def rotate(layout: Layout, *, endpoint: str | None, key_class: str, kek: bool, output: str) -> None:
    """Draw new data keys: what is written from now on is sealed with them.

    With --kek: a new key-encryption key goes into every key file of the cluster in the directory, and then around every
    data key. Records are never touched, and nothing stops.
    """
    if kek:
        return _rotate_kek(layout, key_class, output)
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        answer = client.post(_ROTATE, {"class": key_class})
    return print_data(answer, output, lambda: "\n".join(f"drawn: {key_id}" for key_id in answer["drawn"]), list)


@keys.command()
@data_dir_option
@endpoint_options
@click.option("--class", "key_class", type=click.Choice(["config", "secrets", "all"]), default="all", show_default=True)
@click.option("--to", metavar="KEK-ID", help="Wrap with this key, or this kind of provider (vault, …), and keep to it.")
@click.option("--force", is_flag=True, help="Even if a live member cannot unwrap with it, and would not start again.")
@output_option("table", "json", "yaml")
def rewrap(layout: Layout, *, endpoint: str | None, key_class: str, to: str | None, force: bool, output: str) -> None:
    """Wrap every data key anew, by default with what their provider wraps new ones with now. May be repeated."""
    target = find_target(layout, os.environ, endpoint=endpoint)
    answer = _rewrap(target, {"class": key_class, "force": force} | ({"to": to} if to else {}))
    print_data(answer, output, lambda: _rewrapped(answer), list)


@keys.command("import")
@data_dir_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--class", "key_class", type=click.Choice(["config", "secrets"]), help="Of key-encryption keys in FILE.")
@click.option(
    "--config",
    "configs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A role's settings on this host, whose key file gets the keys.  [default: all in --data-dir]",
)
@click.option("--current", is_flag=True, help="Make the first key in FILE the one that wraps from now on.")
@click.option("--data-key", metavar="ID", help="FILE is the wrapped data key of this id: bring it back into etcd.")
@click.option("--from-archive", is_flag=True, help="Bring back every data key that etcd has lost, from the archive.")
def import_(
    layout: Layout,
    *,
    file: Path | None,
    key_class: str | None,
    configs: tuple[Path, ...],
    current: bool,
    data_key: str | None,
    from_archive: bool,
) -> None:
    """Add key-encryption keys to this host's key files, or bring lost data keys back.

    Keys in FILE go below the current one: give them to every host before anything is wrapped with them
    (`meshlog keys rewrap --to`). A key file that is gone is made anew from FILE.
    """
    from cli import key_import  # noqa: PLC0415

    if from_archive and file is None and data_key is None:
        return asyncio.run(key_import.data_keys_from_archive(layout))
    if file is None or from_archive:
        raise SettingsError("say which keys: FILE --class CLASS, FILE --data-key ID, or --from-archive alone")
    if data_key is not None:
        return asyncio.run(key_import.bring_back_data_key(layout, data_key, file.read_bytes()))
    if key_class is None:
        raise SettingsError("say with --class which key-encryption keys FILE has: config or secrets")
    for path, added in key_import.import_file(layout, key_class, file, configs, current=current):
        note(f"{path}: {', '.join(added) if added else 'has them already'}")
    return None


def _rotate_kek(layout: Layout, key_class: str, output: str) -> None:
    from cli import key_import  # noqa: PLC0415

    if key_class == "signing":
        raise SettingsError("signing keys are wrapped as secrets are: say --class secrets")
    cluster = layout.load()
    names = ("config", "secrets") if key_class == "all" else (key_class,)
    new = {name: key_import.add_new_kek(layout, name, SystemEntropy()) for name in names}
    done: list[dict[str, Any]] = []
    for name, kek_id in new.items():
        rewrapped: list[str] = []
        if cluster.local:
            target = find_target(layout, os.environ)
            answer = asyncio.run(_once_told(target, {"class": name, "to": kek_id}, SystemClock()))
            rewrapped = [key["id"] for key in answer["rewrapped"]]
            key_import.prefer(layout, name, kek_id)
        else:
            note(_next_steps(layout, name, kek_id))
        done.append({"class": name, "kek": kek_id, "rewrapped": rewrapped})
    titles = {"class": "CLASS", "kek": "KEY-ENCRYPTION KEY", "rewrapped": "DATA KEYS"}
    rows = [row | {"rewrapped": len(row["rewrapped"])} for row in done]
    print_data(done, output, lambda: columns(rows, titles), list)


async def _once_told(target: Target, body: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Re-wrap as soon as every member has told that it holds the new key."""
    give_up_s = clock.monotonic_s() + CLI_KEYS_TOLD_S
    while True:
        try:
            return await asyncio.to_thread(_rewrap, target, body)
        except Conflict:
            if clock.monotonic_s() > give_up_s:
                raise
        await clock.sleep(PROBE_PAUSE_S)


def _rewrap(target: Target, body: Mapping[str, Any]) -> dict[str, Any]:
    """By the first server that answers; with `to`, every other one is told to keep to that key as well."""
    with ApiClient(target) as client:
        answer = client.post(_REWRAP, body, repeatable=True)
    for url in target.urls if "to" in body else ():
        try:
            with ApiClient(Target([url], target.key)) as client:
                answer["notes"] += client.post(_REWRAP, body, repeatable=True)["notes"]
        except MeshlogError as error:
            note(f"{url} still wraps new data keys with another key; repeat this once it answers: {error.message}")
    for text in sorted(set(answer["notes"])):
        note(text)
    return answer


def _next_steps(layout: Layout, key_class: str, kek_id: str) -> str:
    path = layout.key_file(key_class)
    return (
        f"{kek_id} of class '{key_class}' is in {path} now, and wraps nothing yet. Next:\n"
        f"  1. on every host: meshlog keys import {path.name} --class {key_class} --config <zone>/api.toml"
        f"{' --config <zone>/projector.toml' if key_class == 'config' else ''}\n"
        f"     (with a copy of {path}; then remove the copy)\n"
        f"  2. anywhere: meshlog keys rewrap --class {key_class} --to {kek_id}"
    )


def _rewrapped(answer: Mapping[str, Any]) -> str:
    lines = [f"{key['id']}: wrapped by {key['kek']}" for key in answer["rewrapped"]]
    return "\n".join([*lines, f"{len(answer['left'])} were so already"])


def _tables(document: Mapping[str, Any]) -> str:
    parts: Sequence[tuple[str, Mapping[str, str]]] = (
        ("data_keys", _DATA_KEYS),
        ("key_encryption_keys", _KEKS),
        ("providers", _PROVIDERS),
    )
    tables = [columns(document[name], titles) for name, titles in parts]
    to_do = [f"to do: {text}" for text in document["to_do"]] or ["nothing to do"]
    return "\n\n".join([*tables, "\n".join(to_do)])
