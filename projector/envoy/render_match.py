"""A match plan to Envoy's RouteMatch message."""

from __future__ import annotations

from projector.envoy import names
from projector.envoy.plans import HeaderPlan, MatchPlan, QueryPlan, RangePlan, TextPlan
from projector.envoy.protos import envoy_type, matcher, route


def match_message(plan: MatchPlan) -> route.RouteMatch:
    headers = [header_message(header) for header in plan.headers]
    if plan.virtual_service is not None:
        headers.append(
            header_message(HeaderPlan(names.VIRTUAL_SERVICE_HEADER, TextPlan("exact", plan.virtual_service)))
        )
    message = route.RouteMatch(
        headers=headers,
        query_parameters=[_query(query) for query in plan.queries],
        grpc=route.RouteMatchGrpcRouteMatchOptions() if plan.grpc else None,
    )
    if plan.path is not None:
        message.path = plan.path
    elif plan.regex is not None:
        message.safe_regex = matcher.RegexMatcher(regex=plan.regex)
    else:
        message.prefix = plan.prefix or "/"
    return message


def header_message(plan: HeaderPlan) -> route.HeaderMatcher:
    message = route.HeaderMatcher(name=plan.name, invert_match=plan.invert)
    if isinstance(plan.match, RangePlan):
        message.range_match = envoy_type.Int64Range(start=plan.match.start, end=plan.match.end)
    elif plan.match is None:
        message.present_match = True
    else:
        message.string_match = _text(plan.match)
    return message


def _query(plan: QueryPlan) -> route.QueryParameterMatcher:
    if plan.exact is None:
        return route.QueryParameterMatcher(name=plan.name, present_match=True)
    return route.QueryParameterMatcher(name=plan.name, string_match=_text(TextPlan("exact", plan.exact)))


def _text(plan: TextPlan) -> matcher.StringMatcher:
    if plan.kind == "regex":
        return matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=plan.text))
    if plan.kind == "prefix":
        return matcher.StringMatcher(prefix=plan.text)
    if plan.kind == "suffix":
        return matcher.StringMatcher(suffix=plan.text)
    return matcher.StringMatcher(exact=plan.text)
