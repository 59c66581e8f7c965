"""What a new etcd cluster needs before any role can work: access control, and a log with the admin's key in it.

All of it may be repeated, by any number of hosts at once, and changes nothing the second time.
"""

from __future__ import annotations

import asyncio

from cli.credentials import AdminCredentials
from cli.genesis import AdminKey, create_cluster_log
from cli.layout import ClusterFile, Layout
from cli.serve import etcd_connection, key_providers
from cluster.etcd.access import enable_access
from eventlog.drivers.etcd import EtcdDriver
from runtime.clock import Clock, Entropy
from runtime.settings import ApiSettings, load


async def establish(
    layout: Layout, cluster: ClusterFile, admin: AdminCredentials, clock: Clock, entropy: Entropy
) -> None:
    """Set up users and rights as root, then the log as the user `api`. Unavailable: call again."""
    addresses = [address for _, address in cluster.endpoints("etcd")]
    await asyncio.to_thread(enable_access, addresses, layout.admin_etcd_tls, cluster.key_prefix)
    settings = api_settings(layout, cluster)
    connection = etcd_connection(settings, clock, entropy)
    try:
        driver = EtcdDriver(connection, settings.key_prefix)
        key = AdminKey(admin.access_key_id, admin.secret_access_key, admin.account_id)
        await create_cluster_log(driver, key_providers(settings.kek, entropy), key, clock, entropy)
    finally:
        connection.close()


def api_settings(layout: Layout, cluster: ClusterFile) -> ApiSettings:
    """Those of the first zone: the user `api` may read and write the log."""
    return load(ApiSettings, layout.config(cluster.zones[0], "api"), {})
