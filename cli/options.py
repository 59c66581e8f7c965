"""Options that many commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from cli.layout import Layout, default_data_dir
from cli.moments import Moment, parse_moment
from cli.output import note
from identity.node_id import parse_node_id
from mesh.errors import BadRequest, SettingsError
from runtime.clock import SystemClock, SystemEntropy
from runtime.key_sources import KeySources, parse_source

Function = TypeVar("Function", bound=Callable[..., Any])

ACCOUNT_DIGITS = 12
ARCHIVE_URLS = "file:///DIR or s3://BUCKET/PREFIX?endpoint=URL&region=NAME; keys come from the environment."


def data_dir_option(function: Function) -> Callable[..., Any]:
    """`--data-dir`, given to the command as `layout`."""

    @click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="MESHLOG_DATA_DIR",
        help="The cluster's directory.  [env: MESHLOG_DATA_DIR; default: $XDG_STATE_HOME/meshlog]",
    )
    @wraps(function)
    def command(*args: Any, data_dir: Path | None, **kwargs: Any) -> Any:
        # Absolute, and not through symlinks: it ends up in command lines that are compared as text.
        root = Path(os.path.abspath(data_dir or default_data_dir()))
        return function(*args, layout=Layout(root), **kwargs)

    return command


def split_mesh(text: str) -> tuple[str, dict[str, str]]:
    """A mesh as people name it, `shop` or `shop@<owner>`: its name, and {"account": owner} where one is named."""
    name, at, owner = text.partition("@")
    if at and not (len(owner) == ACCOUNT_DIGITS and owner.isascii() and owner.isdigit()):
        raise SettingsError(f"'{text}': what follows the @ is the mesh owner's account, twelve digits")
    return name, {"account": owner} if at else {}


def checked_node(node: str, said: str) -> str:
    """A virtual node or gateway as it was named; SettingsError, naming what said it, if it is none."""
    try:
        parse_node_id(node, "0" * ACCOUNT_DIGITS)
    except BadRequest as error:
        raise SettingsError(f"{said}: {error.message}") from error
    return node


def read_moment(text: str) -> Moment:
    """A moment as the user wrote it, told back in UTC on stderr where it is a time; SettingsError if it is none."""
    moment = parse_moment(text, SystemClock().now_us())
    if moment.echo:
        note(moment.echo)
    return moment


def check_stretch(since: Moment | None, until: Moment | None) -> None:
    """SettingsError for a stretch of history that ends before it begins: it is empty, and hardly meant."""
    if since is None or until is None:
        return
    if since.time_us is not None and until.time_us is not None:
        ends_early = until.time_us < since.time_us
    elif since.time_us is None and until.time_us is None:
        ends_early = until.position < since.position
    else:
        return  # only the log knows
    if ends_early:
        raise SettingsError(f"--until {until.text} is before --since {since.text}: exchange the two")


def key_provider_option(function: Function) -> Function:
    """`--key-provider`, given to the command as `keks`: sources by class."""
    return click.option(
        "--key-provider",
        "keks",
        multiple=True,
        metavar="CLASS=SOURCE",
        callback=lambda _context, _option, texts: _read_sources(texts),
        help="Where the key-encryption keys of a class (config, secrets) are: aws-kms:…, vault:…, command:…, a path.  "
        "[default: key files]",
    )(function)


def _read_sources(texts: Iterable[str]) -> dict[str, KeySources]:
    from eventlog.keys.sources import open_source  # noqa: PLC0415
    from eventlog.records import KeyClass  # noqa: PLC0415

    found: dict[str, KeySources] = {}
    for text in texts:
        name, _, source = text.partition("=")
        if name not in (KeyClass.CONFIG, KeyClass.SECRETS) or name in found:
            raise SettingsError(
                f"--key-provider '{text[:80]}' is not CLASS=SOURCE, class being config or secrets, each once"
            )
        found[name] = (parse_source(source, Path.cwd()),)
        open_source(found[name][0], KeyClass(name), SystemEntropy())  # says what is wrong with it
    return found


def https_options(function: Function) -> Function:
    """`--https` and `--https-name`, given to the command as `https` and `https_names`."""
    for option in (
        click.option(
            "--https-name",
            "https_names",
            multiple=True,
            metavar="NAME",
            help="A further DNS name or address that callers of the API use, such as a load balancer's.",
        ),
        click.option("--https", is_flag=True, help="The API speaks HTTPS, by certificates of a new root of its own."),
    ):
        function = option(function)
    return function


def endpoint_options(function: Function) -> Function:
    """`--endpoint`, for a cluster that is not on this machine."""
    return click.option(
        "--endpoint",
        metavar="URL",
        envvar="MESHLOG_ENDPOINT",
        help="An API server elsewhere, with the AWS_* key.  [env: MESHLOG_ENDPOINT]",
    )(function)


def read_text(file: str) -> str:
    """What is in a file that was named on the command line, or on stdin ('-'); SettingsError if it cannot be read."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file}: {reason}") from error
