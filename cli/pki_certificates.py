"""`meshlog pki certificate`: what proxies show each other. Part of `cli.pki`."""

from __future__ import annotations

from typing import Any

import rich_click as click

from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options, read_text
from cli.output import columns, note, output_option, print_data
from cli.pki_calls import CERTIFICATES, authority_arn, certificate_arn, connected, post, seconds

_TITLES = {"domain": "DOMAIN", "status": "STATUS", "version": "VERSION", "not_after": "EXPIRES", "arn": "ARN"}


@click.group()
def certificate() -> None:
    """Certificates, as ACM had them."""


@certificate.command("create")
@click.argument("domain")
@data_dir_option
@endpoint_options
@click.option("--ca", "authority", required=True, help="Who issues it: an authority's name or ARN.")
@click.option("--name", "names", multiple=True, help="A further name: DNS (*.apps.local), an address, a URI.")
@click.option("--arn", help="The ARN that specifications name already.  [default: a new one]")
@click.option("--validity", metavar="DURATION", help="How long it is good for: 90d, 12h.  [default: 90d]")
@output_option()
def create(layout: Layout, *, endpoint: str | None, domain: str, names: tuple[str, ...], **options: Any) -> None:
    """Have an authority issue a certificate for DOMAIN: the name that callers of the virtual node verify.

    It is renewed by itself when a third of its life is left.
    """
    with connected(layout, endpoint) as client:
        body = {"domain": domain, "names": list(names), "authority": authority_arn(client, options["authority"])}
    made = post(layout, endpoint, CERTIFICATES, body | _wanted(options))
    _print(made, options["output"])
    note(f"next: name it in a listener: tls.certificate.acm.certificateArn: {made['arn']}")


@certificate.command("list")
@data_dir_option
@endpoint_options
@output_option()
def list_(layout: Layout, *, endpoint: str | None, output: str) -> None:
    """List the account's certificates and when they end."""
    with connected(layout, endpoint) as client:
        _print(client.get(CERTIFICATES)["certificates"], output)


@certificate.command("describe")
@click.argument("which", metavar="CERTIFICATE")
@data_dir_option
@endpoint_options
@output_option()
def describe(layout: Layout, *, endpoint: str | None, which: str, output: str) -> None:
    """Show CERTIFICATE (its domain or ARN): names, serial, issuer, and who shows it."""
    shown = _shown(layout, endpoint, which)
    print_data(shown, output, lambda: _told(shown), lambda: [shown["arn"]])


@certificate.command("export")
@click.argument("which", metavar="CERTIFICATE")
@data_dir_option
@endpoint_options
@click.option("--roots", is_flag=True, help="The roots to believe it by, instead of the chain.")
def export(layout: Layout, *, endpoint: str | None, which: str, roots: bool) -> None:
    """Print the public chain of CERTIFICATE (its domain or ARN) as PEM. Keys are never exported."""
    shown = _shown(layout, endpoint, which)
    click.echo("".join(shown["roots"]) if roots else shown["chain"], nl=False)


@certificate.command("rotate")
@click.argument("which", metavar="CERTIFICATE")
@data_dir_option
@endpoint_options
@click.option("--ca", "authority", help="Who issues it from now on.  [default: who issued it]")
@click.option("--validity", metavar="DURATION", help="How long it is good for.  [default: as long as before]")
@output_option()
def rotate(layout: Layout, *, endpoint: str | None, which: str, **options: Any) -> None:
    """Issue CERTIFICATE (its domain or ARN) anew now: another key and serial, the same names. No connection breaks."""
    with connected(layout, endpoint) as client:
        body = {"certificate": certificate_arn(client, which)}
        if options["authority"]:
            body["authority"] = authority_arn(client, options["authority"])
    _print(post(layout, endpoint, f"{CERTIFICATES}/rotate", body | _wanted(options)), options["output"])


@certificate.command("import")
@data_dir_option
@endpoint_options
@click.option("--certificate", "leaf", required=True, metavar="FILE", help="The certificate, PEM.")
@click.option("--private-key", required=True, metavar="FILE", help="Its key, PEM without a password; '-' is stdin.")
@click.option("--chain", metavar="FILE", help="The certificates above it, its issuer first, PEM.")
@click.option("--arn", help="The ARN that specifications name; one that is there is replaced.  [default: a new one]")
@output_option()
def import_(layout: Layout, *, endpoint: str | None, leaf: str, private_key: str, **options: Any) -> None:
    """Bring along a certificate with its key, such as one exported from ACM. It is yours to renew."""
    body = {"certificate": read_text(leaf), "private_key": read_text(private_key)}
    if options["chain"]:
        body["chain"] = read_text(options["chain"])
    _print(post(layout, endpoint, f"{CERTIFICATES}/import", body | _wanted(options)), options["output"])


@certificate.command("delete")
@click.argument("which", metavar="CERTIFICATE")
@data_dir_option
@endpoint_options
@output_option()
def delete(layout: Layout, *, endpoint: str | None, which: str, output: str) -> None:
    """Delete CERTIFICATE (its domain or ARN), when no specification names it."""
    with connected(layout, endpoint) as client:
        arn = certificate_arn(client, which)
    gone = post(layout, endpoint, f"{CERTIFICATES}/delete", {"certificate": arn})
    print_data(gone, output, lambda: f"{arn} is deleted", lambda: [arn])


def _wanted(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options.get("arn"):
        found["arn"] = options["arn"]
    if options.get("validity"):
        found["validity_s"] = seconds(options["validity"])
    return found


def _shown(layout: Layout, endpoint: str | None, which: str) -> dict[str, Any]:
    with connected(layout, endpoint) as client:
        return client.get(f"{CERTIFICATES}/show", {"certificate": certificate_arn(client, which)})


def _print(found: Any, output: str) -> None:
    each_one = found if isinstance(found, list) else [found]
    print_data(found, output, lambda: columns(each_one, _TITLES), lambda: [each["arn"] for each in each_one])


def _told(shown: dict[str, Any]) -> str:
    lines = [
        ("arn", shown["arn"]),
        ("names", ", ".join(shown["names"])),
        ("status", shown["status"]),
        ("authority", shown["authority"]),
        ("serial", shown["serial"]),
        ("version", shown["version"]),
        ("begins", shown["not_before"]),
        ("expires", shown["not_after"]),
        ("in use by", ", ".join(shown["in_use_by"])),
    ]
    return "\n".join(f"{title:<11}{'-' if value in (None, '') else value}" for title, value in lines)
