"""What a new etcd cluster needs before any role can work: access control, a log with the admin's key in it, a registry.

All of it may be repeated, by any number of hosts at once, and changes nothing the second time.
"""

from __future__ import annotations

import asyncio

from cli.credentials import AdminCredentials
from cli.genesis import AdminKey, create_cluster_log, create_registry_log
from cli.layout import ClusterFile, Layout
from cli.log_access import etcd_connection, key_providers, mesh_driver, registry_archive, registry_driver
from cluster.etcd.access import enable_access
from eventlog.archive.places import open_store
from eventlog.archive.reader import ArchiveReader
from eventlog.drivers.etcd import EtcdDriver
from mesh.errors import Conflict
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings
from runtime.settings_file import load


async def establish(
    layout: Layout, cluster: ClusterFile, admin: AdminCredentials, clock: Clock, entropy: Entropy
) -> None:
    """Set up users and rights as root, then both logs as the user `api`. Unavailable: call again."""
    addresses = [address for _, address in cluster.endpoints("etcd")]
    await asyncio.to_thread(enable_access, addresses, layout.admin_etcd_tls, cluster.key_prefix)
    settings = api_settings(layout, cluster)
    connection = etcd_connection(settings, clock, entropy)
    try:
        driver = mesh_driver(connection, settings.key_prefix)
        await _check_not_lost(driver, settings)
        key = AdminKey(admin.access_key_id, admin.secret_access_key, admin.account_id)
        providers = key_providers(settings.kek, entropy)
        await create_cluster_log(driver, providers, key, clock, entropy)
        registry = registry_driver(connection, settings.key_prefix)
        await create_registry_log(registry, providers, registry_archive(settings), clock, entropy)
    finally:
        connection.close()


async def _check_not_lost(driver: EtcdDriver, settings: ApiSettings) -> None:
    """Conflict where etcd has no log and the archive has one: a new one would be an empty mesh in its place (I7)."""
    if settings.archive is None or await driver.read_head() is not None:
        return
    store = open_store(settings.archive)
    index = await ArchiveReader(store).load_if_any()
    if index is not None:
        raise Conflict(
            f"etcd has no log, but the archive in {store.place} has one, up to {index.head.at}: restore it with "
            "`meshlog backup restore --to latest`, or give a new cluster an archive of its own"
        )


def api_settings(layout: Layout, cluster: ClusterFile) -> ApiSettings:
    """Those of the first zone: the user `api` may read and write the log."""
    return load(ApiSettings, layout.config(cluster.zones[0], "api"), {})
