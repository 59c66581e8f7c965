"""The part of an API server that keeps what it refuses: wired from the settings, for `cli.serve`."""

from __future__ import annotations

from typing import NamedTuple

from api.ports import AuditPorts
from api.refusals import AuditMetrics, RefusedCalls
from eventlog.archive.places import open_store
from eventlog.driver import LogDriver
from eventlog.keys.keyring import Keyring
from eventlog.records import KeyClass
from eventlog.sealing import DataKey
from eventlog.signing import SigningKey, signing_key
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings

_DAY_S = 86_400.0


class Audit(NamedTuple):
    """The recorder, to be run and closed, and what the API asks of it."""

    calls: RefusedCalls
    ports: AuditPorts


def make_audit(
    settings: ApiSettings, log_id: str, driver: LogDriver, keyring: Keyring, *, clock: Clock, entropy: Entropy
) -> Audit | None:
    """None where no archive is set: refused calls are never kept in the log's own store."""
    if settings.archive is None:
        return None
    signer: SigningKey | None = None

    async def keys() -> tuple[str, DataKey, SigningKey | None]:
        nonlocal signer
        config, _ = await keyring.sealing_keys(log_id, KeyClass.CONFIG)
        if keyring.opens(KeyClass.SIGNING) and (
            signer is None or signer.name != keyring.newest(KeyClass.SIGNING).key_id
        ):
            signer = await signing_key(driver, keyring, log_id, clock, entropy)
        return log_id, config, signer

    store = open_store(settings.archive)
    calls = RefusedCalls(
        store,
        settings.id,
        keys,
        clock,
        entropy,
        region=settings.region,
        retention_s=settings.archive_retention_days * _DAY_S,
        metrics=AuditMetrics(),
    )
    return Audit(calls, AuditPorts(calls, store, keyring))
