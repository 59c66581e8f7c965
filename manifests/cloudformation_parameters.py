"""Files of template parameters, as the aws CLI and CodePipeline take them. Pure: text in, values by name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests.cloudformation_intrinsics import CannotResolveError, text
from manifests.text import UnreadableError, documents
from mesh.errors import BadRequest


def read_parameters(content: str, file: str) -> dict[str, str]:
    """`[{ParameterKey, ParameterValue}, …]`, `["Name=Value", …]`, `{"Parameters": {…}}` or `{Name: Value, …}`.

    A list as a value is joined with commas, as the parameter takes it. BadRequest names the file and what is wrong.
    """
    try:
        (document,) = documents(content, file)
    except UnreadableError as error:
        raise BadRequest(f"{error.source}: {error}") from error
    except ValueError:
        raise BadRequest(f"{file}: must have one document of parameters") from None
    try:
        return dict(_pair(each) for each in _pairs(document.value))
    except CannotResolveError as error:
        raise BadRequest(f"{file}: {error}") from error


def _pairs(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        inner = value.get("Parameters", value)
        return list(inner.items()) if isinstance(inner, Mapping) else [inner]
    return value if isinstance(value, list) else [value]


def _pair(each: Any) -> tuple[str, str]:
    if isinstance(each, tuple):
        name, value = each
    elif isinstance(each, Mapping) and isinstance(each.get("ParameterKey"), str):
        name, value = each["ParameterKey"], each.get("ParameterValue")
    elif isinstance(each, str) and "=" in each:
        name, _, value = each.partition("=")
    else:
        raise CannotResolveError(
            'is no file of parameters: write [{"ParameterKey": …, "ParameterValue": …}], or names and values'
        )
    if isinstance(value, list):
        return name, ",".join(text(item, name) for item in value)
    return name, text(value, name)
