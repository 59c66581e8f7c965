"""`meshlog init` and `meshlog provision`: a cluster on several hosts, its files first, then what only etcd can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import rich_click as click

from cli.credentials import load_credentials
from cli.layout import ROLE_ORDER, Layout
from cli.options import ARCHIVE_URLS, data_dir_option, https_options, key_provider_option
from cli.output import note
from mesh.errors import Conflict, SettingsError, TimedOut, Unavailable
from runtime.clock import SystemClock, SystemEntropy
from runtime.key_sources import KeySources
from runtime.limits import PROBE_PAUSE_S, UP_TIMEOUT_S
from runtime.settings import DEFAULT_KEY_PREFIX, DEFAULT_REGION, DEFAULT_TRUST_DOMAIN

PORTS = {"api": 7411, "frontend": 7412, "projector": 7413, "etcd": 2379}
HEALTH_PORTS = {"api": 7414, "projector": 7415, "frontend": 7416, "etcd": 7417}
PEER_PORTS = {"etcd": 2380, "api": 7418, "frontend": 7419}
"""One role a host could use 7414 for all; four roles on one host need four."""


@click.command()
@data_dir_option
@click.option(
    "--zone",
    "zones",
    multiple=True,
    required=True,
    metavar="NAME=HOST",
    help="A zone and its host (DNS name or IP). '{role}' in HOST stands for etcd, api, projector, frontend.",
)
@click.option("--account-id", required=True, help="The account that owns the meshes, twelve digits.")
@click.option("--region", default=DEFAULT_REGION, show_default=True, help="Region in ARNs.")
@click.option("--trust-domain", default=DEFAULT_TRUST_DOMAIN, show_default=True, help="Trust domain of SPIFFE ids.")
@click.option("--key-prefix", default=DEFAULT_KEY_PREFIX, show_default=True, help="Where the log is kept in etcd.")
@click.option("--archive", metavar="URL", help=f"Where the log is archived, as every host reaches it. {ARCHIVE_URLS}")
@key_provider_option
@https_options
@click.option("--listen-host", help="Address that processes are bound to, 0.0.0.0 in containers.  [default: HOST]")
def init(
    layout: Layout,
    *,
    zones: tuple[str, ...],
    listen_host: str | None,
    account_id: str,
    region: str,
    trust_domain: str,
    key_prefix: str,
    archive: str | None,
    keks: Mapping[str, KeySources],
    https: bool,
    https_names: tuple[str, ...],
) -> None:
    """Make the files of a cluster on several hosts: trust roots, keys, certificates and settings.

    Copy zones/<name> to the zone's host and run `meshlog serve ROLE --config <role>.toml` there for each role; once the
    etcd members run, `meshlog provision` here completes the cluster. What stays here signs everything: keep it safe.
    """
    from cli.plan import Listener, Plan  # noqa: PLC0415
    from cli.provision import Provisioner  # noqa: PLC0415

    if layout.cluster_file.exists():
        raise Conflict(f"there is a cluster in {layout.root} already: choose another --data-dir")
    if not key_prefix.startswith("/") or not key_prefix.endswith("/"):
        raise SettingsError(f"--key-prefix '{key_prefix}' must begin and end with '/'")
    hosts = dict(_zone_and_host(text) for text in zones)
    if len(hosts) != len(zones):
        raise SettingsError("each --zone must have a name of its own")
    plan = Plan(
        account_id=account_id,
        region=region,
        zones=tuple(hosts),
        listeners={
            (zone, role): Listener(
                listen_host=listen_host or host.replace("{role}", role),
                host=host.replace("{role}", role),
                port=PORTS[role],
                health_port=HEALTH_PORTS[role],
                peer_port=PEER_PORTS.get(role, 0),
            )
            for zone, host in hosts.items()
            for role in ROLE_ORDER
        },
        local=False,
        trust_domain=trust_domain,
        key_prefix=key_prefix,
        archive=archive,
        keks=keks,
        https=https,
        https_names=https_names,
    )
    Provisioner(layout, plan, SystemClock(), SystemEntropy()).write()
    note(f"made the files of {len(hosts)} zones in {layout.root}")
    if archive is None:
        note("no --archive was given: a cluster that is lost can not be restored; set 'archive' in each api.toml")
    if https:
        note(f"callers verify the API by {layout.http_authority}: give it to them as AWS_CA_BUNDLE")
    note("next: copy zones/<name> to each host, start its roles, and run `meshlog provision`")


@click.command()
@data_dir_option
@click.option("--timeout", default=UP_TIMEOUT_S, show_default=True, help="Seconds to wait for the etcd members.")
def provision(layout: Layout, *, timeout: float) -> None:
    """Set up a new etcd cluster's users, rights and log, with the admin's key as its first event.

    It waits for the members, and changes nothing that is there already.
    """
    asyncio.run(_provision(layout, timeout))
    note("etcd has its users and rights, and the log its first event")


async def _provision(layout: Layout, timeout_s: float) -> None:
    from cli.establish import establish  # noqa: PLC0415

    clock = SystemClock()
    cluster, admin = layout.load(), load_credentials(layout.credentials_file)
    deadline_s = clock.monotonic_s() + timeout_s
    while True:
        try:
            return await establish(layout, cluster, admin, clock, SystemEntropy())
        except Unavailable as error:
            if clock.monotonic_s() > deadline_s:
                raise TimedOut(f"not done within {timeout_s:.0f} s: {error.message}") from error
        await clock.sleep(PROBE_PAUSE_S)


def _zone_and_host(text: str) -> tuple[str, str]:
    zone, equals, host = text.partition("=")
    if not (zone and equals and host):
        raise SettingsError(f"--zone '{text}' is not NAME=HOST; write for example --zone z1=10.0.0.11")
    return zone, host
