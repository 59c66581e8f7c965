"""`meshlog proxy`: what connects an Envoy to the mesh."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import rich_click as click

from cli.client import ApiClient, find_target
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import note
from cli.proxy_config import config
from cli.proxy_observability import observability_options
from identity.node_id import parse_node_id
from mesh.errors import BadRequest, SettingsError
from proxy import bootstrap as envoy
from proxy.observability import Settings, parts
from proxy.parts import merge
from runtime.files import PRIVATE, PUBLIC, write_atomic
from runtime.settings import DEFAULT_REGION, Endpoint, split_address

_IDENTITY = "/meshlog/v1/proxies/identity"


@click.group()
def proxy() -> None:
    """Connect Envoys to the mesh."""


proxy.add_command(config)


@proxy.command()
@data_dir_option
@endpoint_options
@click.option(
    "--node",
    metavar="mesh/<mesh>/virtualGateway|virtualNode/<name>",
    help="The resource that the Envoy stands for.  [required, but for --from-env with APPMESH_RESOURCE_ARN]",
)
@click.option(
    "--mode", type=click.Choice(list(envoy.MODES)), default="delta", show_default=True, help="Variant of xDS."
)
@click.option("--zone", envvar="MESHLOG_ZONE", help="The Envoy's own zone: its frontends are tried first.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write a directory instead of printing.")
@click.option(
    "--sign", is_flag=True, help="No certificate: the Envoy signs, with the access key in its own environment."
)
@click.option(
    "--frontend",
    "frontends",
    multiple=True,
    metavar="ZONE=HOST:PORT",
    help="With --sign, away from the cluster's directory.",
)
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="With --sign: what verifies frontends."
)
@observability_options
def bootstrap(
    layout: Layout,
    *,
    endpoint: str | None,
    node: str | None,
    observability: Settings,
    mode: str,
    zone: str | None,
    out: Path | None,
    sign: bool,
    frontends: tuple[str, ...],
    ca: Path | None,
) -> None:
    """Print a complete Envoy bootstrap, with a new certificate for the node in it.

    With --out, certificates are files that Envoy reads again when they are replaced: run the same command again before
    they expire, and no Envoy has to restart.

    With --sign there is no certificate and nothing secret in it: the Envoy signs its streams with AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY (or AWS_SHARED_CREDENTIALS_FILE) of its own environment, a key that Meshlog issued.

    Statistics and traces are switched on by flags, or by the variables of App Mesh's Envoy image with --from-env.
    """
    if node is None:
        raise SettingsError(
            "which resource the Envoy stands for is not said: write --node mesh/<mesh>/virtualNode/<name>"
        )
    try:
        named = parse_node_id(node, "0" * 12)
    except BadRequest as error:
        raise SettingsError(f"--node: {error.message}") from error
    admin_port = observability.admin_port or envoy.ADMIN_PORT
    # As the image read it: a tag and a trace say shop@<owner> where the node does.
    told = parts(observability, named._replace(mesh=node.split("/")[1]), admin_port)

    def document(frontends: list[Endpoint], tls: envoy.Document, signing_region: str | None = None) -> envoy.Document:
        built = envoy.build(
            node_id=node, frontends=frontends, tls_context=tls, mode=mode, admin_port=admin_port, zone=zone,
            signing_region=signing_region,
        )  # fmt: skip
        return merge(built, *told)

    if out is not None and any(character in str(out) for character in "\n\0"):
        raise SettingsError("--out cannot have a line break in it")
    if sign:
        addresses, authority, region = _to_sign_for(layout, frontends, ca)
        tls = envoy.verifying_tls(authority)
        signing = document(addresses, tls, region)
        return _write_signing(envoy.to_yaml(signing, [f"Envoy bootstrap of {node} that signs; nothing secret."]), out)
    if frontends or ca is not None:
        raise SettingsError("--frontend and --ca belong to --sign: a certificate comes with the frontends' addresses")
    return _with_certificate(layout, document, endpoint=endpoint, node=node, zone=zone, out=out)


def _to_sign_for(layout: Layout, frontends: tuple[str, ...], ca: Path | None) -> tuple[list[Endpoint], str, str]:
    """Where an Envoy that signs connects, what it verifies that by (PEM), and the region to sign for."""
    region = os.environ.get("AWS_REGION", DEFAULT_REGION)
    if frontends and ca is not None:
        return [_endpoint(text) for text in frontends], ca.read_text(encoding="ascii"), region
    if frontends or ca is not None:
        raise SettingsError(
            "away from the cluster's directory --sign needs both --frontend ZONE=HOST:PORT and --ca FILE"
        )
    from cluster.pki import ROLES_ROOT  # noqa: PLC0415

    cluster = layout.load()
    addresses = [Endpoint(process.zone, process.signed) for process in cluster.of_role("frontend") if process.signed]
    if not addresses:
        raise SettingsError("no frontend takes signed streams: set signed_listen and apis in each zone's frontend.toml")
    return addresses, layout.authority(ROLES_ROOT).certificate.read_text(encoding="ascii"), cluster.region


def _endpoint(text: str) -> Endpoint:
    zone, equals, address = text.partition("=")
    if not equals:
        raise SettingsError(
            f"--frontend '{text}' is not ZONE=HOST:PORT; write for example --frontend z1=10.0.0.11:7419"
        )
    split_address(address, "--frontend")
    return Endpoint(zone, address)


def _write_signing(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    write_atomic(out / envoy.BOOTSTRAP_FILE, text.encode(), PUBLIC)
    note(f"wrote {out / envoy.BOOTSTRAP_FILE}")


def _with_certificate(
    layout: Layout,
    document: Callable[[list[Endpoint], envoy.Document], envoy.Document],
    *,
    endpoint: str | None,
    node: str,
    zone: str | None,
    out: Path | None,
) -> None:
    from cluster.pki import make_request  # noqa: PLC0415

    csr_pem, key_pem = make_request("meshlog proxy")
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint, zone=None if endpoint else zone)) as client:
        # Sent again under no token: a second certificate for the same key is no harm.
        issued = client.post(_IDENTITY, {"node": node, "csr_pem": csr_pem.decode()}, repeatable=True)
    credentials = envoy.Credentials(certificate=issued["chain"], key=key_pem.decode(), authority=issued["ca"])
    frontends = [Endpoint(one["zone"], one["address"]) for one in issued["xds"]]
    directory = None if out is None else Path(os.path.abspath(out))
    tls = envoy.inline_tls(credentials) if directory is None else envoy.file_tls(str(directory))
    made = document(frontends, tls)
    comments = [f"Envoy bootstrap of {issued['node']}, made by meshlog proxy bootstrap."]
    expires = f"certificate of {issued['node']} expires {issued['not_after']}"
    if directory is None:
        comments += [
            f"The {expires}: make a new one before, and restart Envoy with it.",
            "It holds the private key: keep it from others.",
        ]
        click.echo(envoy.to_yaml(made, comments), nl=False)
        note(f"the {expires}; --out DIR writes files that can be renewed without a restart")
        return
    files = [*envoy.secret_files(credentials, str(directory))]
    files.append(envoy.ProxyFile(name=envoy.BOOTSTRAP_FILE, text=envoy.to_yaml(made, comments)))
    for file in files:
        write_atomic(directory / file.name, file.text.encode(), PRIVATE if file.private else PUBLIC)
    note(f"wrote {directory / envoy.BOOTSTRAP_FILE}; the {expires}: run this again before")
