"""`meshlog pki` against a real API server: made, named as people name it, brought along, exported, deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from api.renewal import RenewalDuty
from tests.api.conftest import ACCOUNT, Cloud, cloud
from tests.api.test_pki import foreign
from tests.cli.shell import Shell, use

__all__ = ["cloud"]

GIVEN = f"arn:aws:acm:us-west-2:{ACCOUNT}:certificate/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def shell(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return use(cloud, monkeypatch)


async def test_a_certificate_is_made_looked_at_renewed_and_deleted(shell: Shell) -> None:
    made = await shell.run("pki", "ca", "create", "shop", "--validity", "100d", "-o", "json")
    assert "next: `meshlog pki certificate create DOMAIN --ca shop`" in made.err
    issue = ("pki", "certificate", "create", "cart.apps.local", "--ca", "shop", "--name", "*.cart.apps.local")
    first = await shell.run(*issue, "--validity", "7d", "-o", "json")
    assert first.data["arn"] in first.err
    told = (await shell.run("pki", "certificate", "describe", "cart.apps.local")).out
    assert "names      cart.apps.local, *.cart.apps.local" in told
    assert f"authority  {made.data['arn']}" in told
    again = (await shell.run("pki", "certificate", "rotate", "cart.apps.local", "-o", "json")).data
    assert (again["version"], again["arn"]) == (2, first.data["arn"])
    chain = (await shell.run("pki", "certificate", "export", first.data["arn"])).out
    roots = (await shell.run("pki", "certificate", "export", "cart.apps.local", "--roots")).out
    leaf = x509.load_pem_x509_certificate(chain.encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(roots.encode()))
    assert f"{leaf.serial_number:x}" == again["serial"]
    refused = await shell.run("pki", "ca", "retire", "shop", code=5)
    assert first.data["arn"] in refused.err
    await shell.run("pki", "certificate", "delete", "cart.apps.local")
    assert "is retired" in (await shell.run("pki", "ca", "retire", "shop")).out
    assert (await shell.run("pki", "certificate", "list", "-o", "json")).data == []


async def test_a_rotation_is_seen_in_the_list(shell: Shell) -> None:
    await shell.run("pki", "ca", "create", "shop")
    await shell.run("pki", "ca", "rotate", "shop")
    assert "2, being rotated" in (await shell.run("pki", "ca", "list")).out
    server = shell.cloud.server
    duty = RenewalDuty(server.ports, server.app.state.commands, 1, 0)
    while await duty.round():
        pass
    assert "being rotated" not in (await shell.run("pki", "ca", "list")).out


async def test_what_was_exported_from_acm_is_brought_along_under_its_arn(shell: Shell, tmp_path: Path) -> None:
    leaf, root = foreign("old.apps.local")
    for name, text in (("leaf.pem", leaf.chain), ("chain.pem", root), ("key.pem", leaf.secret)):
        (tmp_path / name).write_text(text)
    files = [f"--{option}={tmp_path / name}.pem" for option, name in (("certificate", "leaf"), ("chain", "chain"))]
    brought = await shell.run(
        "pki", "certificate", "import", *files, f"--private-key={tmp_path / 'key.pem'}", "--arn", GIVEN, "-o", "json"
    )
    assert (brought.data["arn"], brought.data["status"]) == (GIVEN, "imported")
    assert "PRIVATE KEY" not in brought.out + brought.err
    made = await shell.run("pki", "ca", "create", "ACM PCA", f"--certificate={tmp_path / 'chain.pem'}")
    assert "only believed" in made.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ca", "create", "a", "--validity", "soon"), 2, "'soon' is no length of time"),
        (("ca", "rotate", "none"), 4, "there is no certificate authority 'none'"),
        (("certificate", "describe", "none"), 4, "there is no certificate 'none'"),
        (("certificate", "create", "a.b", "--ca", "none"), 4, "meshlog pki ca list"),
        (("certificate", "import", "--certificate", "/nowhere", "--private-key", "/nowhere"), 2, "/nowhere"),
    ],
)
async def test_what_is_wrong_is_said(shell: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in (await shell.run("pki", *arguments, code=code)).err


async def test_a_domain_of_two_certificates_is_asked_about(shell: Shell) -> None:
    await shell.run("pki", "ca", "create", "shop")
    for _ in range(2):
        await shell.run("pki", "certificate", "create", "cart.apps.local", "--ca", "shop")
    assert "say which by its ARN" in (await shell.run("pki", "certificate", "rotate", "cart.apps.local", code=2)).err
