"""What App Mesh demands beyond its model, of one resource alone: names, tags and specs. Pure.

Sources: the service model's own documentation and the App Mesh user guide. What depends on other resources stands in
mesh/decide.py. Where AWS is silent and Envoy would refuse the outcome (one port twice, a control character), we refuse
first: a bad spec must fail its caller, not every proxy of the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mesh import log_formats
from mesh.errors import TooManyTags
from mesh.fingerprint import canonical_json
from mesh.kinds import (
    GATEWAY_ROUTE,
    KINDS,
    MESH,
    ROUTE,
    VIRTUAL_GATEWAY,
    VIRTUAL_NODE,
    VIRTUAL_ROUTER,
    ResourceKey,
)
from mesh.limits import (
    CLIENT_TOKEN_MAX_CHARS,
    NAME_MAX_CHARS,
    PROBLEMS_COUNTED,
    SPEC_MAX_BYTES,
    TAGS_PER_RESOURCE,
)
from mesh.model.validator import problems, refuse, shown
from mesh.references import ROUTE_TYPES
from mesh.regexes import fault

Spec = Mapping[str, Any]
Problems = Iterator[str]

ACCOUNT_DIGITS = 12
_FIRST_PRINTABLE, _DELETE = 0x20, 0x7F
_TOTAL_WEIGHT_MAX = 100
_HTTP_RETRY_EVENTS = ("server-error", "gateway-error", "client-error", "stream-error")
_HEALTH_CHECKS = {
    "http": ("http", "tcp"),
    "http2": ("http2", "grpc", "tcp"),
    "grpc": ("grpc", "http2", "tcp"),
    "tcp": ("tcp",),
}
"""By a listener's protocol: how it may be checked. gRPC is HTTP/2, and whatever listens can be connected to."""
_RETRY_MEMBERS = ("httpRetryEvents", "tcpRetryEvents", "grpcRetryEvents")
_RESERVED_PREFIXES = ("/aws-appmesh", "/aws-app-mesh")
_RESERVED_SERVICES = ("aws.app-mesh", "aws.appmesh")
_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def check_spec(kind: str, spec: Spec) -> None:
    """Model, rules and size of one spec; BadRequest lists every problem by its path, starting at `spec`.

    The rules assume the model's shapes, so they speak only once the model has nothing to say.
    """
    found = list(islice(problems(f"{KINDS[kind].title}Spec", spec, "spec"), PROBLEMS_COUNTED))
    refuse(found or list(islice(rule_problems(kind, spec), PROBLEMS_COUNTED)))


def rule_problems(kind: str, spec: Spec) -> Problems:
    """What the rules say against a spec that the model has nothing against."""
    yield from _size(spec)
    yield from _control_characters(spec, "spec")
    yield from _RULES.get(kind, _no_rules)(spec)


def _control_characters(value: object, path: str) -> Problems:
    """Texts that Envoy would refuse: one in a path or a host name would take the whole resource with it."""
    if isinstance(value, str):
        if any(ord(character) < _FIRST_PRINTABLE or ord(character) == _DELETE for character in value):
            yield f"{path}: {shown(value)} must not have control characters in it"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if path != "spec.logging.accessLog.file" or name != "format":  # a log line's format ends with a line break
                yield from _control_characters(part, f"{path}.{name}")
    elif isinstance(value, Sequence):
        for index, part in enumerate(value):
            yield from _control_characters(part, f"{path}[{index}]")


def check_key(key: ResourceKey) -> None:
    """The names in a key: BadRequest when one cannot be part of a path, an ARN and a proxy's node id."""
    kind = KINDS[key.kind]
    names = {MESH.name_member: key.mesh}
    if kind.parent:
        names[KINDS[kind.parent].name_member] = key.parent
    names[kind.name_member] = key.name
    refuse([*owner_problems(key.account), *(each for item in names.items() for each in name_problems(*item))])


def owner_problems(account: str) -> Problems:
    """What is wrong with a `meshOwner`."""
    if not is_account(account):
        yield f"meshOwner: {shown(account)} must be twelve digits"


def name_problems(member: str, name: str) -> Problems:
    """What is wrong with a name: it must fit into a path, an ARN and a proxy's node id."""
    if not 1 <= len(name) <= NAME_MAX_CHARS:
        yield f"{member}: {shown(name)} must have 1 to {NAME_MAX_CHARS} characters"
    elif "/" in name:
        yield f"{member}: {shown(name)} must not contain '/'"
    elif name in (".", ".."):
        yield f"{member}: {shown(name)} is a path of its own and cannot be a name"
    elif not name.isprintable():
        yield f"{member}: {shown(name)} must not contain control characters"
    elif member == MESH.name_member and "@" in name:
        yield f"{member}: {shown(name)} must not contain '@', which parts a mesh from its owner"


def check_tags(tags: Mapping[str, str], kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tags that result from putting `tags` over `kept`; BadRequest, or TooManyTags over 50."""
    found = []
    for key, value in tags.items():
        found += [*problems("TagKey", key, "tags[].key"), *problems("TagValue", value, f"tags[{shown(key)}]")]
        found += _reserved("tags[].key", key)
    refuse(found)
    result = {**(kept or {}), **tags}
    if len(result) > TAGS_PER_RESOURCE:
        raise TooManyTags(
            f"tags: the resource would have {len(result)} tags and may have {TAGS_PER_RESOURCE}: take some away first"
        )
    return result


def tags_from_list(items: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The API's [{key, value}] as a mapping; BadRequest when a key is there twice."""
    refuse(list(tag_problems(items)))
    return {item["key"]: item["value"] for item in items}


def tag_problems(items: Sequence[Mapping[str, str]]) -> Problems:
    """What the rules say against the API's list of tags."""
    keys: set[str] = set()
    for index, item in enumerate(items):
        path, key = f"tags[{index}].key", item["key"]
        if key in keys:
            yield f"{path}: {shown(key)} is there twice"
        keys.add(key)
        yield from _reserved(path, key)


def _reserved(path: str, key: str) -> Problems:
    if key.lower().startswith("aws:"):
        yield f"{path}: {shown(key)} must not begin with 'aws:', which is reserved"


def check_client_token(token: str) -> None:
    """BadRequest unless it is one."""
    refuse(list(token_problems(token)))


def token_problems(token: str) -> Problems:
    """What is wrong with a `clientToken`: it is 1 to 36 letters, digits, hyphens and underscores."""
    if not 1 <= len(token) <= CLIENT_TOKEN_MAX_CHARS or not _TOKEN_CHARACTERS.issuperset(token):
        yield f"clientToken: {shown(token)} must be 1 to {CLIENT_TOKEN_MAX_CHARS} letters, digits, hyphens, underscores"


def is_account(text: str) -> bool:
    return len(text) == ACCOUNT_DIGITS and text.isascii() and text.isdigit()


def _size(spec: Spec) -> Problems:
    size_bytes = len(canonical_json(spec))
    if size_bytes > SPEC_MAX_BYTES:
        sizes = {member: len(canonical_json(value)) for member, value in spec.items()}
        largest = max(sizes, key=lambda member: sizes[member])
        yield (
            f"spec.{largest}: {sizes[largest]} bytes of JSON make the spec {size_bytes} bytes, "
            f"which must be at most {SPEC_MAX_BYTES}"
        )


def _no_rules(spec: Spec) -> Problems:  # noqa: ARG001 (one shape for the table)
    return iter(())


def _virtual_node(spec: Spec) -> Problems:
    listeners = spec.get("listeners") or ()
    yield from _listeners(listeners)
    names = [(backend.get("virtualService") or {}).get("virtualServiceName") for backend in spec.get("backends") or ()]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"spec.backends[{index}].virtualService.virtualServiceName: {shown(name)} is there twice"
    if listeners and not spec.get("serviceDiscovery"):
        yield "spec.serviceDiscovery: is required, since the virtual node has a listener"
    yield from _access_log(spec)


def _virtual_router(spec: Spec) -> Problems:
    yield from _listeners(spec.get("listeners") or ())


def _virtual_gateway(spec: Spec) -> Problems:
    yield from _listeners(spec.get("listeners") or ())
    yield from _access_log(spec)


def _access_log(spec: Spec) -> Problems:
    file = ((spec.get("logging") or {}).get("accessLog") or {}).get("file") or {}
    path, given = "spec.logging.accessLog.file.format", file.get("format") or {}
    formats = [(f"{path}.text", given["text"])] if "text" in given else []
    formats += [(f"{path}.json[{index}].value", one["value"]) for index, one in enumerate(given.get("json") or ())]
    for field, text in formats:
        reason = log_formats.fault(text)
        if reason:
            yield f"{field}: {shown(text)} {reason}"


def _listeners(listeners: Sequence[Spec]) -> Problems:
    ports: set[int] = set()
    for index, listener in enumerate(listeners):
        path = f"spec.listeners[{index}]"
        port, protocol = listener["portMapping"]["port"], listener["portMapping"]["protocol"]
        if port in ports:
            yield f"{path}.portMapping.port: {port} is the port of another listener"
        ports.add(port)
        check = listener.get("healthCheck") or {}
        if check.get("port", port) != port:
            yield f"{path}.healthCheck.port: {check['port']} must equal the listener's port {port}"
        if "protocol" in check and check["protocol"] not in _HEALTH_CHECKS[protocol]:
            yield _wrong_health_check(f"{path}.healthCheck.protocol", check["protocol"], protocol)
        for member in ("timeout", "connectionPool"):
            for given in listener.get(member) or {}:
                if given != protocol:
                    yield f"{path}.{member}.{given}: must be {protocol}, the listener's protocol"


def _wrong_health_check(path: str, check: str, protocol: str) -> str:
    if check == "grpc":
        return f"{path}: GRPC HealthCheck requires listener type of HTTP2 or GRPC."
    return f"{path}: {check} cannot check a listener of protocol {protocol}, only {', '.join(_HEALTH_CHECKS[protocol])}"


def _route(spec: Spec) -> Problems:
    yield from _one_route_type(spec, ROUTE_TYPES)
    for route_type in _route_types(spec):
        path, route = f"spec.{route_type}", spec[route_type]
        yield from _weights(f"{path}.action.weightedTargets", route["action"]["weightedTargets"])
        yield from _match(f"{path}.match", route.get("match") or {})
        yield from _retry(f"{path}.retryPolicy", route.get("retryPolicy"))


def _gateway_route(spec: Spec) -> Problems:
    yield from _one_route_type(spec, ROUTE_TYPES[:-1])
    for route_type in _route_types(spec):
        path, route = f"spec.{route_type}", spec[route_type]
        match = route.get("match") or {}
        yield from _match(f"{path}.match", match)
        if match.get("prefix", "").startswith(_RESERVED_PREFIXES):
            yield f"{path}.match.prefix: {shown(match['prefix'])} must not begin with {' or '.join(_RESERVED_PREFIXES)}"
        if match.get("serviceName", "").startswith(_RESERVED_SERVICES):
            yield (
                f"{path}.match.serviceName: {shown(match['serviceName'])} must not begin with "
                f"{' or '.join(_RESERVED_SERVICES)}"
            )
        yield from _rewrite(f"{path}.action.rewrite", route["action"].get("rewrite") or {})


def _one_route_type(spec: Spec, allowed: Sequence[str]) -> Problems:
    given = _route_types(spec)
    if len(given) != 1:
        yield f"spec: must have exactly one of {', '.join(allowed)}, and has {', '.join(given) or 'none'}"


def _route_types(spec: Spec) -> list[str]:
    return [route_type for route_type in ROUTE_TYPES if route_type in spec]


def _weights(path: str, targets: Sequence[Spec]) -> Problems:
    total = sum(target["weight"] for target in targets)
    if total > _TOTAL_WEIGHT_MAX:
        yield f"{path}: the weights add up to {total}, which must be at most {_TOTAL_WEIGHT_MAX}"


def _match(path: str, match: Spec) -> Problems:
    if "prefix" in match and "path" in match:
        yield f"{path}: must have one of prefix, path, and has both"
    if not match.get("prefix", "/").startswith("/"):
        yield f"{path}.prefix: {shown(match['prefix'])} must begin with '/'"
    if "methodName" in match and "serviceName" not in match:
        yield f"{path}.methodName: needs serviceName beside it"
    yield from _regex(f"{path}.path.regex", (match.get("path") or {}).get("regex"))
    for member in ("headers", "metadata"):
        for index, header in enumerate(match.get(member) or ()):
            yield from _regex(f"{path}.{member}[{index}].match.regex", (header.get("match") or {}).get("regex"))
            bounds = (header.get("match") or {}).get("range")
            if bounds and bounds["start"] >= bounds["end"]:
                yield (
                    f"{path}.{member}[{index}].match.range: {bounds['start']} to {bounds['end']} matches nothing; "
                    "start must be below end, which is exclusive"
                )


def _regex(path: str, regex: str | None) -> Problems:
    reason = fault(regex) if regex is not None else ""
    if reason:
        yield f"{path}: {shown(regex)} {reason}"


def _retry(path: str, policy: Spec | None) -> Problems:
    if policy is None:
        return
    if not any(member in policy for member in _RETRY_MEMBERS):
        yield f"{path}: must have at least one of {', '.join(_RETRY_MEMBERS)}"
    for index, event in enumerate(policy.get("httpRetryEvents") or ()):
        if event not in _HTTP_RETRY_EVENTS:
            yield f"{path}.httpRetryEvents[{index}]: {shown(event)} must be one of {', '.join(_HTTP_RETRY_EVENTS)}"


def _rewrite(path: str, rewrite: Spec) -> Problems:
    if "prefix" in rewrite and "path" in rewrite:
        yield f"{path}: must have one of prefix, path, and has both"


_RULES: Mapping[str, Callable[[Spec], Problems]] = {
    VIRTUAL_NODE.name: _virtual_node,
    VIRTUAL_ROUTER.name: _virtual_router,
    VIRTUAL_GATEWAY.name: _virtual_gateway,
    ROUTE.name: _route,
    GATEWAY_ROUTE.name: _gateway_route,
}
