"""ACM's ARNs in specifications: what a node shows and believes comes as secrets of ours, named by the ARNs."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.certificates import Root
from mesh.commands import Command, Context
from mesh.commands_pki import (
    CreateAuthority,
    DropRoot,
    ImportCertificate,
    IssueCertificate,
    PromoteRoot,
    RotateAuthority,
)
from mesh.decide import decide
from mesh.events import AUTHORITY_KEY_KEPT, LEVEL, MESH_SHARED, RESOURCE_CREATED
from projector.envoy.changes import changed_keys
from projector.envoy.compiler import Compiler
from projector.envoy.protos import tls as tls_messages
from projector.snapshot import TYPE_CLUSTER, TYPE_LISTENER, TYPE_SECRET, NodeSnapshot
from tests.mesh.pki_worlds import DAY_US
from tests.projector.envoy.meshes import (
    ACCOUNT,
    RENDERER,
    Log,
    Spec,
    by_node,
    by_router,
    cloud_map_node,
    compiled,
    gateway,
    gateway_id,
    gateway_route,
    key,
    listener,
    node,
    node_id,
    route,
    router,
)
from tests.projector.envoy.readable import cluster_references, of_type

CA, OTHER_CA = (f"arn:aws:acm-pca:eu-central-1:{ACCOUNT}:certificate-authority/{name}" for name in ("one", "two"))
CERT = f"arn:aws:acm:eu-central-1:{ACCOUNT}:certificate/stock"
CONSUMER = "999999999999"
STOCK = "cds_egress_shop_stock_http_8080"
STOCK_ROUTE = "cds_egress_shop_stock_unavailable"
OVER_ADS = {"ads": {}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"}


def root(name: str) -> Root:
    return Root(name, f"root {name}\n", 0, 3650 * DAY_US)


def issued(names: tuple[str, ...] = ("stock.shop.internal",), under: str = "one-1", **fields: Any) -> IssueCertificate:
    whole: dict[str, Any] = {
        "arn": CERT,
        "domain": names[0],
        "names": names,
        "authority": CA,
        "root": under,
        "chain": f"chain under {under}\n",
        "secret": f"key under {under}\n",
        "serial": "01",
        "not_before_us": 0,
        "not_after_us": 90 * DAY_US,
        "create": True,
    }
    return IssueCertificate(**{**whole, **fields})


class Shop(Log):
    """A caller, and a target that it calls; with authorities and a certificate."""

    def __init__(self, *commands: Command) -> None:
        super().__init__(
            (key("virtualNode", "stock"), node(host="stock.shop.internal")),
            (key("virtualNode", "caller"), node(backends=("stock.shop.local",))),
            (key("virtualService", "stock.shop.local"), by_node("stock")),
        )
        for command in commands:
            self.do(command)

    def do(self, command: Command, account: str = ACCOUNT) -> None:
        for event in decide(self.state, command, Context(account, "", "", level=LEVEL)).events:
            self._fold(event.type, event.data)

    def stock(self, *, mode: str = "STRICT", host: str = "stock.shop.internal", arn: str = CERT, **tls: Any) -> None:
        certificate = {"acm": {"certificateArn": arn}}
        shown = listener(8080, tls={"mode": mode, "certificate": certificate, **tls})
        self.update(key("virtualNode", "stock"), node(shown, host=host))

    def caller(self, *arns: str, names: tuple[str, ...] = (), **tls: Any) -> None:
        validation: dict[str, Any] = {"trust": {"acm": {"certificateAuthorityArns": list(arns)}}}
        if names:
            validation["subjectAlternativeNames"] = {"match": {"exact": list(names)}}
        policy = {"tls": {"validation": validation, **tls}}
        spec = {**node(backends=("stock.shop.local",)), "backendDefaults": {"clientPolicy": policy}}
        self.update(key("virtualNode", "caller"), spec)

    def of(self, name: str, previous: NodeSnapshot | None = None) -> NodeSnapshot:
        return compiled(self, node_id(name), previous)


@pytest.fixture
def shop() -> Shop:
    made = Shop(CreateAuthority(CA, "one", root("one-1"), "ca key one"), issued())
    made.do(CreateAuthority(OTHER_CA, "two", root("two-1"), "ca key two"))
    made.stock()
    return made


def secrets(snapshot: NodeSnapshot) -> dict[str, dict[str, Any]]:
    return {
        name: tls_messages.Secret.parse(secret.body).to_dict() for name, secret in snapshot.of_type(TYPE_SECRET).items()
    }


def roots(snapshot: NodeSnapshot, name: str) -> list[str]:
    inline = secrets(snapshot)[name]["validationContext"]["trustedCa"]["inlineString"]
    return [line for line in inline.splitlines() if line]


def ingress_tls(snapshot: NodeSnapshot) -> dict[str, Any]:
    (found,) = (each for name, each in of_type(snapshot, TYPE_LISTENER).items() if name.startswith("lds_ingress"))
    context: dict[str, Any] = found["filterChains"][0]["transportSocket"]["typedConfig"]
    return context


def spoken(snapshot: NodeSnapshot) -> dict[str, Any]:
    context: dict[str, Any] = of_type(snapshot, TYPE_CLUSTER)[STOCK]["transportSocket"]["typedConfig"]
    common: dict[str, Any] = context["commonTlsContext"]
    return common


def test_a_listeners_certificate_is_a_secret_that_its_arn_names(shop: Shop) -> None:
    snapshot = shop.of("stock")
    assert snapshot.alarms == ()
    common = ingress_tls(snapshot)["commonTlsContext"]
    assert common["tlsCertificateSdsSecretConfigs"] == [{"name": CERT, "sdsConfig": OVER_ADS}]
    pair = {
        "certificateChain": {"inlineString": "chain under one-1\n"},
        "privateKey": {"inlineString": "key under one-1\n"},
    }
    assert secrets(snapshot) == {CERT: {"name": CERT, "tlsCertificate": pair}}


def test_a_permissive_listener_and_a_gateway_show_it_too(shop: Shop) -> None:
    shop.stock(mode="PERMISSIVE")
    assert list(secrets(shop.of("stock"))) == [CERT]
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": CERT}}}
    shop.create(key("virtualGateway", "edge"), gateway(listener(8088, tls=tls)))
    shop.create(key("gatewayRoute", "all", parent="edge"), gateway_route("stock.shop.local"))
    snapshot = compiled(shop, gateway_id())
    assert ingress_tls(snapshot)["commonTlsContext"]["tlsCertificateSdsSecretConfigs"][0]["name"] == CERT
    assert set(secrets(snapshot)) == {CERT, CA}, "its own certificate, and whom it believes as a caller"


def test_a_key_goes_to_the_node_that_shows_it_and_to_nobody_else(shop: Shop) -> None:
    shop.caller(CA)
    bytes_of = {who: b"".join(each.body for each in shop.of(who).resources.values()) for who in ("stock", "caller")}
    assert b"key under" in bytes_of["stock"]
    assert b"key under" not in bytes_of["caller"]
    assert b"ca key" not in bytes_of["stock"] + bytes_of["caller"]


def test_without_a_policy_a_certificate_of_ours_is_validated_by_its_issuer(shop: Shop) -> None:
    snapshot = shop.of("caller")
    assert snapshot.alarms == ()
    combined = spoken(snapshot)["combinedValidationContext"]
    assert combined["validationContextSdsSecretConfig"] == {"name": CA, "sdsConfig": OVER_ADS}
    names = [{"sanType": "DNS", "matcher": {"exact": "stock.shop.internal"}}]
    assert combined["defaultValidationContext"] == {"matchTypedSubjectAltNames": names}
    assert roots(snapshot, CA) == ["root one-1"]


def test_a_policy_believes_all_the_authorities_that_it_names(shop: Shop) -> None:
    shop.caller(OTHER_CA, CA, names=("stock.shop.internal", "other"))
    snapshot = shop.of("caller")
    assert snapshot.alarms == ()
    assert roots(snapshot, f"{OTHER_CA},{CA}") == ["root two-1", "root one-1"]
    matchers = spoken(snapshot)["combinedValidationContext"]["defaultValidationContext"]["matchTypedSubjectAltNames"]
    assert [each["matcher"]["exact"] for each in matchers] == ["stock.shop.internal", "other"]


def test_mutual_tls_mixes_certificates_of_ours_with_files_and_secrets_of_the_proxies(shop: Shop) -> None:
    shop.stock(validation={"trust": {"sds": {"secretName": "clients"}}})
    shop.caller(CA, certificate={"file": {"certificateChain": "/c", "privateKey": "/k"}})
    taken = ingress_tls(shop.of("stock"))
    assert taken["requireClientCertificate"] is True
    combined = taken["commonTlsContext"]["combinedValidationContext"]
    assert "apiConfigSource" in combined["validationContextSdsSecretConfig"]["sdsConfig"], "the proxy's own socket"
    assert set(secrets(shop.of("stock"))) == {CERT}, "what is the customer's own is not ours to serve"
    assert spoken(shop.of("caller"))["tlsCertificates"][0]["certificateChain"] == {"filename": "/c"}


def test_a_renewal_changes_the_secret_and_nothing_else(shop: Shop) -> None:
    compiler = Compiler(RENDERER)
    before = {name: compiler.compile(shop.state, node_id(name)) for name in ("stock", "caller")}
    begun = len(shop.events)
    shop.do(issued(create=False, chain="a new chain\n", secret="a new key\n"))
    affected = compiler.affected(changed_keys(shop.events[begun:]))
    assert node_id("stock") in affected
    for name, was in before.items():
        now = compiler.compile(shop.state, node_id(name))
        assert was is not None
        assert now is not None
        changed = {each for each in now.resources if now.resources[each].version != was.resources[each].version}
        assert changed == ({(TYPE_SECRET, CERT)} if name == "stock" else set())


def test_while_an_authority_is_rotated_both_its_roots_are_believed(shop: Shop) -> None:
    shop.caller(CA)
    cluster = shop.of("caller").resources[TYPE_CLUSTER, STOCK].version
    shop.do(RotateAuthority(CA, root("one-2"), "ca key three"))
    assert roots(shop.of("caller"), CA) == ["root one-1", "root one-2"]
    shop.do(PromoteRoot(CA, "one-2"))
    shop.do(issued(create=False, under="one-2"))
    assert roots(shop.of("caller"), CA) == ["root one-1", "root one-2"]
    shop.do(DropRoot(CA, "one-1"))
    assert roots(shop.of("caller"), CA) == ["root one-2"]
    assert shop.of("caller").resources[TYPE_CLUSTER, STOCK].version == cluster
    assert shop.of("caller").alarms == ()


def test_until_its_certificate_exists_a_listener_is_closed_and_its_callers_send_nothing_in_plain_text() -> None:
    shop = Shop()
    shop.stock()
    compiler = Compiler(RENDERER)
    closed = compiler.compile(shop.state, node_id("stock"))
    assert closed is not None
    assert not [name for name in of_type(closed, TYPE_LISTENER) if name.startswith("lds_ingress")]
    (alarm,) = closed.alarms
    assert f"spec.listeners[0].tls.certificate is {CERT}, which does not exist" in alarm
    assert "plaintext is not accepted instead" in alarm
    caller = shop.of("caller")
    assert STOCK not in of_type(caller, TYPE_CLUSTER)
    assert STOCK_ROUTE in cluster_references(caller)
    begun = len(shop.events)
    shop.do(CreateAuthority(CA, "one", root("one-1"), "ca key one"))
    shop.do(issued())
    assert node_id("stock") in compiler.affected(changed_keys(shop.events[begun:]))
    assert shop.of("stock").alarms == shop.of("caller").alarms == ()


def test_authorities_that_are_not_there_are_told_and_the_others_believed(shop: Shop) -> None:
    shop.caller(CA, CA + "-gone")
    snapshot = shop.of("caller")
    assert roots(snapshot, CA) == ["root one-1"]
    (alarm,) = snapshot.alarms
    assert f"validation.trust has {CA}-gone, which does not exist" in alarm
    assert alarm.endswith("the others are believed")
    shop.caller(CA + "-gone")
    snapshot = shop.of("caller")
    assert STOCK_ROUTE in cluster_references(snapshot)
    assert "plaintext is not sent instead" in snapshot.alarms[0]


@pytest.mark.parametrize("arn", ["nonsense", CA, f"arn:aws:acm:eu-central-1:{CONSUMER}:certificate/theirs"])
def test_what_is_no_certificate_of_the_nodes_account_is_not_shown(shop: Shop, arn: str) -> None:
    shop.stock(arn=arn)
    snapshot = shop.of("stock")
    assert secrets(snapshot) == {}
    assert "tls.certificate is " in snapshot.alarms[0]


def test_a_node_in_a_shared_mesh_shows_certificates_of_the_account_that_made_it(shop: Shop) -> None:
    """And believes the authorities of any account that takes part in the mesh."""
    theirs, ca = CERT.replace(ACCOUNT, CONSUMER), CA.replace(ACCOUNT, CONSUMER)
    made = issued(("stock.shop.internal",), "two-9", arn=theirs, authority=ca)
    for command in (CreateAuthority(ca, "theirs", root("two-9"), "ca key nine"), made):
        shop.do(command, CONSUMER)
    spec = node(listener(8080, tls={"mode": "STRICT", "certificate": {"acm": {"certificateArn": theirs}}}), host="x.y")
    owned = {"key": list(key("virtualNode", "theirs")), "uid": "u", "owner": CONSUMER, "spec": spec, "tags": {}}
    shop._fold(RESOURCE_CREATED, owned)
    shop.caller(ca, CA)
    assert "the mesh is not shared with it" in " ".join(shop.of("caller").alarms)
    shop._fold(MESH_SHARED, {"account": ACCOUNT, "mesh": "shop", "with": [CONSUMER]})
    assert list(secrets(shop.of("theirs"))) == [theirs]
    assert shop.of("caller").alarms == ()
    shop.stock(arn=theirs)
    assert not secrets(shop.of("stock")), "the key of another account's certificate"


# --- told before a handshake fails


def test_a_certificate_without_the_name_that_callers_verify_is_told(shop: Shop) -> None:
    shop.stock(host="stock.elsewhere")
    (alarm,) = shop.of("caller").alarms
    assert "virtualNode/stock: " in alarm
    assert "[stock.shop.internal] and for none of [stock.elsewhere]" in alarm
    shop.caller(CA, names=("not-this",))
    assert "none of [not-this]" in shop.of("caller").alarms[0]
    shop.caller(CA, names=("not-this", "stock.shop.internal"))
    assert shop.of("caller").alarms == ()


def test_a_wildcard_and_a_service_of_cloud_map_are_names_too(shop: Shop) -> None:
    wild = CERT + "-wild"
    shop.do(issued(("*.shop.internal",), arn=wild))
    certificate = {"acm": {"certificateArn": wild}}
    shown = listener(8080, tls={"mode": "STRICT", "certificate": certificate})
    shop.update(key("virtualNode", "stock"), cloud_map_node(shown, service="stock"))
    snapshot = shop.of("caller")
    assert not [alarm for alarm in snapshot.alarms if "certificate" in alarm]
    names = spoken(snapshot)["combinedValidationContext"]["defaultValidationContext"]["matchTypedSubjectAltNames"]
    assert names == [{"sanType": "DNS", "matcher": {"exact": "stock.shop.internal"}}]


def test_an_issuer_that_callers_do_not_believe_is_told(shop: Shop) -> None:
    shop.caller(OTHER_CA)
    (alarm,) = shop.of("caller").alarms
    assert f"is issued by {CA}, which is not among the authorities that callers believe" in alarm


def test_a_certificate_that_outlives_its_root_is_told() -> None:
    short = Root("one-1", "root one-1\n", 0, 30 * DAY_US)
    shop = Shop(CreateAuthority(CA, "one", short, "ca key one"), issued())
    shop.stock()
    (alarm,) = shop.of("stock").alarms
    assert f"{CERT} outlives the root that issued it" in alarm


def test_an_imported_certificate_is_shown_and_believed_as_its_files_would_be() -> None:
    shop = Shop(ImportCertificate(CERT, ("stock.shop.internal",), "a chain", "a key", "7", 0, DAY_US, create=True))
    shop.stock()
    assert list(secrets(shop.of("stock"))) == [CERT]
    assert "combinedValidationContext" not in spoken(shop.of("caller"))
    assert shop.of("caller").alarms == ()


def test_a_cluster_that_is_kept_keeps_what_it_believes(shop: Shop) -> None:
    """A virtual host that names something missing stays as it was, and so must the secret that its cluster names."""
    shop.create(key("virtualRouter", "stock"), router())
    shop.create(key("route", "all", parent="stock"), route({"stock": 1}))
    shop.update(key("virtualService", "stock.shop.local"), by_router("stock"))
    before = shop.of("caller")
    shop.delete(key("virtualNode", "stock"))
    after = shop.of("caller", before)
    assert STOCK in of_type(after, TYPE_CLUSTER)
    assert roots(after, CA) == ["root one-1"]


def test_a_key_of_an_authority_is_no_event_for_the_compiler(shop: Shop) -> None:
    kept = [event for event in shop.events if event.type == AUTHORITY_KEY_KEPT]
    assert kept
    assert not changed_keys(kept)


def test_no_plan_shows_a_key_when_it_is_printed(shop: Shop) -> None:
    from projector.envoy.plans import IdentityPlan

    assert "a key" not in repr(IdentityPlan(CERT, "a chain", "a key"))


def test_every_spelling_of_a_spec_is_compiled_or_told(shop: Shop) -> None:
    odd: list[Spec] = [{"acm": {}}, {"acm": {"certificateArn": ""}}, {}]
    for certificate in odd:
        spec = node(listener(8080, tls={"mode": "STRICT", "certificate": certificate}))
        shop.update(key("virtualNode", "stock"), spec)
        assert "is neither a file" in shop.of("stock").alarms[0]
