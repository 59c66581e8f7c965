"""Wildcards, policy variables and ARNs, as IAM matches them. Text to compiled patterns; pure.

`*` is any run of characters, `?` any one. In an ARN they stay within one of the six segments between colons, except in
the pattern's last segment, which may go on over further colons. A `${variable}` stands for a value of the request,
literally; a variable that has no value matches nothing. (IAM User Guide: "Resource", "Variables and tags".)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

ARN_SEGMENTS = 6
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_DEFAULTED = re.compile(r"\s*([^,\s]+)\s*(?:,\s*'([^']*)'\s*)?")
_LITERALS = frozenset("*?$")
"""`${*}`, `${?}` and `${$}` are those very characters."""

Lookup = Callable[[str], str | None]
"""The one value of a key of the request, the key in lower case; None where there is none."""


class Template(NamedTuple):
    """A pattern with its variables: what stands between them, and their names with their defaults, by turns."""

    text: str
    variables: bool
    """Whether `${…}` means anything: in policies of version 2012-10-17."""

    def resolve(self, lookup: Lookup) -> str | None:
        """The pattern with each variable's value in it, guarded against being a wildcard; None if one has no value."""
        if not self.variables or "${" not in self.text:
            return self.text
        parts: list[str] = []
        for plain, name in _pieces(self.text):
            parts.append(plain)
            if name is None:
                continue
            value = name if name in _LITERALS else _value(name, lookup)
            if value is None:
                return None
            parts.append("".join(_GUARDS.get(char, char) for char in value))
        return "".join(parts)


_GUARDS = {"*": "\udc2a", "?": "\udc3f"}
"""What stands for a literal wildcard: halves of surrogate pairs, which no text that the log can hold has."""
_GUARDED = {guard: char for char, guard in _GUARDS.items()}


def literal(pattern: str) -> str:
    """The text that a resolved pattern is, where wildcards mean nothing."""
    return "".join(_GUARDED.get(char, char) for char in pattern)


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    for match in _VARIABLE.finditer(text):
        yield text[at : match.start()], match[1]
        at = match.end()
    yield text[at:], None


def _value(name: str, lookup: Lookup) -> str | None:
    match = _DEFAULTED.fullmatch(name)
    if match is None:
        return None
    found = lookup(match[1].lower())
    return match[2] if found is None else found


def like(pattern: str, text: str) -> bool:
    """Whether `text` fits a pattern of characters, `*` and `?`."""
    return _compiled(pattern).fullmatch(text) is not None


def arn_like(pattern: str, text: str) -> bool:
    """Whether `text` fits an ARN pattern, segment by segment; `*` fits all, also what is no ARN."""
    return pattern == "*" or _compiled_arn(pattern).fullmatch(text) is not None


def any_like(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """What fits one of these, in any case of letters, as one pattern."""
    return re.compile("|".join(_regex(each, ".") for each in patterns), re.DOTALL | re.IGNORECASE)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_regex(pattern, "."), re.DOTALL)


@lru_cache(maxsize=4096)
def _compiled_arn(pattern: str) -> re.Pattern[str]:
    *segments, last = pattern.split(":", ARN_SEGMENTS - 1)
    return re.compile(":".join([*(_regex(each, "[^:]") for each in segments), _regex(last, ".")]), re.DOTALL)


def _regex(pattern: str, any_one: str) -> str:
    # What stands between two `*` is found at the first place where it fits, and that is final (atomic groups): no later
    # place could do better, and looking for one would let a pattern of many `*` take exponential time.
    first, *others = ("".join(_char(char, any_one) for char in piece) for piece in pattern.split("*"))
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>{any_one}*?{piece})" for piece in middle if piece) + f"{any_one}*{last}"


def _char(char: str, any_one: str) -> str:
    return any_one if char == "?" else re.escape(_GUARDED.get(char, char))
