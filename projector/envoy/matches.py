"""What a route matches: from the `match` of a (gateway) route to a plan, and the order in which routes are tried.

A match that cannot be compiled whole is held back: with a part of its conditions left out, the route would take
requests that are not its own. Envoy refuses a whole route configuration for one bad regex or header, so each is looked
at here.
"""

from __future__ import annotations

import string

from mesh.regexes import fault
from mesh.state import Resource
from projector.envoy.defaults import PRIORITY
from projector.envoy.plans import HeaderPlan, MatchPlan, QueryPlan, RangePlan, TextPlan
from projector.envoy.specs import header_safe
from projector.envoy.view import Spec, View

Order = tuple[int, int, int, int, str]

AUTHORITY, METHOD, SCHEME = ":authority", ":method", ":scheme"
_TEXT_KINDS = ("exact", "prefix", "suffix", "regex")
_ANY_PORT = "(:[0-9]+)?"


def http_match(view: View, resource: Resource, match: Spec) -> MatchPlan | None:
    """The match of an httpRoute or http2Route; None (with an alarm) where it cannot be all of it."""
    path = match.get("path") or {}
    exact, regex, prefix = path.get("exact"), path.get("regex"), match.get("prefix")
    if exact is None and regex is None and prefix is None:
        prefix = "/"
    if not all(header_safe(text) for text in (exact, regex, prefix) if text is not None) or fault(regex or ""):
        view.alarm(resource, "match", "has no usable prefix or path, so the route is held back")
        return None
    headers = [HeaderPlan(METHOD, TextPlan("exact", match["method"]))] if match.get("method") else []
    if match.get("scheme"):
        headers.append(HeaderPlan(SCHEME, TextPlan("exact", match["scheme"])))
    headers += _hostname(match)
    headers += _headers(match.get("headers"))
    queries = tuple(
        QueryPlan(each["name"], (each.get("match") or {}).get("exact")) for each in match.get("queryParameters") or ()
    )
    plan = MatchPlan(prefix, exact, regex, tuple(headers), queries)
    return _whole(view, resource, plan)


def grpc_match(view: View, resource: Resource, match: Spec) -> MatchPlan | None:
    """The match of a grpcRoute: a method is a path, `/<service>/<method>`, and metadata are headers."""
    service, method = match.get("serviceName"), match.get("methodName")
    headers = (*_hostname(match), *_headers(match.get("metadata")))
    if service is not None and method is not None:
        plan = MatchPlan(path=f"/{service}/{method}", headers=headers, grpc=True)
    else:
        plan = MatchPlan(prefix="/" if service is None else f"/{service}/", headers=headers, grpc=True)
    return _whole(view, resource, plan)


def match_order(resource: Resource, match: MatchPlan) -> Order:
    """Priority, then the longest path; exact before regex before prefix, more conditions first; by text in the end."""
    text = match.path or match.regex or match.prefix or ""
    kind = 0 if match.path is not None else 1 if match.regex is not None else 2
    conditions = len(match.headers) + len(match.queries) + match.grpc
    priority = resource.spec.get("priority", PRIORITY)
    return (priority, -len(text), kind, -conditions, f"{text}\0{resource.key.name}")


def _hostname(match: Spec) -> list[HeaderPlan]:
    # Host names have no case, and a client on a port of its own says which.
    hostname = match.get("hostname") or {}
    if "exact" in hostname:
        return [HeaderPlan(AUTHORITY, TextPlan("regex", f"(?i){_literal(hostname['exact'])}{_ANY_PORT}"))]
    if "suffix" in hostname:
        suffix = hostname["suffix"].removeprefix("*")
        return [HeaderPlan(AUTHORITY, TextPlan("regex", f"(?i).*{_literal(suffix)}{_ANY_PORT}"))]
    return []


def _literal(text: str) -> str:
    """`text` for RE2, which takes a backslash before ASCII's punctuation alone."""
    return "".join(f"\\{each}" if each in string.punctuation and each not in "-_" else each for each in text)


def _headers(headers: tuple[Spec, ...] | None) -> tuple[HeaderPlan, ...]:
    return tuple(
        HeaderPlan(each["name"], _condition(each.get("match") or {}), bool(each.get("invert")))
        for each in headers or ()
    )


def _condition(match: Spec) -> TextPlan | RangePlan | None:
    if "range" in match:
        return RangePlan(match["range"]["start"], match["range"]["end"])
    return next((TextPlan(kind, match[kind]) for kind in _TEXT_KINDS if kind in match), None)


def _whole(view: View, resource: Resource, plan: MatchPlan) -> MatchPlan | None:
    for header in plan.headers:
        text = header.match.text if isinstance(header.match, TextPlan) else "-"
        bad_regex = isinstance(header.match, TextPlan) and header.match.kind == "regex" and fault(text)
        if not header_safe(header.name) or not header_safe(text) or bad_regex:
            view.alarm(resource, f"match: header {header.name}", "cannot be matched, so the route is held back")
            return None
    for query in plan.queries:
        if not header_safe(query.name):
            view.alarm(resource, "match.queryParameters", "cannot be matched, so the route is held back")
            return None
    return plan
