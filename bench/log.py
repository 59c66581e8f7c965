"""The log's figures, each beside its yardstick from the same run, as JSON lines.

python -m bench.log [append|replay|history …] [--seconds S] [--rounds N] [--events N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.append_cpu import measure as append_cpu
from bench.log_append import measure as append
from bench.log_history import measure as history
from bench.log_replay import measure as replay
from runtime.logging import configure_logging

EVENTS = 1_000_000
REPLAYED_MAX = 400_000
"""Of them in memory at once: several times what the token window holds, in a gigabyte or two."""


def _append(chosen: argparse.Namespace) -> Iterator[str]:
    yield append_cpu()
    yield from append(chosen.seconds, chosen.rounds)


PARTS: Mapping[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "append": _append,
    "replay": lambda chosen: replay(min(chosen.events, REPLAYED_MAX)),
    "history": lambda chosen: history(chosen.events),
}
"""What can be measured, in the order in which it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.log", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all without any")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of appends")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    parser.add_argument("--events", type=int, default=EVENTS, help="of the history that is replayed and started from")
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
