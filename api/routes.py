"""What a route is, and how a request finds its own. Types only: `api.appmesh` and `api.admin` make the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.authorization import Targets
from api.calls import Handler
from identity.caller import Caller
from identity.sigv4 import SignedRequest


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `path` is its template. `action` is its name in IAM; `services` are what a caller may sign for.

    `read` turns an authenticated request and its path members into the handler's input, or raises BadRequest; `targets`
    is what this input touches, all of which is authorised before `handle` runs.
    """

    method: str
    path: str
    action: str
    services: Sequence[str]
    read: Callable[[SignedRequest, Mapping[str, str]], dict[str, Any]]
    targets: Callable[[Caller, Mapping[str, Any]], Targets]
    handle: Handler


class Found(NamedTuple):
    """A route, and the members that the path gave."""

    route: Route
    path_members: Mapping[str, str]


class Router(NamedTuple):
    """Routes, and how to find a request's own: by method and raw path, and by its form where that says it (STS)."""

    routes: Sequence[Route]
    find: Callable[[SignedRequest], Found | None]
