"""`meshlog proxy`: what connects an Envoy to the mesh."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import note
from identity.node_id import parse_node_id
from mesh.errors import BadRequest, SettingsError
from proxy import bootstrap as envoy
from runtime.files import PRIVATE, PUBLIC, write_atomic
from runtime.settings import Endpoint

_IDENTITY = "/meshlog/v1/proxies/identity"


@click.group()
def proxy() -> None:
    """Connect Envoys to the mesh."""


@proxy.command()
@data_dir_option
@endpoint_options
@click.option(
    "--node",
    required=True,
    metavar="mesh/<mesh>/virtualGateway|virtualNode/<name>",
    help="The resource that the Envoy stands for.",
)
@click.option(
    "--admin-port", type=click.IntRange(0, 65535), default=envoy.ADMIN_PORT, help="Its admin port, on loopback."
)
@click.option(
    "--mode", type=click.Choice(list(envoy.MODES)), default="delta", show_default=True, help="Variant of xDS."
)
@click.option("--zone", envvar="MESHLOG_ZONE", help="The Envoy's own zone: its frontends are tried first.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write a directory instead of printing.")
def bootstrap(
    layout: Layout,
    *,
    endpoint: str | None,
    node: str,
    admin_port: int,
    mode: str,
    zone: str | None,
    out: Path | None,
) -> None:
    """Print a complete Envoy bootstrap, with a new certificate for the node in it.

    With --out, certificates are files that Envoy reads again when they are replaced: run the same command again before
    they expire, and no Envoy has to restart.
    """
    from cluster.pki import make_request  # noqa: PLC0415

    try:
        parse_node_id(node, "0" * 12)
    except BadRequest as error:
        raise SettingsError(f"--node: {error.message}") from error
    if out is not None and any(character in str(out) for character in "\n\0"):
        raise SettingsError("--out cannot have a line break in it")
    csr_pem, key_pem = make_request("meshlog proxy")
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint, zone=None if endpoint else zone)) as client:
        # Sent again under no token: a second certificate for the same key is no harm.
        issued = client.post(_IDENTITY, {"node": node, "csr_pem": csr_pem.decode()}, repeatable=True)
    credentials = envoy.Credentials(certificate=issued["chain"], key=key_pem.decode(), authority=issued["ca"])
    frontends = [Endpoint(one["zone"], one["address"]) for one in issued["xds"]]
    directory = None if out is None else Path(os.path.abspath(out))
    tls = envoy.inline_tls(credentials) if directory is None else envoy.file_tls(str(directory))
    document = envoy.build(
        node_id=node, frontends=frontends, tls_context=tls, mode=mode, admin_port=admin_port, zone=zone
    )
    comments = [f"Envoy bootstrap of {issued['node']}, made by meshlog proxy bootstrap."]
    expires = f"certificate of {issued['node']} expires {issued['not_after']}"
    if directory is None:
        comments += [
            f"The {expires}: make a new one before, and restart Envoy with it.",
            "It holds the private key: keep it from others.",
        ]
        click.echo(envoy.to_yaml(document, comments), nl=False)
        note(f"the {expires}; --out DIR writes files that can be renewed without a restart")
        return
    files = [*envoy.secret_files(credentials, str(directory))]
    files.append(envoy.ProxyFile(name=envoy.BOOTSTRAP_FILE, text=envoy.to_yaml(document, comments)))
    for file in files:
        write_atomic(directory / file.name, file.text.encode(), PRIVATE if file.private else PUBLIC)
    note(f"wrote {directory / envoy.BOOTSTRAP_FILE}; the {expires}: run this again before")
