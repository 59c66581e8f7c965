"""`meshlog pki`: the certificate authorities and certificates that stand in for ACM's, over HTTP. No key is printed.

`cli.pki_certificates` has the certificates.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options, read_text
from cli.output import columns, note, output_option, print_data
from cli.pki_calls import AUTHORITIES, authority_arn, connected, post, seconds
from cli.pki_certificates import certificate

_TITLES = {
    "name": "NAME",
    "roots_said": "ROOTS",
    "certificates": "CERTIFICATES",
    "expires": "EXPIRES",
    "arn": "ARN",
}


@click.group()
def pki() -> None:
    """Certificates for TLS between proxies: what `acm` ARNs in specifications name."""


@pki.group()
def ca() -> None:
    """Certificate authorities, as ACM Private CA had them."""


pki.add_command(certificate)


@ca.command("create")
@click.argument("name")
@data_dir_option
@endpoint_options
@click.option("--arn", help="The ARN that specifications name already.  [default: a new one]")
@click.option("--validity", metavar="DURATION", help="How long its root is good for: 3650d, 12h.  [default: 3650d]")
@click.option(
    "--certificate",
    "root",
    metavar="FILE",
    help="A root from elsewhere (PEM), which is only believed; `meshlog pki ca rotate` replaces it by one of ours.",
)
@output_option()
def create(layout: Layout, *, endpoint: str | None, name: str, output: str, **options: str | None) -> None:
    """Make a certificate authority called NAME."""
    body: dict[str, Any] = {"name": name}
    if options["arn"]:
        body["arn"] = options["arn"]
    if options["validity"]:
        body["validity_s"] = seconds(options["validity"])
    if options["root"]:
        body["certificate"] = read_text(options["root"])
    made = post(layout, endpoint, AUTHORITIES, body)
    _print(made, output)
    note(f"next: `meshlog pki certificate create DOMAIN --ca {made['name']}`")


@ca.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the account's authorities: how many roots of each are believed, and when the newest ends."""
    with connected(layout, endpoint) as client:
        _print(client.get(AUTHORITIES)["authorities"], output)


@ca.command("rotate")
@click.argument("authority")
@data_dir_option
@endpoint_options
@click.option("--validity", metavar="DURATION", help="How long the new root is good for.  [default: 3650d]")
@output_option()
def rotate(layout: Layout, *, endpoint: str | None, authority: str, validity: str | None, output: str) -> None:
    """Give AUTHORITY (its name or ARN) a new root, without a failed request.

    The new root is believed beside the old one first; some minutes later certificates are issued anew under it; and the
    old root goes when nothing is under it. `meshlog pki ca list` shows how far it is.
    """
    with connected(layout, endpoint) as client:
        body: dict[str, Any] = {"authority": authority_arn(client, authority)}
    if validity:
        body["validity_s"] = seconds(validity)
    _print(post(layout, endpoint, f"{AUTHORITIES}/rotate", body), output)


@ca.command("retire")
@click.argument("authority")
@data_dir_option
@endpoint_options
@output_option()
def retire(layout: Layout, *, endpoint: str | None, authority: str, output: str) -> None:
    """Delete AUTHORITY (its name or ARN) and its keys, when nothing that it issued and no specification needs it."""
    with connected(layout, endpoint) as client:
        arn = authority_arn(client, authority)
    gone = post(layout, endpoint, f"{AUTHORITIES}/retire", {"authority": arn})
    print_data(gone, output, lambda: f"{arn} is retired", lambda: [arn])


def _print(found: Any, output: str) -> None:
    each_one = found if isinstance(found, list) else [found]
    rows = [{**each, "roots_said": _roots(each), "expires": each["roots"][-1]["not_after"]} for each in each_one]
    print_data(found, output, lambda: columns(rows, _TITLES), lambda: [each["arn"] for each in each_one])


def _roots(authority: dict[str, Any]) -> str:
    if authority["rotating"]:
        return f"{len(authority['roots'])}, being rotated"
    return "1" if authority["issuing"] else "1, only believed"
