"""`meshlog backup restore`, from what was asked to the report: which cluster, which archive, which keys, which steps.

    prepare (changes nothing) → confirm → stop the writers → prepare again → steps → report

Prepared twice, since the archive may have grown by what its last writer still had in hand.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.archive_access import archive_providers, archive_url
from cli.backup_report import RestoreReport, restored_text
from cli.bring_up import BringUp, Say, locked
from cli.bring_up import Wish as UpWish
from cli.credentials import AdminCredentials, save_credentials
from cli.establish import api_settings
from cli.layout import ClusterFile, Layout
from cli.log_access import etcd_connection, mesh_driver, registry_driver
from cli.processes import running_pid
from cli.rebuild import Rebuild, stop_writers
from cli.restore import Preparation, Prepared, Source, Wish
from cli.restore_registry import RegistrySource
from cli.witnesses import ask_roles
from eventlog.archive.places import open_store, within
from eventlog.drivers.etcd import EtcdDriver
from eventlog.restore import LATEST, Journal, Kind, Step, Witness, decode_journal, encode_journal
from mesh.errors import Conflict, SettingsError
from mesh.position import Position
from mesh.registry.fold import REGISTRY_FOLDER
from projector.refold import Progress
from runtime.clock import Clock, Entropy, SystemClock, SystemEntropy
from runtime.files import PRIVATE, write_atomic
from runtime.key_sources import KeySources
from runtime.settings import DEFAULT_REGION

Confirm = Callable[[str, str], None]
"""Show a text, ask a question; raises when the answer is no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command's options."""

    archive: str | None
    keys: Path | None
    keks: Mapping[str, KeySources]
    to: str | None
    as_clone: bool
    into: Path | None
    reason: str
    zones: int | None
    dry_run: bool
    timeout: float


class RestoreCommand:
    """One call of the command for the cluster in `layout`."""

    def __init__(self, layout: Layout, asked: Asked, environ: Mapping[str, str], say: Say, progress: Progress) -> None:
        self._asked = asked
        self._environ = environ
        self._say = say
        self._progress = progress
        self._clock: Clock = SystemClock()
        self._entropy: Entropy = SystemEntropy()
        self._source = layout
        self._cluster: ClusterFile | None = layout.load() if layout.cluster_file.exists() else None
        self.target = layout
        self._kind = Kind.CLUSTER if self._cluster is not None else Kind.CLEAN
        if asked.as_clone:
            self._kind = Kind.CLONE
            self.target = Layout(asked.into or layout.root.with_name(f"{layout.root.name}-clone"))
        elif layout.restore_journal.exists():
            self._kind = self._journal().kind

    async def run(self, confirm: Confirm) -> dict[str, Any]:
        """Do it; the report as a document. Every error names what to do; before the claim nothing was changed."""
        with locked(self.target):
            return await self._run(confirm)

    async def _run(self, confirm: Confirm) -> dict[str, Any]:
        begun_s = self._clock.monotonic_s()
        with self._old_etcd() as drivers:
            prepared = await self._prepare(self._preparation(drivers), begun_s, confirm)
        if not isinstance(prepared, Prepared):
            return prepared
        if prepared.journal.next_step is Step.FILES:
            prepared = self._files(prepared)
        await self._rebuild(prepared).run()
        report = self._report(prepared, begun_s, done=True)
        path = self.target.restores / f"epoch-{prepared.journal.head.epoch}.json"
        write_atomic(path, (json.dumps(report, indent=2) + "\n").encode(), PRIVATE)
        return report

    async def _prepare(self, preparation: Preparation, begun_s: float, confirm: Confirm) -> Prepared | dict[str, Any]:
        """What is to be done; or the report, if that was all that was asked for."""
        if self.target.restore_journal.exists():
            journal = self._journal()
            journal.check_resumes(self._asked.to)
            self._say(f"going on with the restore to {journal.asked}, which has come to '{journal.next_step}'")
            return await preparation.resume(journal)
        self._check_new()
        wish = Wish(to=self._asked.to or LATEST, reason=self._asked.reason, kind=self._kind)
        prepared = await preparation.prepare(wish)
        report = self._report(prepared, begun_s, done=False)
        if self._asked.dry_run:
            return report
        confirm(restored_text(report), self._question(prepared))
        return await self._settle(preparation, wish, prepared) if self._kind is Kind.CLUSTER else prepared

    def _check_new(self) -> None:
        if self._kind is Kind.CLUSTER and self._asked.zones is not None:
            raise SettingsError("--zones is for a cluster that is made anew: this one keeps its own")
        if self._kind is not Kind.CLUSTER and self.target.cluster_file.exists():
            raise Conflict(f"there is a cluster in {self.target.root} already: name another directory with --into")
        if self._asked.to is None:
            raise SettingsError("say where to: --to latest, --to POSITION or --to TIME")

    def _question(self, prepared: Prepared) -> str:
        at = prepared.journal.base.at
        if self._kind is Kind.CLONE:
            return f"Make a clone of the log as it was at {at} in {self.target.root}?"
        return f"Replace etcd by what the archive holds up to {at}, as epoch {prepared.journal.head.epoch}?"

    async def _settle(self, preparation: Preparation, wish: Wish, prepared: Prepared) -> Prepared:
        """Stop the writers, then look again: what they still shipped is to be restored, or listed as lost."""
        assert self._cluster is not None  # noqa: S101 - of kind CLUSTER
        if not self._cluster.local:
            return prepared
        self._say("stopping API servers and projectors; frontends go on serving")
        known = [*prepared.witnesses, *self._witnesses(prepared.archive.index.head.at)]
        stop_writers(self.target, self._cluster, self._clock)
        try:
            return await preparation.prepare(wish, known, writers_stopped=True)
        except BaseException:
            self._say("nothing was changed; `meshlog up` starts API servers and projectors again")
            raise

    @contextmanager
    def _old_etcd(self) -> Iterator[tuple[EtcdDriver, EtcdDriver] | None]:
        """Both logs in the etcd that is to be replaced, if one may still answer."""
        if self._cluster is None or self._kind is not Kind.CLUSTER or self.target.restore_journal.exists():
            yield None
            return
        members = self._cluster.of_role("etcd")
        if self._cluster.local and not any(running_pid(self._source, member) for member in members):
            yield None
            return
        settings = api_settings(self._source, self._cluster)
        connection = etcd_connection(settings, self._clock, self._entropy)
        try:
            yield mesh_driver(connection, settings.key_prefix), registry_driver(connection, settings.key_prefix)
        finally:
            connection.close()

    def _preparation(self, drivers: tuple[EtcdDriver, EtcdDriver] | None) -> Preparation:
        url = archive_url(self._source, self._asked.archive)
        providers = archive_providers(self._source, self._asked.keys, self._asked.keks)
        mesh, registry = drivers or (None, None)
        beside = open_store(within(url, REGISTRY_FOLDER))
        source = Source(
            store=open_store(url),
            providers=providers,
            registry=RegistrySource(store=beside, providers=providers, driver=registry),
            driver=mesh,
        )
        return Preparation(source, self._clock, self._entropy, self._witnesses, self._progress)

    def _witnesses(self, after: Position) -> list[Witness]:
        return [] if self._cluster is None else ask_roles(self._source, self._cluster, after)

    def _files(self, prepared: Prepared) -> Prepared:
        """A directory for a cluster that has none: made anew for a clone; with the given keys otherwise."""
        target = self.target
        target.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(target.restore_journal, encode_journal(prepared.journal), PRIVATE)
        if prepared.journal.kind is Kind.CLEAN:
            for key_class in {"config", "secrets"} - self._asked.keks.keys():
                assert self._asked.keys is not None  # noqa: S101 - `_preparation` asked for it
                key = (self._asked.keys / f"{key_class}.kek").read_bytes()
                write_atomic(target.key_file(key_class), key, PRIVATE)
        admin = _admin(prepared)
        account = admin.account_id if admin else None
        if admin is not None and prepared.journal.kind is Kind.CLEAN:
            save_credentials(target.credentials_file, admin)
        wish = UpWish(
            zones=self._asked.zones,
            account_id=self._cluster.account_id if self._cluster else account,
            region=self._cluster.region if self._cluster else None,
            listen_host="127.0.0.1",
            archive=self._asked.archive if prepared.journal.kind is Kind.CLEAN else None,
            keks=self._asked.keks if prepared.journal.kind is Kind.CLEAN else {},
            timeout_s=self._asked.timeout,
        )
        BringUp(target, self._clock, self._entropy, self._environ, self._say).make_files(wish)
        if prepared.journal.kind is Kind.CLEAN:
            self._say("the proxies' trust root is a new one: proxies of the old cluster need new certificates")
        return dataclasses.replace(prepared, journal=prepared.journal.after(Step.FILES))

    def _rebuild(self, prepared: Prepared) -> Rebuild:
        return Rebuild(
            self.target,
            prepared,
            clock=self._clock,
            entropy=self._entropy,
            environ=self._environ,
            say=self._say,
            timeout_s=self._asked.timeout,
        )

    def _journal(self) -> Journal:
        path = self.target.restore_journal
        return decode_journal(path.read_bytes(), path)

    def _report(self, prepared: Prepared, begun_s: float, *, done: bool) -> dict[str, Any]:
        whole_s = (self._clock.now_us() - prepared.journal.begun_us) / 1e6
        seconds = max(self._clock.monotonic_s() - begun_s, whole_s)
        return RestoreReport(
            journal=prepared.journal, seconds=seconds, done=done, place=str(self.target.root)
        ).document()


def _admin(prepared: Prepared) -> AdminCredentials | None:
    """The oldest admin key of the log that still opens, for the new directory's credentials."""
    keys = [key for key in prepared.state.state.access_keys.values() if key.admin and key.disabled_us is None]
    if not keys:
        return None
    key = min(keys, key=lambda each: (each.created_us, each.access_key_id))
    return AdminCredentials(key.access_key_id, key.secret, key.account, DEFAULT_REGION)
