"""A lost etcd member replaced: its vote is taken, an empty member joins as a learner, catches up and gets the vote.

Nothing is deleted: what is left of the old data is moved aside. The other members must have a quorum by themselves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from cli.bring_up import BringUp, Say, Wish, locked
from cli.layout import Layout, ProcessEntry
from cli.probes import probe_all
from cli.processes import log_tail, running_pid, start, stop
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection
from cluster.etcd.connection import TlsFiles as EtcdTls
from cluster.etcd.membership import EtcdMemberInfo, Membership, Step, member_at, next_step
from mesh.errors import Conflict, NoQuorum, SettingsError, TimedOut, Unavailable
from runtime.clock import Clock, Entropy
from runtime.files import PUBLIC, write_atomic
from runtime.limits import DOWN_ETCD_GRACE_S, REPLACE_MEMBER_POLL_S
from runtime.settings import EtcdMemberSettings
from runtime.settings_file import dump, load, relative_to

_AS_IT_IS = Wish(zones=None, account_id=None, region=None, listen_host="127.0.0.1", timeout_s=0.0)


def connect_as_root(layout: Layout, members: list[ProcessEntry], clock: Clock, entropy: Entropy) -> EtcdConnection:
    """To these members, with the operator's certificate."""
    files = layout.admin_etcd_tls
    tls = EtcdTls(ca=files.authority, certificate=files.certificate, key=files.key)
    return EtcdConnection([EtcdMember(each.zone, each.address) for each in members], "", tls, clock, entropy)


async def list_members(layout: Layout, clock: Clock, entropy: Entropy) -> list[dict[str, str]]:
    """Rows for people: zone, name, id, peer URL, and whether it votes."""
    cluster = layout.load()
    connection = connect_as_root(layout, cluster.of_role("etcd"), clock, entropy)
    try:
        found = await Membership(connection).members()
    finally:
        connection.close()
    zones = {_peer_url(layout, process): process.zone for process in cluster.of_role("etcd")}
    return sorted((_row(member, zones) for member in found), key=lambda row: row["zone"])


def _row(member: EtcdMemberInfo, zones: Mapping[str, str]) -> dict[str, str]:
    peer = ", ".join(member.peer_urls)
    kind = "learner" if member.learner else "voter"
    return {"zone": zones.get(peer, "-"), "name": member.name, "id": f"{member.id:x}", "peer": peer, "kind": kind}


class ReplaceMember:
    """One `meshlog etcd replace-member`."""

    def __init__(
        self, layout: Layout, zone: str, *, clock: Clock, entropy: Entropy, environ: Mapping[str, str], say: Say
    ) -> None:
        self._layout, self._clock, self._entropy, self._environ, self._say = layout, clock, entropy, environ, say
        self._cluster = layout.load()
        members = self._cluster.of_role("etcd")
        lost = [process for process in members if process.zone == zone]
        if not lost:
            zones = ", ".join(process.zone for process in members)
            raise SettingsError(f"there is no etcd member in zone '{zone}': the zones are {zones}")
        self._process, self._others = lost[0], [process for process in members if process.zone != zone]
        if len(self._others) < 2:
            raise SettingsError(
                f"a cluster of {len(members)} etcd members has no quorum without the one in {zone}: start it again if "
                "its disk lives, else restore from the archive with `meshlog backup restore`"
            )
        self._child: subprocess.Popen[bytes] | None = None

    async def run(self, timeout_s: float) -> None:
        """Return when the member votes and is healthy. Conflict if nothing is wrong with it, NoQuorum, TimedOut."""
        with locked(self._layout):
            deadline_s = self._clock.monotonic_s() + timeout_s
            connection = connect_as_root(self._layout, self._others, self._clock, self._entropy)
            try:
                await self._replace(Membership(connection), deadline_s)
            finally:
                connection.close()

    async def _replace(self, membership: Membership, deadline_s: float) -> None:
        if await self._is_healthy():
            raise Conflict(
                f"{self._process.id} answers and is healthy: there is nothing to replace; stop it first if its disk "
                "is to be given up"
            )
        peer_url = _peer_url(self._layout, self._process)
        members = await membership.members()
        step = next_step(members, peer_url, joining=self._is_running() or not self._cluster.local)
        if step is Step.REMOVE:
            found = member_at(members, peer_url)
            assert found is not None  # noqa: S101 - or there were nothing to remove
            self._say(f"taking {self._process.id} ({found.id:x}) out of the cluster")
            self._set_aside()
            await self._until_taken(lambda: membership.remove(found.id), deadline_s)
            step = Step.ADD
        if step is Step.ADD:
            self._say(f"adding {self._process.id} as a learner")
            await self._until_taken(lambda: membership.add_learner(peer_url), deadline_s)
        self._start()
        self._say(f"waiting until {self._process.id} has caught up")
        await self._promote(membership, peer_url, deadline_s)
        while not await self._is_healthy():
            self._check(deadline_s, "it has its vote, and is not healthy yet")
            await self._clock.sleep(REPLACE_MEMBER_POLL_S)

    async def _promote(self, membership: Membership, peer_url: str, deadline_s: float) -> None:
        while True:
            found = member_at(await membership.members(), peer_url)
            if found is not None and not found.learner:
                return
            try:
                if found is not None:
                    await membership.promote(found.id)
                    return
            except NoQuorum as behind:
                self._check(deadline_s, behind.message)
            await self._clock.sleep(REPLACE_MEMBER_POLL_S)

    async def _until_taken(self, change: Callable[[], Awaitable[None]], deadline_s: float) -> None:
        """etcd refuses changes for a few seconds after a member was lost."""
        while True:
            try:
                return await change()
            except NoQuorum as refused:
                self._check(deadline_s, refused.message)
            await self._clock.sleep(REPLACE_MEMBER_POLL_S)

    def _set_aside(self) -> None:
        """Stop what runs, and move its data away."""
        if not self._cluster.local:
            return
        stop(self._layout, [self._process], self._clock, DOWN_ETCD_GRACE_S)
        data = self._settings().data_dir
        if data.exists() and any(data.iterdir()):
            aside = _free_name(data)
            data.rename(aside)
            self._say(f"moved what was left of its data to {aside}")

    def _start(self) -> None:
        """Files as a member needs them that joins a living cluster, and its process."""
        if self._cluster.local:
            BringUp(self._layout, self._clock, self._entropy, self._environ, self._say).make_files(_AS_IT_IS)
        path = self._layout.config(self._process.zone, "etcd")
        joining = dataclasses.replace(self._settings(), initial_state="existing")
        write_atomic(path, dump(relative_to(joining, path.parent)).encode(), PUBLIC)
        if not self._cluster.local:
            self._say(
                f"on the host of {self._process.zone}: stop meshlog-etcd, empty its data directory, copy "
                f"{path} and {path.with_suffix('')} there from here, and start it; this waits for it"
            )
        elif not self._is_running():
            self._child = start(self._layout, self._process, self._environ)

    def _check(self, deadline_s: float, reason: str) -> None:
        """Unavailable if the new process ended, TimedOut if it is too late."""
        if self._child is not None and self._child.poll() is not None:
            raise Unavailable(
                f"{self._process.id} ended with code {self._child.returncode}. The end of its log:\n"
                f"{log_tail(self._layout, self._process.id)}\nMend what it says and call this again"
            )
        if self._clock.monotonic_s() > deadline_s:
            raise TimedOut(f"{self._process.id} was not replaced in time ({reason}): call this again to go on")

    def _is_running(self) -> bool:
        return running_pid(self._layout, self._process) is not None

    async def _is_healthy(self) -> bool:
        (found,) = await asyncio.to_thread(probe_all, self._layout, [self._process], local=self._cluster.local)
        return found.ready

    def _settings(self) -> EtcdMemberSettings:
        return load(EtcdMemberSettings, self._layout.config(self._process.zone, "etcd"), {})


def _peer_url(layout: Layout, process: ProcessEntry) -> str:
    settings = load(EtcdMemberSettings, layout.root / process.config, {})
    return f"https://{settings.peer_advertise}"


def _free_name(data: Path) -> Path:
    number = 1
    while (found := data.with_name(f"{data.name}-replaced-{number}")).exists():
        number += 1
    return found
