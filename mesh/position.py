"""A place in the log: values only, shared by every room."""

from __future__ import annotations

from typing import NamedTuple

from mesh.errors import BadRequest


class Position(NamedTuple):
    """`epoch` counts timelines (a restore starts a new one); `position` counts records from 1 within the whole log.

    Ordered: a later epoch is later, whatever its position.
    """

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.position}"


ORIGIN = Position(1, 0)
"""Before the first record of a new log."""


def parse_position(text: str, epoch: int) -> Position:
    """Read `<position>` (in `epoch`) or `<epoch>.<position>`; BadRequest otherwise."""
    head, dot, tail = text.partition(".")
    if not dot:
        head, tail = str(epoch), text
    if not (head.isascii() and head.isdigit() and tail.isascii() and tail.isdigit()):
        raise BadRequest(
            f"'{text}' is not a log position: write a number such as 42, or <epoch>.<position> such as 1.42"
        )
    return Position(int(head), int(tail))
