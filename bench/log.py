"""The log's figures, each beside its yardstick from the same run, as JSON lines.

python -m bench.log [append …] [--seconds S] [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.append_cpu import measure as append_cpu
from bench.log_append import measure as append
from runtime.logging import configure_logging


def _append(chosen: argparse.Namespace) -> Iterator[str]:
    yield append_cpu()
    yield from append(chosen.seconds, chosen.rounds)


PARTS: Mapping[str, Callable[[argparse.Namespace], Iterator[str]]] = {"append": _append}
"""What can be measured, in the order in which it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.log", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all without any")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of appends")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part '{unknown[0]}': choose from {', '.join(PARTS)}")
    configure_logging("bench", "", "warning")
    for name in chosen.parts or PARTS:
        for line in PARTS[name](chosen):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
