"""A restore as values: what is asked, what will be missing afterwards, and which of its steps are done. Pure.

    archive + witnesses → Loss        which writes will be missing, as far as anybody knows
    Journal → next step → Journal     the steps of one restore, each safe to repeat, written down as they are done

From the claim of the new epoch on, a restore is finished, never undone: the claim stops every writer of the epoch
before. Until then it has changed nothing. Nothing here does a step.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from eventlog.records import HASH_BYTES, Head
from mesh.errors import Conflict, Damaged, NotFound
from mesh.position import Position

FORMAT = 1
LATEST = "latest"

Document = Mapping[str, Any]
"""An event as the API tells it: position, time, type, actor, resource, …"""


class Witness(NamedTuple):
    """Somebody who still knows of the log's last records: a role's process, or the old etcd. `events` are those that it
    can name; an API server's are without a gap from `oldest` on. `registry`: how far it knows the registry's log."""

    name: str
    position: Position
    events: Sequence[Document] = ()
    registry: Position | None = None


TOLD = ("position", "time", "type", "actor", "account", "resource", "request_id")
"""What a report tells of a lost write: no specification, since reports and journals are plain files."""


class Lost(NamedTuple):
    """A write that will not be there: its document's TOLD members. `source` is who knows of it: the archive, or a
    witness's name."""

    document: Document
    source: str


class Loss(NamedTuple):
    """What a restore leaves behind: positions `after` < n ≤ `known`.

    `writes` can be named; of `unnamed` (first, last) it is only known that they were written. Without `certain` there
    was no witness: what was written after the archive's last object is unknown.
    """

    after: Position
    known: int
    writes: tuple[Lost, ...]
    unnamed: tuple[tuple[int, int], ...]
    certain: bool

    @property
    def size(self) -> int:
        return self.known - self.after.position


def loss(base: Position, archive_head: Position, archived: Sequence[Document], witnesses: Sequence[Witness]) -> Loss:
    """What is beyond `base`: in the archive (`archived`, its events after `base`), and in the witnesses' memory."""
    living = [witness for witness in witnesses if witness.position.epoch == archive_head.epoch]
    known = max([archive_head.position, *(witness.position.position for witness in living)])
    found: dict[int, Lost] = {}
    for source, events in (("archive", archived), *((witness.name, witness.events) for witness in living)):
        for event in events:
            if base.position < event["position"] <= known:
                found.setdefault(event["position"], Lost({name: event.get(name) for name in TOLD}, source))
    unnamed: list[tuple[int, int]] = []
    for number in range(base.position + 1, known + 1):
        if number in found:
            continue
        if unnamed and unnamed[-1][1] == number - 1:
            unnamed[-1] = (unnamed[-1][0], number)
        else:
            unnamed.append((number, number))
    writes = tuple(found[number] for number in sorted(found))
    return Loss(base, known, writes, tuple(unnamed), certain=bool(living))


class Step(StrEnum):
    """What a restore does, in this order, where it applies (`STEPS`)."""

    FILES = "files"
    """A cluster's directory, where there is none yet: trust roots, keys, settings."""
    CLAIM = "claim"
    """The epoch, by a create-only object in the archive."""
    SET_ASIDE = "set-aside"
    """What is left of the old etcd, and its trust root: moved, never deleted."""
    CREDENTIALS = "credentials"
    """A new trust root for etcd, and certificates under it for members and roles."""
    ETCD = "etcd"
    """New members, in place of the old ones."""
    ACCESS = "access"
    """etcd's users and their rights."""
    WRITE = "write"
    """Data keys, checkpoint and head: the log, in one epoch that begins where the archive's timeline was cut."""
    ANNOUNCE = "announce"
    """The epoch's first records: that it was restored, and what must stay revoked."""
    ROLES = "roles"
    """API servers and projectors, until they are ready."""


class Kind(StrEnum):
    """What is restored into what."""

    CLUSTER = "cluster"
    """The cluster itself, under its own directory."""
    CLEAN = "clean"
    """The cluster, on a machine that has nothing but its archive and keys."""
    CLONE = "clone"
    """A second cluster with a log, keys and an archive of its own, which can never touch the first."""


STEPS: Mapping[Kind, tuple[Step, ...]] = {
    Kind.CLUSTER: tuple(step for step in Step if step is not Step.FILES),
    Kind.CLEAN: tuple(step for step in Step if step not in (Step.SET_ASIDE, Step.CREDENTIALS)),
    # Its epoch is claimed by its own archiver, in an archive of its own.
    Kind.CLONE: tuple(step for step in Step if step not in (Step.CLAIM, Step.SET_ASIDE, Step.CREDENTIALS)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """One restore under way. `base` is the last record that stays, `head` the new epoch's head at its beginning.

    `loss` was found while somebody could be asked. `done` are the steps that need not be done again. Everything that a
    second process needs to go on, and no secret.
    """

    restore_id: str
    kind: Kind
    source: str
    """The archive that is read: a URL without credentials."""
    asked: str
    reason: str
    base: Head
    head: Head
    loss: Loss
    archive_head: Position
    begun_us: int
    restricting: tuple[Document, ...] = ()
    """Records after `base` that took access away: {type, schema, account, actor, data}. They are applied again."""
    done: tuple[Step, ...] = ()
    registry: Journal | None = None
    """The same of the registry's log, which goes through the same steps; None where the archive has none."""

    @property
    def next_step(self) -> Step | None:
        """None when all is done."""
        return next((step for step in STEPS[self.kind] if step not in self.done), None)

    def after(self, step: Step) -> Journal:
        """The journal once `step` is done; ValueError for one whose turn it is not."""
        if step is not self.next_step:
            raise ValueError(f"{step} is not the next step, {self.next_step} is")
        return dataclasses.replace(self, done=(*self.done, step))

    @property
    def restored(self) -> dict[str, Any]:
        """The data of the new epoch's first event, LogRestored."""
        return {
            "from_epoch": self.base.epoch,
            "position": self.base.position,
            "hash": self.base.hash.hex(),
            "to": self.asked,
            "known": self.loss.known if self.loss.certain else None,
            "reason": self.reason,
        }

    def check_resumes(self, asked: str | None) -> None:
        """Conflict when `asked` is another moment than the one that this restore is on its way to."""
        if asked not in (None, self.asked):
            raise Conflict(
                f"a restore to {self.asked} is under way and has claimed epoch {self.head.epoch}: finish it with "
                f"`meshlog backup restore --to {self.asked}`, then restore again to go elsewhere"
            )


def new_epoch(base: Head, epochs: Sequence[int]) -> Head:
    """The head that a new epoch begins with: `base`, in the first epoch that nobody has claimed."""
    return base._replace(epoch=max([base.epoch, *epochs]) + 1)


def encode_journal(journal: Journal) -> bytes:
    """JSON, for a file of its own."""
    return (json.dumps({"format": FORMAT} | _document(journal), indent=2) + "\n").encode()


def decode_journal(data: bytes, place: object) -> Journal:
    """Read it back; Damaged, naming the file."""
    try:
        document = json.loads(data)
        if document.pop("format") != FORMAT:
            raise Damaged(f"{place} was written by another release of meshlog: finish the restore with that one")
        return _journal(document)
    except (ValueError, TypeError, KeyError, AttributeError) as failure:
        raise Damaged(
            f"{place}, the journal of a restore, is not readable ({failure}): move it away and restore again"
        ) from failure


def check_target(asked: str, target: Position, first: Position, head: Position) -> None:
    """NotFound unless the archive holds the log up to `target`."""
    if target.position > head.position:
        raise NotFound(f"--to {asked}: the archive ends at {head}, and has no position {target}")
    if target.position < first.position - 1:
        raise NotFound(
            f"--to {asked}: the archive begins at {first}; what was before is beyond its retention: name a later moment"
        )


def _document(journal: Journal) -> dict[str, Any]:
    # dataclasses.asdict goes into tuples too, and would leave named ones unnamed.
    document = {field.name: getattr(journal, field.name) for field in dataclasses.fields(journal)}
    registry = None if journal.registry is None else _document(journal.registry)
    return document | {"base": _plain(journal.base), "head": _plain(journal.head), "registry": registry}


def _journal(document: dict[str, Any]) -> Journal:
    registry = document.get("registry")
    return Journal(**document | {
        "kind": Kind(document["kind"]),
        "base": _head(document["base"]),
        "head": _head(document["head"]),
        "archive_head": Position(*document["archive_head"]),
        "loss": _loss(*document["loss"]),
        "restricting": tuple(document["restricting"]),
        "done": tuple(Step(step) for step in document["done"]),
        "registry": None if registry is None else _journal(registry),
    })  # fmt: skip


def _loss(after: Any, known: int, writes: Any, unnamed: Any, certain: bool) -> Loss:
    named = tuple(Lost(document, source) for document, source in writes)
    return Loss(Position(*after), known, named, tuple((first, last) for first, last in unnamed), certain)


def _plain(head: Head) -> list[Any]:
    return [head.log_id, head.epoch, head.position, head.hash.hex()]


def _head(fields: Any) -> Head:
    log_id, epoch, position, digest = fields
    found = Head(str(log_id), int(epoch), int(position), bytes.fromhex(digest))
    if len(found.hash) != HASH_BYTES:
        raise ValueError("a head's hash has another length")
    return found
