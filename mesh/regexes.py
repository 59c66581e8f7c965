"""Regular expressions as Envoy's engine, RE2, reads them: what is wrong with one. Pure.

Envoy refuses a whole route configuration for one regex that RE2 cannot compile, or whose program is too large. So both
are looked at before a regex gets into a specification, with RE2 itself.
"""

from __future__ import annotations

from functools import lru_cache

import re2

from mesh.limits import REGEX_PROGRAM_MAX

_QUIET = re2.Options()
_QUIET.log_errors = False


@lru_cache(maxsize=4096)
def fault(regex: str) -> str:
    """Why Envoy would refuse it, as the end of a sentence about it; '' if it would not."""
    try:
        size = re2.compile(regex, _QUIET).programsize
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "it cannot be read"
        return f"is no regular expression to RE2 (look-around and back-references are not): {reason}"
    if size > REGEX_PROGRAM_MAX:
        return f"is too large: RE2 makes a program of {size} steps of it, which must be at most {REGEX_PROGRAM_MAX}"
    return ""
