"""Settings as text: a TOML file, MESHLOG_* variables and flags become a settings class, and a class becomes TOML.

Flag > MESHLOG_* > file > default. One file describes one process (`meshlog serve ROLE --config FILE`). Relative paths
in it are relative to the file's own directory, so that a zone's directory can be copied to its host as it is. A
variable is named after its field: `listen` is MESHLOG_LISTEN, `etcd_tls.key` is MESHLOG_ETCD_TLS_KEY, and a list of
endpoints is written `zone=host:port,zone=host:port`. `data_dir` has no variable: MESHLOG_DATA_DIR names a cluster's
directory to the CLI, and must not move the files of a process that is started from inside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from mesh.errors import SettingsError
from runtime.files import PUBLIC, write_atomic
from runtime.key_sources import KeySource, KeySources, parse_source, shorten_sources
from runtime.settings import Endpoint, Endpoints, EtcdPeer, EtcdPeers, ProcessSettings, split_address

S = TypeVar("S", bound=ProcessSettings)
_NO_VARIABLE = frozenset({"data_dir"})


def load(
    kind: type[S], path: Path, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> S:
    """Read `kind` from the TOML file at `path`, MESHLOG_* and flags (None values are flags not given).

    Raises SettingsError naming the field, the file and what to write.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; give the file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    if (stated := document.pop("role", kind.role)) != kind.role:
        raise SettingsError(f"{path} is for role '{stated}', not '{kind.role}': run meshlog serve {stated}")
    reader = _Reader(path, os.environ if environ is None else environ)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    settings: S = reader.structure(kind, document, (), given)
    return settings


def dump(settings: ProcessSettings) -> str:
    """The TOML text that `load` reads back."""
    values = _plain(settings)
    lines = [f"role = {json.dumps(settings.role)}"]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def fill_in(path: Path, settings: ProcessSettings, names: Sequence[str]) -> None:
    """Add these of the settings to the file, if it has none of them; nothing else in it is touched."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in dump(settings).splitlines(keepends=True) if line.partition(" = ")[0] in names]
    if lines and not set(names) & tomllib.loads(text).keys():
        write_atomic(path, ("".join(lines) + text).encode(), PUBLIC)  # before any table


def relative_to(settings: S, directory: Path) -> S:
    """The same settings with every path under `directory` written relative to it (so that it can be copied whole)."""

    def shorten(value: Any) -> Any:
        if isinstance(value, Path) and value.is_relative_to(directory):
            return value.relative_to(directory)
        if _are_sources(value):
            return shorten_sources(value, directory)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(value, **{f.name: shorten(getattr(value, f.name)) for f in _fields(type(value))})
        return value

    shortened: S = shorten(settings)
    return shortened


def _are_sources(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], KeySource)


def _fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in _fields(type(value)))
        return {name: _plain(part) for name, part in pairs if part is not None}
    if isinstance(value, Path):
        return str(value)
    if _are_sources(value):
        return str(value[0]) if len(value) == 1 else [str(source) for source in value]
    if isinstance(value, tuple):
        return [endpoint._asdict() for endpoint in value]
    return value


def _toml(value: object) -> str:
    if isinstance(value, list) and any(isinstance(row, dict) for row in value):
        rows = ("{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in row.items()) + " }" for row in value)
        return "[" + ", ".join(rows) + "]"
    # A JSON string, number, boolean or array of strings is the same in TOML.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class _Reader:
    """Walks a settings class, taking each field from flags, variables, the file or its default, in that order."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._base = path.resolve().parent
        self._environ = environ

    def structure(
        self, kind: type[Any], table: Mapping[str, object], where: tuple[str, ...], flags: Mapping[str, object]
    ) -> Any:
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in _fields(kind)}
        unknown = sorted((set(table) | set(flags)) - set(fields))
        if unknown:
            dotted = ".".join((*where, unknown[0]))
            raise SettingsError(f"{self._path}: unknown setting '{dotted}'; known here are {', '.join(sorted(fields))}")
        values: dict[str, object] = {}
        for name, field in fields.items():
            found = self._value(hints[name], (*where, name), table.get(name), flags.get(name))
            if found is not None:
                values[name] = found
            elif field.default is dataclasses.MISSING:
                dotted = ".".join((*where, name))
                raise SettingsError(
                    f"{self._path}: '{dotted}' is missing; write it there or set {_variable(where, name)}"
                )
        return kind(**values)

    def _value(self, hint: Any, where: tuple[str, ...], in_file: object, flag: object) -> object:
        kind, optional = _without_none(hint)
        if dataclasses.is_dataclass(kind):
            present = in_file is not None or any(n.startswith(_variable(where, "")) for n in self._environ)
            if optional and not present:
                return None
            if in_file is not None and not isinstance(in_file, dict):
                raise self._wrong(where, "a table")
            return self.structure(typing.cast("type[Any]", kind), in_file or {}, where, {})
        if flag is not None:
            return self._read(kind, where, flag)
        text = None if where[-1] in _NO_VARIABLE else self._environ.get(_variable(where[:-1], where[-1]))
        if text is not None:
            return self._read(kind, where, _from_text(kind, text))
        return None if in_file is None else self._read(kind, where, in_file)

    def _read(self, kind: Any, where: tuple[str, ...], value: object) -> object:
        if kind is Path and isinstance(value, str | Path) and str(value):
            return self._base / value
        if kind == KeySources:
            return self._sources(where, value)
        if kind in _ROWS and isinstance(value, list | tuple):
            return tuple(self._row(where, _ROWS[kind], row) for row in value)
        if kind in (str, int, bool) and type(value) is kind:
            return value
        raise self._wrong(where, _DESCRIBED[kind])

    def _sources(self, where: tuple[str, ...], value: object) -> KeySources:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise self._wrong(where, _DESCRIBED[KeySources])
        try:
            return tuple(parse_source(text, self._base) for text in texts)
        except SettingsError as error:
            raise SettingsError(f"{self._path}: '{'.'.join(where)}': {error.message}") from error

    def _row(self, where: tuple[str, ...], kind: type[Endpoint | EtcdPeer], row: object) -> Endpoint | EtcdPeer:
        if isinstance(row, kind):
            return row
        if (
            not isinstance(row, dict)
            or set(row) != set(kind._fields)
            or not all(isinstance(v, str) for v in row.values())
        ):
            raise self._wrong(where, f"a list of {{{', '.join(kind._fields)}}}")
        split_address(row["address"], ".".join(where))
        return kind(**row)

    def _wrong(self, where: tuple[str, ...], wanted: str) -> SettingsError:
        variable = _variable(where[:-1], where[-1])
        return SettingsError(f"{self._path}: '{'.'.join(where)}' (or {variable}) must be {wanted}")


_ROWS: Mapping[object, type[Endpoint | EtcdPeer]] = {Endpoints: Endpoint, EtcdPeers: EtcdPeer}
_DESCRIBED: Mapping[object, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    Path: "a path",
    Endpoints: "a list of {zone, address}",
    EtcdPeers: "a list of {name, address}",
    KeySources: "a key file's path, another source of keys, or a list of them",
}


def _without_none(hint: Any) -> tuple[Any, bool]:
    parts = [part for part in typing.get_args(hint) if part is not NoneType]
    if NoneType in typing.get_args(hint):
        return parts[0], True
    return hint, False


def _variable(where: tuple[str, ...], name: str) -> str:
    return "_".join(("MESHLOG", *where, name)).upper()


def _from_text(kind: Any, text: str) -> object:
    """A variable's text as the file would have it; left as text where it does not fit, for `_read` to refuse."""
    if kind is int and text.strip().isdigit():
        return int(text)
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if kind == KeySources:
        return [part.strip() for part in text.split(",")]
    if kind in _ROWS:
        pairs = (part.strip().partition("=") for part in text.split(",") if part.strip())
        return [{_ROWS[kind]._fields[0]: label, "address": address} for label, _, address in pairs]
    return text
