"""A virtual host plan to Envoy's VirtualHost message."""

from __future__ import annotations

from projector.envoy import names
from projector.envoy.defaults import HOST_SELECTION_ATTEMPTS
from projector.envoy.messages import duration, packed, stats_metadata
from projector.envoy.plans import RetryPlan, RoutePlan, VhostPlan
from projector.envoy.protos import core, matcher, previous_hosts, route
from projector.envoy.render_match import match_message

_NO_TARGET = 503


def vhost_message(plan: VhostPlan) -> route.VirtualHost:
    routes = [_route(entry) for entry in plan.routes]
    return route.VirtualHost(name=plan.name, domains=list(plan.domains), routes=routes)


def _route(plan: RoutePlan) -> route.Route:
    message = route.Route(
        match=match_message(plan.match),
        metadata=None if plan.tags is None else stats_metadata(plan.tags),
        response_headers_to_remove=[names.VIRTUAL_SERVICE_HEADER] if plan.strip_virtual_service else [],
    )
    if plan.targets:
        message.route = _action(plan)
    else:
        message.direct_response = route.DirectResponseAction(status=_NO_TARGET)
    if plan.add_virtual_service is not None:
        # A header to add is a format to Envoy, in which `%` begins a command.
        called = plan.add_virtual_service.replace("%", "%%")
        header = core.HeaderValue(key=names.VIRTUAL_SERVICE_HEADER, value=called)
        # Overwrite: behind another gateway, or from a client, the header may be there already.
        overwrite = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
        message.request_headers_to_add.append(core.HeaderValueOption(header=header, append_action=overwrite))
    return message


def _action(plan: RoutePlan) -> route.RouteAction:
    action = route.RouteAction(
        timeout=None if plan.timeout_ms is None else duration(plan.timeout_ms),
        idle_timeout=None if plan.idle_timeout_ms is None else duration(plan.idle_timeout_ms),
        prefix_rewrite=plan.prefix_rewrite or "",
        retry_policy=None if plan.retry is None else _retry(plan.retry),
    )
    if plan.path_rewrite is not None:
        whole = matcher.RegexMatcher(regex="^.+$")
        substitution = plan.path_rewrite.replace("\\", "\\\\")
        action.regex_rewrite = matcher.RegexMatchAndSubstitute(pattern=whole, substitution=substitution)
    if plan.host_rewrite is not None:
        action.host_rewrite_literal = plan.host_rewrite
    if plan.weighted:
        weights = [route.WeightedClusterClusterWeight(name=name, weight=weight) for name, weight in plan.targets]
        action.weighted_clusters = route.WeightedCluster(clusters=weights)
    else:
        action.cluster = plan.targets[0][0]
    return action


def _retry(plan: RetryPlan) -> route.RetryPolicy:
    predicate = route.RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=packed(previous_hosts.PreviousHostsPredicate()),
    )
    return route.RetryPolicy(
        retry_on=",".join(plan.retry_on),
        num_retries=plan.max_retries,
        per_try_timeout=None if plan.per_try_timeout_ms is None else duration(plan.per_try_timeout_ms),
        retry_host_predicate=[predicate],
        host_selection_retry_max_attempts=HOST_SELECTION_ATTEMPTS,
        retriable_status_codes=list(plan.status_codes),
    )
