"""The OpenAPI 3.1 document of `/meshlog/v1/`, made from the table of routes that the server answers by.

GET  openapi.json                   the document itself, for whoever has a key

Routes → paths, their readers → parameters and bodies, `api.openapi_told` → words and answers. A route cannot be left
out, and a query member or body field cannot differ from what is read. `docs/openapi.json` is this document as built.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from api.calls import Answer, Call
from api.openapi_schemas import COMPONENTS, MEMBERS, TEXT, Schema
from api.openapi_told import TOLD, Told
from api.ports import ApiPorts
from api.requests import PREFIX, BodyReader, Fields, QueryReader, nothing, read_query, route, router_of
from api.routes import Route, Router

VERSION = "3.1.1"
_WORDS = re.compile(r"[A-Z][a-z]*")
_TYPES: Mapping[Any, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", type(None): "null",
}  # fmt: skip
_ERRORS = {
    "400": ("BadRequest", "The call is wrong; the message names the member, its value and the rule."),
    "403": ("Forbidden", "No, wrong or expired credentials, or credentials that may not do this."),
    "404": ("NotFound", "What is named does not exist."),
    "409": ("Conflict", "What is named does not allow it as it is, or a token was used with another body."),
    "429": ("TooManyRequests", "Too many calls; `Retry-After` says when to try again."),
    "503": ("Unavailable", "Nothing is wrong with the call: it cannot be answered for certain now. Try again."),
    "default": ("Fault", "A fault of the server's; the request id finds it in the server's log."),
}
_HEADERS = {
    "x-meshlog-position": {
        "description": "The position of the log that the answer holds at; of a write, that of its event.",
        "schema": TEXT,
    },
    "x-amzn-requestid": {"description": "Finds the call in logs and in the audit.", "schema": TEXT},
}


class OpenApi:
    """The route of the document. `routes` is everything that the server answers, this one aside."""

    def __init__(self, ports: ApiPorts, routes: Iterable[Route]) -> None:
        self._ports = ports
        own = route("GET openapi.json", "GetOpenApi", read_query(), nothing, self._answer)
        self._router = router_of([own])
        self._document = openapi_document([*routes, own])

    def router(self) -> Router:
        """Its route."""
        return self._router

    async def _answer(self, call: Call) -> Answer:  # noqa: ARG002 - one shape for all handlers
        return Answer(self._document, self._ports.replica.state.position)


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document of those of `routes` that are Meshlog's own."""
    own = sorted((each for each in routes if each.path.startswith(PREFIX)), key=lambda each: (each.path, each.method))
    actions = Counter(each.action for each in own)
    paths: dict[str, dict[str, Any]] = {}
    for each in own:
        # Two routes may be one action to policies: enabling a key, and disabling it.
        which = each.path.rpartition("/")[2].title() if actions[each.action] > 1 else ""
        operation = {"operationId": each.action.partition(":")[2] + which, **_operation(each)}
        paths.setdefault(each.path, {})[each.method.lower()] = operation
    return {
        "openapi": VERSION,
        "info": {
            "title": "Meshlog",
            "version": "1",
            "description": "History, access and operation of a Meshlog cluster, beside the App Mesh API, which is "
            "served at the same address and described by AWS's own model (appmesh, 2019-01-25). Calls are signed with "
            "SigV4 for the service `meshlog` or `appmesh`; errors have AWS's shape and the same codes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7411", "description": "An API server; `meshlog env` tells its address."}],
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "schemas": dict(COMPONENTS),
            "headers": _HEADERS,
            "responses": {name: _error(words) for name, words in _ERRORS.values()},
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, in this header or in the query of a presigned URL.",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
        },
    }


def _operation(each: Route) -> dict[str, Any]:
    told = TOLD.get(f"{each.method} {each.path.removeprefix(PREFIX)}") or Told(
        _in_words(each.action), {"type": "object"}
    )
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    operation: dict[str, Any] = {
        "summary": told.summary,
        **({"description": told.more} if told.more else {}),
        "x-meshlog-action": each.action,
        "responses": {
            "200": {
                "description": "Done." if each.method == "POST" else "What was asked for.",
                "headers": headers,
                "content": {"application/json": {"schema": told.answer}},
            },
            **{status: {"$ref": f"#/components/responses/{name}"} for status, (name, _) in _ERRORS.items()},
        },
    }
    parameters = [_in_path(name) for name in re.findall(r"\{(\w+)\}", each.path)]
    if isinstance(each.read, QueryReader):
        parameters += [_in_query(name, name in each.read.required) for name in each.read.known]
    if isinstance(each.read, BodyReader):
        operation["requestBody"] = _body(each.read.fields)
    return {**operation, "parameters": parameters} if parameters else operation


def _in_words(action: str) -> str:
    return " ".join(_WORDS.findall(action.partition(":")[2])).capitalize()


def _error(words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _in_query(name: str, required: bool) -> dict[str, Any]:
    schema = dict(MEMBERS.get(name, TEXT))
    words = schema.pop("description", None)
    described = {} if words is None else {"description": words}
    return {"name": name, "in": "query", "required": required, **described, "schema": schema}


def _body(fields: Fields) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {name: _field(name, kind) for name, (kind, _) in fields.items()},
        "required": [name for name, (_, required) in fields.items() if required],
        "additionalProperties": False,
    }
    return {"required": bool(schema["required"]), "content": {"application/json": {"schema": schema}}}


def _field(name: str, kind: type | tuple[type, ...]) -> Schema:
    """The field's own type, with the words (and the bounds, where they are of that type) that its name has."""
    if isinstance(kind, tuple):
        schema: dict[str, Any] = {"anyOf": [{"type": _TYPES[each]} for each in kind]}
    elif kind is list:
        schema = {"type": "array", "items": TEXT}
    else:
        schema = {"type": _TYPES[kind]} if kind in _TYPES else {}
    known = MEMBERS.get(name, {})
    if known.get("type") == schema.get("type"):
        return {**known, **schema}
    return {**schema, **({"description": known["description"]} if "description" in known else {})}
