"""Manifests on the command line: the options that name files and what they leave open, and the files read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from mesh.errors import SettingsError
from runtime.limits import MANIFEST_FILE_MAX_BYTES

if TYPE_CHECKING:
    from manifests.formats import File

_ENDINGS = frozenset({".json", ".yaml", ".yml", ".template"})
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Given:
    """What a user said of manifests: where they are, and what they leave open."""

    files: tuple[str, ...]
    recursive: bool
    mesh: str | None
    gateway: str | None
    namespace: str
    parameters: dict[str, str]
    imports: dict[str, str]
    stack: str | None


def manifest_options(
    function: Callable[..., Any] | None = None,
    *,
    required: bool = True,
    mesh_help: str = "The mesh of documents that name none; NAME@ACCOUNT for another account's.",
) -> Callable[..., Any]:
    """The options of every command that takes manifests, given to it as `given`."""

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--filename", "-f", "files", multiple=True, required=required, metavar="FILE|DIR|-", help=_FILES)
        @click.option("--recursive", "-R", is_flag=True, help="Read the directories inside a directory too.")
        @click.option("--mesh", "-m", help=mesh_help)
        @click.option("--gateway", help="The virtual gateway of gateway routes whose own is in no file.")
        @click.option("--namespace", "-n", default="default", help="The namespace of Kubernetes objects without one.")
        @click.option("--parameter", metavar="NAME=VALUE", multiple=True, help="A parameter of a template.")
        @click.option(
            "--parameter-file",
            "parameter_files",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            multiple=True,
            help="Parameters as the aws CLI takes them; --parameter comes first.  Can be repeated.",
        )
        @click.option(
            "--import-value", metavar="NAME=VALUE", multiple=True, help="What Fn::ImportValue gives for NAME."
        )
        @click.option("--stack-name", metavar="NAME", help="A template's AWS::StackName.  [default: the file's name]")
        @wraps(inner)
        def command(*args: Any, **kwargs: Any) -> Any:
            taken = {name: kwargs.pop(name) for name in ("files", "recursive", "mesh", "gateway", "namespace")}
            parameters = _parameters(kwargs.pop("parameter_files")) | pairs("--parameter", kwargs.pop("parameter"))
            imports = pairs("--import-value", kwargs.pop("import_value"))
            stack = kwargs.pop("stack_name")
            return inner(*args, given=Given(**taken, parameters=parameters, imports=imports, stack=stack), **kwargs)

        return command

    return decorate if function is None else decorate(function)


_FILES = "App Mesh JSON, Kubernetes YAML or CloudFormation: a file, a directory or - for stdin.  Can be repeated."


def _parameters(paths: Iterable[Path]) -> dict[str, str]:
    from manifests.cloudformation_parameters import read_parameters  # noqa: PLC0415 - not for `--help`

    found: dict[str, str] = {}
    for path in paths:
        found |= read_parameters(_read(path), str(path))
    return found


def read_files(given: Given) -> list[File]:
    """The files in the order given, those of a directory by name; SettingsError if one cannot be read."""
    from manifests.formats import File  # noqa: PLC0415  (YAML and all that reads it: not for `meshlog diff A B`)

    found = []
    for name in given.files:
        if name == STDIN:
            found.append(File("stdin", _text(sys.stdin.buffer.read(MANIFEST_FILE_MAX_BYTES + 1), "stdin")))
            continue
        path = Path(name)
        if not path.exists():
            raise SettingsError(f"{name}: there is no such file or directory")
        paths = _inside(path, recursive=given.recursive) if path.is_dir() else [path]
        if not paths:
            raise SettingsError(
                f"{name}: has no {', '.join(sorted(_ENDINGS))} file in it"
                + ("" if given.recursive else "; -R looks into the directories inside it")
            )
        found += [File(str(each), _read(each)) for each in paths]
    return found


def _inside(directory: Path, *, recursive: bool) -> list[Path]:
    every: Iterable[Path] = directory.rglob("*") if recursive else directory.iterdir()
    return sorted(path for path in every if path.suffix.lower() in _ENDINGS and path.is_file())


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return _text(file.read(MANIFEST_FILE_MAX_BYTES + 1), str(path))


def _text(data: bytes, name: str) -> str:
    if len(data) > MANIFEST_FILE_MAX_BYTES:
        raise SettingsError(f"{name}: is over {MANIFEST_FILE_MAX_BYTES // 2**20} MiB, which no manifest is")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: is not UTF-8 text") from None


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE texts of an option as a mapping; SettingsError if one is something else."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError(f"{option} '{text[:80]}' is not NAME=VALUE")
        found[name] = value
    return found
