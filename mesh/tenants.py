"""Accounts beyond the cluster's own, and with whom their meshes are shared, as the state keeps it. Values only."""

from __future__ import annotations

from typing import NamedTuple

from mesh.position import Position


class Tenant(NamedTuple):
    """An account that was added to the cluster. `name` is for people; times are log times."""

    account: str
    name: str
    created_us: int


class Consumer(NamedTuple):
    """An account that a mesh is shared with, without a break since the event at `epoch`.`position`."""

    account: str
    epoch: int
    position: int

    @property
    def since(self) -> Position:
        return Position(self.epoch, self.position)


class Sharing(NamedTuple):
    """With whom one mesh is shared: `Consumer`s as tuples, sorted by account, never none."""

    consumers: tuple[tuple[str, int, int], ...]

    def consumer(self, account: str) -> Consumer | None:
        """The consumer of that account, if it is one."""
        return next((Consumer(*each) for each in self.consumers if each[0] == account), None)
