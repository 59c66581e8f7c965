"""Certificate authorities and certificates over HTTP: made, renewed, brought along, deleted; and no key anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509

from api.renewal import RenewalDuty
from cluster.issuing import Material, issue_certificate, make_root
from mesh.certificates import certificate_arns
from runtime.clock import SystemClock, SystemEntropy
from tests.api.conftest import ACCOUNT, REGION, Cloud, call
from tests.api.signing import Reply, ask

PKI = "/meshlog/v1/pki"
DAY_S = 24 * 3600
GIVEN = f"arn:aws:acm-pca:us-west-2:{ACCOUNT}:certificate-authority/11111111-2222-3333-4444-555555555555"
CLOCK, ENTROPY = SystemClock(), SystemEntropy()
PRIVATE = "PRIVATE KEY"


async def post(cloud: Cloud, path: str, **body: Any) -> Reply:
    return await ask(cloud.server, "POST", f"{PKI}/{path}", body)


async def made(cloud: Cloud, path: str, **body: Any) -> dict[str, Any]:
    reply = await post(cloud, path, **body)
    assert reply.status == 200, reply
    assert PRIVATE not in json.dumps(reply.document)
    document: dict[str, Any] = reply.document
    return document


async def certificate(cloud: Cloud, domain: str = "cart.apps.local", **body: Any) -> dict[str, Any]:
    authority = await made(cloud, "authorities", name=f"CA of {domain}")
    return await made(cloud, "certificates", domain=domain, authority=authority["arn"], **body)


def foreign(*names: str) -> tuple[Material, str]:
    root = make_root("elsewhere", CLOCK.now_us(), ENTROPY, 30 * DAY_S)
    return issue_certificate(root, names, CLOCK.now_us(), ENTROPY, 10 * DAY_S), root.root.certificate


async def test_an_authority_issues_what_it_is_asked_for(cloud: Cloud) -> None:
    authority = await made(cloud, "authorities", name="shop", validity_s=100 * DAY_S)
    assert authority["arn"].startswith(f"arn:aws:acm-pca:{REGION}:{ACCOUNT}:certificate-authority/")
    assert (authority["rotating"], authority["issuing"]) == (False, authority["roots"][0]["id"])
    issued = await made(
        cloud,
        "certificates",
        domain="cart.apps.local",
        names=["*.cart.apps.local", "10.0.0.7"],
        authority=authority["arn"],
        validity_s=7 * DAY_S,
    )
    assert issued["arn"].startswith(f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/")
    assert (issued["status"], issued["version"]) == ("issued", 1)
    assert issued["names"] == ["cart.apps.local", "*.cart.apps.local", "10.0.0.7"]
    shown = (await ask(cloud.server, "GET", f"{PKI}/certificates/show?certificate={issued['arn']}")).document
    leaf = x509.load_pem_x509_certificate(shown["chain"].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority["roots"][0]["certificate"].encode()))
    assert shown["roots"] == [authority["roots"][0]["certificate"]]
    assert PRIVATE not in json.dumps(shown)
    listed = await ask(cloud.server, "GET", f"{PKI}/certificates")
    assert [each["arn"] for each in listed.document["certificates"]] == [issued["arn"]]
    (counted,) = (await ask(cloud.server, "GET", f"{PKI}/authorities")).document["authorities"]
    assert counted["certificates"] == 1


async def test_arns_that_specifications_name_already_can_be_given(cloud: Cloud) -> None:
    assert (await made(cloud, "authorities", name="old", arn=GIVEN))["arn"] == GIVEN
    again = await post(cloud, "authorities", name="other", arn=GIVEN)
    assert (again.status, "exists already" in again.document["message"]) == (409, True)
    arn = f"arn:aws:acm:us-west-2:{ACCOUNT}:certificate/old"
    assert (await made(cloud, "certificates", domain="a.local", authority=GIVEN, arn=arn))["arn"] == arn


async def test_a_certificate_is_issued_anew_with_its_names_and_its_length_of_life(cloud: Cloud) -> None:
    first = await certificate(cloud, names=["b.local"], validity_s=7 * DAY_S)
    second = await made(cloud, "certificates/rotate", certificate=first["arn"])
    assert (second["version"], second["names"]) == (2, first["names"])
    assert second["serial"] != first["serial"]
    long, short = (each["not_after"][:10] for each in (second, first))
    assert long == short, "both are good for a week"


async def test_what_comes_from_acm_is_brought_along_and_later_issued_here(cloud: Cloud) -> None:
    """An exported certificate under its own ARN; an authority that is believed first and rotated to one of ours."""
    leaf, root = foreign("old.apps.local")
    arn = f"arn:aws:acm:us-west-2:{ACCOUNT}:certificate/old"
    brought = {"certificate": leaf.chain, "chain": root, "private_key": leaf.secret, "arn": arn}
    assert (await made(cloud, "certificates/import", **brought))["status"] == "imported"
    assert (await made(cloud, "certificates/import", **brought))["version"] == 2
    refused = await post(cloud, "certificates/rotate", certificate=arn)
    assert (refused.status, "was imported" in refused.document["message"]) == (400, True)
    believed = await made(cloud, "authorities", name="ACM PCA", arn=GIVEN, certificate=root)
    assert believed["issuing"] is None
    refused = await post(cloud, "certificates/rotate", certificate=arn, authority=GIVEN)
    assert (refused.status, "ca rotate" in refused.document["message"]) == (409, True)
    assert (await made(cloud, "authorities/rotate", authority=GIVEN))["rotating"] is True
    refused = await post(cloud, "certificates/rotate", certificate=arn, authority=GIVEN)
    assert "believed everywhere" in refused.document["message"]
    duty = RenewalDuty(cloud.server.ports, cloud.server.app.state.commands, 1, 0)
    assert await duty.round()
    ours = await made(cloud, "certificates/rotate", certificate=arn, authority=GIVEN)
    assert (ours["status"], ours["authority"], ours["names"]) == ("issued", GIVEN, ["old.apps.local"])
    assert await duty.round()
    (authority,) = (await ask(cloud.server, "GET", f"{PKI}/authorities")).document["authorities"]
    assert [each["id"] for each in authority["roots"]] == [authority["issuing"]], "AWS's root is believed no more"


async def test_what_is_in_use_stays(cloud: Cloud) -> None:
    issued = await certificate(cloud)
    client = cloud.server.client()
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": issued["arn"]}}}
    spec = {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}, "tls": tls}]}
    await call(client, "create_mesh", meshName="m")
    await call(client, "create_virtual_gateway", meshName="m", virtualGatewayName="g", spec=spec)
    assert list(certificate_arns(spec)) == [issued["arn"]]
    refused = await post(cloud, "certificates/delete", certificate=issued["arn"])
    assert refused.status == 409
    assert refused.headers["x-amzn-errortype"].startswith("ResourceInUseException")
    assert "mesh/m/virtualGateway/g" in refused.document["message"]
    shown = (await ask(cloud.server, "GET", f"{PKI}/certificates/show?certificate={issued['arn']}")).document
    assert shown["in_use_by"] == ["mesh/m/virtualGateway/g"]
    refused = await post(cloud, "authorities/retire", authority=issued["authority"])
    assert refused.status == 409
    await call(client, "delete_virtual_gateway", meshName="m", virtualGatewayName="g")
    assert (await made(cloud, "certificates/delete", certificate=issued["arn"]))["deleted"] is True
    assert (await made(cloud, "authorities/retire", authority=issued["authority"]))["deleted"] is True


async def test_a_repeated_call_makes_nothing_twice(cloud: Cloud) -> None:
    body = {"name": "shop", "clientToken": "once"}
    first, second = [await made(cloud, "authorities", **body) for _ in range(2)]
    assert first["arn"] == second["arn"]
    issue = {"domain": "a.local", "authority": first["arn"], "clientToken": "once-more"}
    one, two = [await made(cloud, "certificates", **issue) for _ in range(2)]
    assert (one["arn"], one["serial"]) == (two["arn"], two["serial"])


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("authorities", {"name": ""}, 400, "name"),
        ("authorities", {"name": "a", "validity_s": 5}, 400, "validity_s"),
        ("authorities", {"name": "a", "certificate": "x"}, 400, "certificate: is no PEM"),
        ("authorities", {"name": "a", "certificate": "x", "validity_s": 60}, 400, "has its own"),
        ("authorities", {"name": "a", "arn": "x"}, 400, "acm-pca"),
        ("authorities/rotate", {"authority": GIVEN}, 404, "pki ca list"),
        ("certificates", {"domain": "a b", "authority": GIVEN}, 400, "names: 'a b'"),
        ("certificates", {"domain": "a.b", "authority": GIVEN}, 404, "pki ca list"),
        ("certificates/rotate", {"certificate": "x"}, 404, "certificate list"),
        ("certificates/delete", {"certificate": GIVEN}, 400, "certificate/<id>"),
        ("certificates/import", {"certificate": "x", "private_key": "the key"}, 400, "certificate: is no PEM"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(
    cloud: Cloud, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    reply = await post(cloud, path, **body)
    assert reply.status == status, reply
    assert said in reply.document["message"]
    assert "the key" not in json.dumps(reply.document)


async def test_no_private_key_is_told_by_anything_that_tells_what_happened(cloud: Cloud) -> None:
    """The log of events, strong and stale, the trail of calls (refused ones too), the status, errors."""
    issued = await certificate(cloud, clientToken="t")
    await made(cloud, "certificates/rotate", certificate=issued["arn"])
    leaf, root = foreign("old.apps.local")
    await made(cloud, "certificates/import", certificate=leaf.chain, chain=root, private_key=leaf.secret)
    refused = await post(cloud, "certificates/import", certificate=leaf.chain, chain="garbage", private_key=leaf.secret)
    assert refused.status == 400
    told = [json.dumps(refused.document)]
    for path in ("events", "events?consistency=stale", "audit", "status", "resources?kind=mesh"):
        reply = await ask(cloud.server, "GET", f"/meshlog/v1/{path}")
        assert reply.status == 200, reply
        told.append(json.dumps(reply.document))
    secret = leaf.secret.splitlines()[1]
    keys = [key.secret.splitlines()[1] for key in cloud.server.replica.state.authority_keys.values()]
    keys += [each.secret.splitlines()[1] for each in cloud.server.replica.state.certificates.values()]
    assert len(keys) == 3
    for text in told:
        assert PRIVATE not in text
        assert not any(key in text for key in (secret, *keys))
    events = json.loads(told[1])["events"]
    by_type = {each["type"]: each for each in events}
    assert by_type["CertificateIssued"]["data"]["secret"] == by_type["AuthorityKeyKept"]["data"]["secret"] == "(secret)"
    assert by_type["CertificateIssued"]["summary"].startswith(issued["arn"])
