"""A new cluster's logs: head and data keys of each, and the admin's access key as the first event of the meshes'.

Any number of hosts may do this at once, and again at each start: what is there is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eventlog.archive.reader import ArchiveReader
from eventlog.archive.store import ObjectStore
from eventlog.driver import LogDriver
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider
from eventlog.records import KeyClass, NewRecord, TokenMark
from eventlog.writer import Appended, LogWriter
from mesh.commands import Context, CreateAccessKey, idempotency_token
from mesh.decide import decide
from mesh.errors import Conflict
from mesh.events import SCHEMAS
from mesh.state import State
from runtime.clock import Clock, Entropy


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The first access key of a cluster, drawn before there is a log to keep it in."""

    access_key_id: str
    secret: str = field(repr=False)
    account: str

    @property
    def principal(self) -> str:
        return f"arn:aws:iam::{self.account}:user/admin"


async def create_cluster_log(
    driver: LogDriver, providers: Mapping[KeyClass, KeyProvider], admin: AdminKey, clock: Clock, entropy: Entropy
) -> bool:
    """Make the log and its first event, as far as they are missing. True if this call wrote the first event.

    Raises NoQuorum, OutcomeUnknown (call again), MissingKey, WrongKey.
    """
    head = (await create_log(driver, providers, clock, entropy)).head
    keyring = Keyring(driver, providers)
    await keyring.load(head.head.log_id)
    if head.head.position > 0:
        return False
    record = access_key_record(admin, entropy.uuid())
    # A lost race: another host's first event is there, and with it the admin's key.
    appended = await LogWriter(driver, keyring, clock, entropy).append(head, [record], previous_time_us=0)
    return isinstance(appended, Appended)


async def create_registry_log(
    driver: LogDriver,
    providers: Mapping[KeyClass, KeyProvider],
    archive: ObjectStore | None,
    clock: Clock,
    entropy: Entropy,
) -> bool:
    """Make the registry's log, empty, unless there is one: of a new cluster, or of one older than registries.

    Never where the archive (the registry's folder of it) has one: an empty registry in its place would take every
    endpoint away (I7): Conflict. Raises NoQuorum, MissingKey.
    """
    if await driver.read_head() is not None:
        return False
    index = None if archive is None else await ArchiveReader(archive).load_if_any()
    if index is not None and archive is not None:
        raise Conflict(
            f"etcd has no registry, and the archive in {archive.place} has one, up to {index.head.at}: restore it with "
            "`meshlog backup restore --to latest`"
        )
    return (await create_log(driver, providers, clock, entropy)).created


def access_key_record(admin: AdminKey, request_id: str) -> NewRecord:
    """The event that makes the admin's key known, which no caller could be authorised for."""
    operation = "CreateAccessKey"
    token = idempotency_token(admin.account, admin.principal, operation, "bootstrap", {"id": admin.access_key_id})
    command = CreateAccessKey(
        access_key_id=admin.access_key_id,
        secret=admin.secret,
        account=admin.account,
        principal=admin.principal,
        admin=True,
    )
    context = Context(account=admin.account, principal=admin.principal, operation=operation, token=token)
    (event,) = decide(State(), command, context).events
    return NewRecord(
        type=event.type,
        schema=SCHEMAS[event.type],
        account=admin.account,
        actor=admin.principal,
        source_ip="",
        request_id=request_id,
        token=TokenMark(token.digest, token.body),
        data=event.data,
        key_class=KeyClass.SECRETS,
    )
