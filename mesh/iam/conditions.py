"""The Condition element: operators, keys and values, and whether the facts of a request meet them. Pure.

Several values of a key: any of them (for a negated operator: none). A key that the request does not have: not met, but
for negated operators, `…IfExists` and `ForAllValues:`. (IAM User Guide: "Condition operators", "Multivalued keys".)
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mesh.iam.patterns import Template, arn_like, like, literal

Facts = Mapping[str, Sequence[str]]
"""What is known of a request: condition keys in lower case to their values. A key without values is not there."""

_OPERATOR = re.compile(r"(?:(ForAllValues|ForAnyValue):)?([A-Za-z]+?)(IfExists)?")
_KEY = re.compile(r"[A-Za-z0-9-]+:[^\s*]{1,200}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")
FOR_ALL, FOR_ANY = "ForAllValues", "ForAnyValue"

Test = Callable[[str, str], bool]
"""Whether a value of the policy (resolved) fits a value of the request."""


class Operator(NamedTuple):
    """How a pair of values is compared; `negated`: the condition is met where this is not so for any value."""

    fits: Test
    negated: bool = False
    check: Callable[[str], None] | None = None
    """Raises ValueError for a policy value that it cannot compare with."""
    variables: bool = False


class Condition(NamedTuple):
    """One operator on one key."""

    operator: Operator
    over: str | None
    if_exists: bool
    key: str
    values: tuple[Template, ...]


def parse_condition(operator: str, key: str, values: Any, *, variables: bool) -> Condition:
    """One line of a Condition element; ValueError says what is wrong with it."""
    match = _OPERATOR.fullmatch(operator)
    found = OPERATORS.get(match[2].lower()) if match else None
    if match is None or found is None or (match[3] and match[2].lower() == "null"):
        raise ValueError("is no condition operator (StringEquals, ArnLike, IpAddress, … with …IfExists)")
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise ValueError("is no condition key: Actions/Conditions must be prefaced by a vendor, such as aws:SourceIp")
    texts = [_text(value) for value in (values if isinstance(values, list) else [values])]
    if not texts:
        raise ValueError("must have a value")
    for text in texts:
        if found.check is not None and not (found.variables and variables and "${" in text):
            found.check(text)
    templates = tuple(Template(text, variables and found.variables) for text in texts)
    return Condition(found, match[1], bool(match[3]), key.lower(), templates)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("must be a string, a number or true or false, or a list of them")


def met(condition: Condition, facts: Facts) -> bool:
    """Whether the request meets the condition."""
    operator, present = condition.operator, facts.get(condition.key) or ()
    if operator is OPERATORS["null"]:
        return any((value.text.lower() == "true") == (not present) for value in condition.values)
    if not present:
        if condition.if_exists or condition.over == FOR_ALL:
            return True
        return operator.negated and condition.over is None
    wanted = [
        text for value in condition.values if (text := value.resolve(lambda key: _single(facts, key))) is not None
    ]

    def holds(given: str) -> bool:
        return any(operator.fits(want, given) for want in wanted) is not operator.negated

    if condition.over == FOR_ALL:
        return all(map(holds, present))
    if condition.over == FOR_ANY or not operator.negated:
        return any(map(holds, present))
    return all(map(holds, present))


def _single(facts: Facts, key: str) -> str | None:
    values = facts.get(key) or ()
    return values[0] if len(values) == 1 else None


# --- comparing


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text[:80]}' is no number") from None


def date(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time (UTC where it names no zone) or a number of seconds."""
    if _DATE.fullmatch(text):
        try:
            at = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"'{text}' is no date") from None
        return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text[:80]}' is no date such as 2026-11-22T10:42:00Z") from None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"'{text[:80]}' is no IP address or range such as 203.0.113.0/24") from None


def _in_network(want: str, given: str) -> bool:
    try:
        address, network = ipaddress.ip_address(given), _network(literal(want))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None and network.version == 4:
        address = address.ipv4_mapped
    return address in network


def _bool(text: str) -> None:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"'{text[:80]}' is neither true nor false")


def _checked(parse: Callable[[str], Any]) -> Callable[[str], None]:
    def check(text: str) -> None:
        parse(text)

    return check


def _ordered(parse: Callable[[str], float], compare: Callable[[float, float], bool]) -> Test:
    def fits(want: str, given: str) -> bool:
        try:
            return compare(parse(given), parse(literal(want)))
        except ValueError:
            return False

    return fits


def _equal(want: str, given: str) -> bool:
    return literal(want) == given


def _equal_folded(want: str, given: str) -> bool:
    return literal(want).casefold() == given.casefold()


def _binary(want: str, given: str) -> bool:
    return literal(want) == given


def _orders(name: str, parse: Callable[[str], float]) -> dict[str, Operator]:
    check = _checked(parse)
    return {
        f"{name}equals": Operator(_ordered(parse, lambda a, b: a == b), check=check),
        f"{name}notequals": Operator(_ordered(parse, lambda a, b: a == b), negated=True, check=check),
        f"{name}lessthan": Operator(_ordered(parse, lambda a, b: a < b), check=check),
        f"{name}lessthanequals": Operator(_ordered(parse, lambda a, b: a <= b), check=check),
        f"{name}greaterthan": Operator(_ordered(parse, lambda a, b: a > b), check=check),
        f"{name}greaterthanequals": Operator(_ordered(parse, lambda a, b: a >= b), check=check),
    }


OPERATORS: Mapping[str, Operator] = {
    "stringequals": Operator(_equal, variables=True),
    "stringnotequals": Operator(_equal, negated=True, variables=True),
    "stringequalsignorecase": Operator(_equal_folded, variables=True),
    "stringnotequalsignorecase": Operator(_equal_folded, negated=True, variables=True),
    "stringlike": Operator(like, variables=True),
    "stringnotlike": Operator(like, negated=True, variables=True),
    "arnequals": Operator(arn_like, variables=True),
    "arnnotequals": Operator(arn_like, negated=True, variables=True),
    "arnlike": Operator(arn_like, variables=True),
    "arnnotlike": Operator(arn_like, negated=True, variables=True),
    **_orders("numeric", _number),
    **_orders("date", date),
    "bool": Operator(_equal_folded, check=_bool, variables=True),
    "binaryequals": Operator(_binary),
    "ipaddress": Operator(_in_network, check=_checked(_network), variables=True),
    "notipaddress": Operator(_in_network, negated=True, check=_checked(_network), variables=True),
    "null": Operator(_equal_folded, check=_bool),
}
"""By name in lower case: IAM takes operators in any case of letters."""
