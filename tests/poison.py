"""Damage done to a real cluster's log: a record that no build would write, and a stored one with a bit flipped."""

from __future__ import annotations

from cli.establish import api_settings
from cli.layout import Layout
from cli.log_access import etcd_connection, key_providers
from cluster.etcd.values import RangeRead
from eventlog.drivers.etcd import EtcdDriver
from eventlog.frames import frame_name
from eventlog.keys.keyring import Keyring
from eventlog.quarantine import last_time_us
from eventlog.records import NewRecord
from eventlog.writer import Appended, LogWriter
from mesh.events import RESOURCE_UPDATED
from mesh.position import Position
from runtime.clock import SystemClock, SystemEntropy

ATTEMPTS_MAX = 50


async def append_poison(layout: Layout, mesh: str) -> Position:
    """A change of what is not there: `decide` would never make it, and no replica can fold it."""
    clock, entropy = SystemClock(), SystemEntropy()
    file = layout.load()
    settings = api_settings(layout, file)
    connection = etcd_connection(settings, clock, entropy)
    try:
        driver = EtcdDriver(connection, settings.key_prefix)
        keyring = Keyring(driver, key_providers(settings.kek, entropy))
        key = [file.account_id, mesh, "virtualNode", "", "nobody"]
        new = NewRecord(RESOURCE_UPDATED, 1, file.account_id, "arn:test", "", "poison", None, {"key": key, "spec": {}})
        for _ in range(ATTEMPTS_MAX):
            head = await driver.read_head()
            assert head is not None
            await keyring.load(head.head.log_id)
            time_us = await last_time_us(driver, keyring, head.head)
            written = await LogWriter(driver, keyring, clock, entropy).append(head, [new], time_us)
            if isinstance(written, Appended):
                return written.head.head.at
        raise AssertionError("the head was never still")
    finally:
        connection.close()


async def flip_bit(layout: Layout, at: Position) -> None:
    """Change the frame that ends at `at`, as a failing disk under every member would."""
    clock, entropy = SystemClock(), SystemEntropy()
    settings = api_settings(layout, layout.load())
    connection = etcd_connection(settings, clock, entropy)
    key = f"{settings.key_prefix}log/{frame_name(at)}".encode()
    try:
        (found,) = (await connection.range(RangeRead(key))).items
        value = bytearray(found.value)
        value[len(value) // 2] ^= 1
        await connection.put(key, bytes(value))
    finally:
        connection.close()
