"""What a frontend remembers of nodes between streams, so that no proxy goes backwards. Bounded, in memory, no I/O.

Three things: the highest position served to a node (nothing below it is served again); the cluster sets that its
proxies were sent lately (a SotW proxy that comes back names only the version of its set: this tells what was in it);
and the SotW versions whose holders may have applied parts of something that they refused.
"""

from __future__ import annotations

from collections import OrderedDict

from identity.node_id import NodeId
from mesh.position import ORIGIN
from projector.feed.port import NodeUpdate
from projector.snapshot import Reach
from runtime.limits import XDS_CLUSTER_SETS_REMEMBERED, XDS_NODES_REMEMBERED
from xds.view import Named, View


class _Record:
    __slots__ = ("cluster_sets", "high", "unsure", "view")

    def __init__(self) -> None:
        self.high = Reach(ORIGIN)
        self.view: View | None = None
        self.cluster_sets: OrderedDict[str, Named] = OrderedDict()
        self.unsure: OrderedDict[tuple[str, str], None] = OrderedDict()


class NodeMemory:
    """One a process, shared by all streams. The least recently used node is forgotten first."""

    def __init__(self, nodes_max: int = XDS_NODES_REMEMBERED) -> None:
        self._nodes_max = nodes_max
        self._records: OrderedDict[NodeId, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def _record(self, node: NodeId) -> _Record:
        record = self._records.get(node)
        if record is None:
            record = self._records[node] = _Record()
            if len(self._records) > self._nodes_max:
                self._records.popitem(last=False)
        self._records.move_to_end(node)
        return record

    def high_water(self, node: NodeId) -> Reach:
        """How far what was served to `node` had come; ORIGIN when unknown."""
        record = self._records.get(node)
        return record.high if record else Reach(ORIGIN)

    def allows(self, update: NodeUpdate) -> bool:
        """Whether `update` is surely not older than what its node was served: a later position, or the same content
        (which another projector may know by an earlier position)."""
        record = self._records.get(update.node)
        if record is None or update.reach.covers(record.high):
            return True
        if record.view is None or update.snapshot is None:
            return False
        return record.view.snapshot.resources == update.snapshot.resources

    def served(self, update: NodeUpdate) -> View | None:
        """Note that `update` is served from now on; its view (one for all streams of the node), or None without one."""
        record = self._record(update.node)
        record.high = record.high.joined(update.reach)
        if update.snapshot is None:
            return None
        if record.view is None or record.view.snapshot is not update.snapshot:
            record.view = View(update.snapshot, record.view)
        return record.view

    def remember_clusters(self, node: NodeId, version: str, clusters: Named) -> None:
        """A proxy of `node` was sent this SotW cluster set (its ACK may be lost with the stream, so: sent)."""
        sets = self._record(node).cluster_sets
        sets[version] = clusters
        sets.move_to_end(version)
        while len(sets) > XDS_CLUSTER_SETS_REMEMBERED:
            sets.popitem(last=False)

    def forget_clusters(self, node: NodeId, version: str) -> None:
        """A proxy refused this set: none will name it."""
        record = self._records.get(node)
        if record is not None:
            record.cluster_sets.pop(version, None)

    def clusters(self, node: NodeId, version: str) -> Named | None:
        """What was in the set of that version, if it was sent here lately."""
        record = self._records.get(node)
        return record.cluster_sets.get(version) if record else None

    def doubt(self, node: NodeId, type_url: str, version: str) -> None:
        """A proxy that reports `version` may hold parts of what it refused: do not take its word for the whole."""
        unsure = self._record(node).unsure
        unsure[type_url, version] = None
        while len(unsure) > XDS_CLUSTER_SETS_REMEMBERED:
            unsure.popitem(last=False)

    def doubted(self, node: NodeId, type_url: str, version: str) -> bool:
        record = self._records.get(node)
        return record is not None and (type_url, version) in record.unsure
