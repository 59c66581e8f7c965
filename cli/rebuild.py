"""The steps of a restore done, in a cluster's directory and its new etcd: each may be interrupted and done again.

    Journal → step → Journal, written down after each: a call that finds a journal goes on where the last one ended

Old data and the old trust root are moved aside, never deleted. Frontends are left alone: they go on serving what they
have until the new projectors bring the new epoch, in which what has not changed has the same versions.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from cli.bring_up import BringUp, Say
from cli.credentials import AdminCredentials, create_credentials, load_credentials, save_credentials
from cli.establish import api_settings
from cli.genesis import AdminKey, access_key_record
from cli.layout import ClusterFile, Layout
from cli.log_access import etcd_connection, key_providers, mesh_driver, registry_driver
from cli.plan import plan_of
from cli.processes import stop
from cli.provision import Provisioner
from cli.restore import Prepared
from cluster import pki
from cluster.etcd.access import enable_access
from eventlog.restore import Journal, Kind, Step, encode_journal
from eventlog.signing import signing_key
from mesh.errors import TimedOut, Unavailable
from mesh.fold import MESH_FOLD
from mesh.registry.fold import REGISTRY_FOLD
from mesh.state import State
from projector.refold import OpenArchive
from projector.restoring import LogRestore, first_records
from runtime.clock import Clock, Entropy
from runtime.files import PRIVATE, write_atomic
from runtime.limits import DOWN_ETCD_GRACE_S, DOWN_GRACE_S, PROBE_PAUSE_S, RESTORE_HOSTS_S
from runtime.settings import EtcdMemberSettings
from runtime.settings_file import load

_WRITERS = ("api", "projector")
_SAID: Mapping[Step, str] = {
    Step.CLAIM: "claiming the epoch in the archive",
    Step.SET_ASIDE: "moving what is left of the old etcd aside",
    Step.CREDENTIALS: "making new etcd credentials",
    Step.ETCD: "starting new etcd members",
    Step.ACCESS: "setting up etcd's users and rights",
    Step.WRITE: "writing the logs",
    Step.ANNOUNCE: "appending the first records of the epoch",
    Step.ROLES: "starting API servers and projectors",
}


class Rebuild:
    """Carries out one prepared restore in `layout`."""

    def __init__(
        self,
        layout: Layout,
        prepared: Prepared,
        *,
        clock: Clock,
        entropy: Entropy,
        environ: Mapping[str, str],
        say: Say,
        timeout_s: float,
    ) -> None:
        self._layout = layout
        self._prepared = prepared
        self._clock = clock
        self._entropy = entropy
        self._say = say
        self._bring_up = BringUp(layout, clock, entropy, environ, say)
        self._bring_up.again_by = "meshlog backup restore"
        self._timeout_s = timeout_s
        self._cluster: ClusterFile = layout.load()
        self._steps: Mapping[Step, Callable[[], Awaitable[None]]] = {
            Step.CLAIM: self._claim,
            Step.SET_ASIDE: self._set_aside,
            Step.CREDENTIALS: self._credentials,
            Step.ETCD: self._etcd,
            Step.ACCESS: self._access,
            Step.WRITE: self._write,
            Step.ANNOUNCE: self._announce,
            Step.ROLES: self._roles,
        }

    async def run(self) -> None:
        """Do what is left to do; the journal is gone afterwards. Any failure leaves it, to go on from."""
        journal = self._prepared.journal
        while (step := journal.next_step) is not None:
            self._keep(journal)
            if step in _SAID:
                self._say(_SAID[step])
            await self._steps[step]()
            journal = journal.after(step)
            self._keep(journal)
        self._layout.restore_journal.unlink()

    def _keep(self, journal: Journal) -> None:
        write_atomic(self._layout.restore_journal, encode_journal(journal), PRIVATE)

    def _restore(self, journal: Journal) -> LogRestore:
        settings = api_settings(self._layout, self._cluster)
        providers = key_providers(settings.kek, self._entropy)
        return LogRestore(journal, providers, self._clock, self._entropy)

    async def _claim(self) -> None:
        prepared = self._prepared
        for journal, archive in (
            (prepared.journal, prepared.archive),
            *([(prepared.registry.journal, prepared.registry.archive)] if prepared.registry else []),
        ):
            signer = await signing_key(
                archive.key_store, archive.keyring, archive.index.log_id, self._clock, self._entropy
            )
            await self._restore(journal).claim(archive.reader.store, archive.index.newest, signer)

    async def _set_aside(self) -> None:
        aside = f"before-epoch-{self._prepared.journal.head.epoch}"
        if self._cluster.local:
            members = self._cluster.of_role("etcd")
            stop(self._layout, members, self._clock, DOWN_ETCD_GRACE_S)
            for member in members:
                data = load(EtcdMemberSettings, self._layout.root / member.config, {}).data_dir
                _move(data, data.with_name(f"{data.name}-{aside}"))
        root = self._layout.authority(pki.ETCD_ROOT)
        for path in (root.certificate, root.key):
            _move(path, path.with_name(f"{path.stem}-{aside}{path.suffix}"))

    async def _credentials(self) -> None:
        layout, cluster, journal = self._layout, self._cluster, self._prepared.journal
        etcd = {
            process.zone: load(EtcdMemberSettings, layout.root / process.config, {})
            for process in cluster.of_role("etcd")
        }
        token = f"meshlog-{cluster.account_id}-epoch-{journal.head.epoch}"
        plan = dataclasses.replace(plan_of(cluster, etcd), cluster_token=token)
        Provisioner(layout, plan, self._clock, self._entropy).write()

    async def _etcd(self) -> None:
        if self._cluster.local:
            await self._bring_up.ensure(self._cluster, ["etcd"], self._deadline_s())

    async def _access(self) -> None:
        addresses = [address for _, address in self._cluster.endpoints("etcd")]
        waiting_s = self._timeout_s if self._cluster.local else RESTORE_HOSTS_S
        deadline_s = self._clock.monotonic_s() + waiting_s
        while True:
            try:
                return await asyncio.to_thread(
                    enable_access, addresses, self._layout.admin_etcd_tls, self._cluster.key_prefix
                )
            except Unavailable as error:
                if self._clock.monotonic_s() > deadline_s:
                    raise self._not_yet(error) from error
            await self._clock.sleep(PROBE_PAUSE_S)

    def _not_yet(self, error: Unavailable) -> Unavailable | TimedOut:
        if self._cluster.local:
            return TimedOut(f"etcd's users could not be set up in time: {error.message}")
        return Unavailable(
            f"The epoch is claimed and etcd has new credentials; its new members do not answer yet ({error.message}). "
            f"On each host: stop API server, projector and etcd, move etcd's data directory away, copy "
            f"{self._layout.root}/zones/<zone> there again and start etcd. Then call `meshlog backup restore` once "
            "more: it goes on from here"
        )

    async def _write(self) -> None:
        prepared, registry = self._prepared, self._prepared.registry
        async with _Drivers(self._layout, self._cluster, self._clock, self._entropy) as drivers:
            log = self._restore(prepared.journal)
            await log.write(MESH_FOLD, drivers.mesh, prepared.state.state, self._data_keys(prepared.archive))
            if registry is not None:
                beside, keys = self._restore(registry.journal), self._data_keys(registry.archive)
                await beside.write(REGISTRY_FOLD, drivers.registry, registry.state.state, keys)

    def _data_keys(self, archive: OpenArchive) -> Mapping[str, bytes]:
        return {} if self._prepared.journal.kind is Kind.CLONE else archive.data_keys

    async def _announce(self) -> None:
        journal, state, registry = self._prepared.journal, self._prepared.state.state, self._prepared.registry
        admin = self._admin(journal, state)
        principal = AdminKey(admin.access_key_id, admin.secret_access_key, admin.account_id)
        records = first_records(journal, principal.account, principal.principal)
        if admin.access_key_id not in state.access_keys:
            records.append(access_key_record(principal, journal.restore_id))
        async with _Drivers(self._layout, self._cluster, self._clock, self._entropy) as drivers:
            await self._restore(journal).announce(drivers.mesh, records, state.time_us)
            if registry is not None:
                restored = first_records(registry.journal, principal.account, principal.principal)
                beside = self._restore(registry.journal)
                await beside.announce(drivers.registry, restored, registry.state.state.time_us)

    def _admin(self, journal: Journal, state: State) -> AdminCredentials:
        """The directory's admin key, or a new one in its place."""
        path = self._layout.credentials_file
        admin = load_credentials(path)
        if locked_out(admin.access_key_id, journal, state):
            admin = create_credentials(admin.account_id, admin.region, self._entropy)
            save_credentials(path, admin)
            self._say(f"no admin key is left that was not revoked: {path} has a new one")
        return admin

    async def _roles(self) -> None:
        if self._cluster.local:
            await self._bring_up.ensure(self._cluster, ("api", "projector", "frontend"), self._deadline_s())
        else:
            self._say("next: start API servers and projectors on every host; frontends may go on as they are")

    def _deadline_s(self) -> float:
        return self._clock.monotonic_s() + self._timeout_s


def locked_out(access_key_id: str, journal: Journal, state: State) -> bool:
    """Whether, once all that was revoked is revoked again, neither this key nor any other admin key opens anything."""
    revoked = {event["data"].get("access_key_id") for event in journal.restricting}
    own = state.access_keys.get(access_key_id)
    revoked |= {access_key_id} if own is not None and own.disabled_us is not None else set()
    living = {key.access_key_id for key in state.access_keys.values() if key.admin and key.disabled_us is None}
    return access_key_id in revoked and not living - revoked


def stop_writers(layout: Layout, cluster: ClusterFile, clock: Clock) -> None:
    """API servers and projectors of a local cluster. Frontends go on."""
    stop(layout, [process for process in cluster.processes if process.role in _WRITERS], clock, DOWN_GRACE_S)


class _Drivers:
    """Both logs' stores, as the user `api`, for the length of a `with`."""

    def __init__(self, layout: Layout, cluster: ClusterFile, clock: Clock, entropy: Entropy) -> None:
        settings = api_settings(layout, cluster)
        self._connection = etcd_connection(settings, clock, entropy)
        self.mesh = mesh_driver(self._connection, settings.key_prefix)
        self.registry = registry_driver(self._connection, settings.key_prefix)

    async def __aenter__(self) -> _Drivers:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._connection.close()


def _move(source: Path, target: Path) -> None:
    """Unless it is done; a target that is taken gets a number."""
    if not os.path.lexists(source):
        return
    number, place = 1, target
    while os.path.lexists(place):
        number += 1
        place = target.with_name(f"{target.name}.{number}")
    source.rename(place)
