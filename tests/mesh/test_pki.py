"""Certificate authorities and certificates: what is kept of them, how a rotation goes, and what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.certificates import (
    AUTHORITY,
    CERTIFICATE,
    AuthorityKey,
    PkiName,
    authority_arns,
    certificate_arns,
    check_names,
    covers,
    pki_arn,
    pki_name,
)
from mesh.commands import Command, Context, Rollback
from mesh.commands_pki import DeleteCertificate, DropRoot, PromoteRoot, RetireAuthority, RotateAuthority
from mesh.decide import decide
from mesh.errors import BadRequest, Conflict, LevelTooLow, LimitExceeded, MeshlogError, NotFound, Poison, ResourceInUse
from mesh.events import NewEvent
from mesh.evolve import evolve
from mesh.fold import MESH_FOLD
from mesh.position import Position
from mesh.state import computed_fingerprint
from tests.mesh.pki_worlds import CA, CERT, PKI_COMMANDS, imported, issued, root, rooted, rotated
from tests.mesh.worlds import ACCOUNT, MESH, OTHER_ACCOUNT, START_US, World, key, node_spec, placed, shop

OTHER_CA = CA.replace("ca-1", "ca-2")


def world_with(*commands: Command) -> World:
    world = shop()
    for command in commands:
        world.do(command)
    return world


def refused(world: World, command: Command, error: type[MeshlogError], **fields: Any) -> str:
    before = world.state
    with pytest.raises(error) as caught:
        world.do(command, **fields)
    assert type(caught.value) is error
    assert world.state is before
    assert "the key of" not in caught.value.message
    return caught.value.message


def listener_with(arn: str) -> dict[str, Any]:
    spec = node_spec()
    spec["listeners"][0]["tls"] = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": arn}}}
    return spec


def believer_of(*arns: str) -> dict[str, Any]:
    policy = {"tls": {"validation": {"trust": {"acm": {"certificateAuthorityArns": list(arns)}}}}}
    return {**node_spec(), "backendDefaults": {"clientPolicy": policy}}


def test_an_authority_and_its_key_are_two_events_of_which_projectors_open_one() -> None:
    world = World()
    level, created, kept = world.do(rooted()).events
    assert (level.type, created.type, kept.type) == ("LevelRaised", "AuthorityCreated", "AuthorityKeyKept")
    assert "the key of root 1" not in str(created.data)
    authority = world.state.authorities[CA]
    assert (authority.issuing, [each.id for each in authority.trusted()]) == (root().id, [root().id])
    assert world.state.authority_keys[root().id].secret == "the key of root 1"


def test_a_certificate_counts_its_issues_and_keeps_its_names() -> None:
    world = world_with(rooted(), issued())
    first = world.state.certificates[CERT]
    world.do(issued(create=False, domain="other.internal", names=(), serial="77"))
    again = world.state.certificates[CERT]
    assert (first.version, again.version, again.serial) == (1, 2, "77")
    assert again.names == first.names == ("cart.internal", "*.cart.internal")
    assert (again.domain, again.created_us) == ("cart.internal", first.created_us)


def test_a_rotation_believes_both_roots_until_nothing_is_under_the_old_one() -> None:
    world = world_with(rooted(), issued(), rotated())
    authority = world.state.authorities[CA]
    assert ([each.id for each in authority.trusted()], authority.issuing) == ([root(1).id, root(2).id], root(1).id)
    refused(world, DropRoot(CA, root(1).id), Conflict)
    world.do(PromoteRoot(CA, root(2).id))
    assert CERT in refused(world, DropRoot(CA, root(1).id), ResourceInUse)
    assert "try again" in refused(world, issued(create=False, under=1), Conflict)
    world.do(issued(create=False, under=2))
    world.do(DropRoot(CA, root(1).id))
    assert [each.id for each in world.state.authorities[CA].trusted()] == [root(2).id]
    assert list(world.state.authority_keys) == [root(2).id]
    assert not world.do(DropRoot(CA, root(1).id)).events, "what is gone need not go again"
    assert not world.do(PromoteRoot(CA, root(2).id)).events


def test_an_authority_whose_key_was_never_here_is_believed_and_issues_after_a_rotation() -> None:
    world = world_with(rooted(secret=None))
    assert (world.state.authorities[CA].issuing, len(world.state.authority_keys)) == ("", 0)
    refused(world, issued(), Conflict)
    world.do(rotated())
    world.do(PromoteRoot(CA, root(2).id))
    world.do(issued(under=2))
    assert world.state.certificates[CERT].root == root(2).id


def test_an_imported_certificate_can_be_issued_by_an_authority_later_and_not_the_other_way() -> None:
    world = world_with(rooted(), imported(CERT))
    assert world.state.certificates[CERT].authority == ""
    world.do(imported(CERT, create=False, serial="aa"))
    world.do(issued(create=False))
    certificate = world.state.certificates[CERT]
    assert (certificate.version, certificate.authority, certificate.names) == (3, CA, ("old.internal",))
    refused(world, imported(CERT, create=False), Conflict)


REFUSED: list[tuple[Command, type[MeshlogError], str]] = [
    (rooted(), Conflict, "exists already"),
    (rooted(OTHER_CA), Conflict, "has the name 'shop' already"),
    (rooted(OTHER_CA, name=""), BadRequest, "name"),
    (rooted(OTHER_CA, name="a\nb"), BadRequest, "name"),
    (rooted(CERT), BadRequest, "acm-pca"),
    (rooted("arn:aws:iam::123456789012:user/ann"), BadRequest, "acm-pca"),
    (rooted(CA.replace(ACCOUNT, OTHER_ACCOUNT)), NotFound, OTHER_ACCOUNT),
    (RotateAuthority(OTHER_CA, root(3), "the key of root 3"), NotFound, "pki ca list"),
    (rotated(1), Conflict, "this root already"),
    (RotateAuthority(CA, root(3, not_after_us=START_US), "the key of root 3"), BadRequest, "expired"),
    (PromoteRoot(CA, root(9).id), Conflict, "newest"),
    (RetireAuthority(CA), ResourceInUse, CERT),
    (issued(), Conflict, "exists already"),
    (issued(CERT + "-2", authority=OTHER_CA), NotFound, "ca-2"),
    (issued(CERT + "-2", create=False), NotFound, "certificate list"),
    (issued(create=False, seen=7), Conflict, "version 1"),
    (issued(CA), BadRequest, "certificate/<id>"),
    (issued(CERT + "-2", domain="a b"), BadRequest, "'a b'"),
    (issued(CERT + "-2", names=tuple(f"n{number}.internal" for number in range(100))), BadRequest, "101"),
    (issued(CERT + "-2", secret="the key of " + "x" * 9000), BadRequest, "private_key"),
    (imported(CERT + "-2", chain="x" * 40_000), BadRequest, "certificate"),
    (imported(CERT + "-2", not_after_us=START_US), BadRequest, "expired"),
    (imported(CERT), Conflict, "issued by"),
    (DeleteCertificate(CERT + "-2"), NotFound, "certificate list"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "error", "said"), REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(command: Command, error: type[MeshlogError], said: str) -> None:
    assert said in refused(world_with(rooted(), issued()), command, error)


def test_a_rotation_waits_for_the_one_before() -> None:
    assert "being rotated" in refused(world_with(rooted(), rotated(2)), rotated(3), Conflict)


def test_what_a_specification_names_is_not_taken_away() -> None:
    world = world_with(rooted(), issued())
    node, gateway = key("virtualNode", "cart-v1"), key("virtualGateway", "edge")
    world.update(node, listener_with(CERT))
    world.update(gateway, {"listeners": [], "backendDefaults": believer_of(CA)["backendDefaults"]})
    assert node.path in refused(world, DeleteCertificate(CERT), ResourceInUse)
    world.update(node, node_spec())
    world.do(DeleteCertificate(CERT))
    assert gateway.path in refused(world, RetireAuthority(CA), ResourceInUse)
    world.update(gateway, {"listeners": []})
    world.do(RetireAuthority(CA))
    assert not world.state.authorities
    assert not world.state.authority_keys
    assert not world.state.certificates


def test_another_accounts_are_as_absent_as_what_is_nowhere() -> None:
    world = world_with(rooted(), issued())
    for command in (rotated(), PromoteRoot(CA, root().id), RetireAuthority(CA), issued(), DeleteCertificate(CERT)):
        refused(world, command, NotFound, account=OTHER_ACCOUNT)


def test_there_is_an_end_to_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.decide_pki.AUTHORITIES_PER_ACCOUNT", 1)
    monkeypatch.setattr("mesh.decide_pki.CERTIFICATES_PER_ACCOUNT", 1)
    world = world_with(rooted(), issued())
    refused(world, rooted(OTHER_CA, name="other"), LimitExceeded)
    refused(world, issued(CERT + "-2"), LimitExceeded)
    world.do(issued(create=False))


def test_a_cluster_with_older_builds_is_not_given_events_that_they_cannot_fold() -> None:
    world = World()
    with pytest.raises(LevelTooLow):
        decide(world.state, rooted(), Context(ACCOUNT, "", "CreateCertificateAuthority", level=2))


def test_a_rollback_never_touches_certificates() -> None:
    world = world_with(rooted())
    then = world.state
    world.do(issued())
    world.create(key("virtualNode", "late"), listener_with(CERT))
    world.do(Rollback(ACCOUNT, MESH.mesh, then))
    assert key("virtualNode", "late") not in world.state.resources
    assert world.state.certificates[CERT].version == 1


def test_the_fingerprint_counts_each_certificate_and_no_key_of_an_authority() -> None:
    world = World()
    for command in PKI_COMMANDS:
        world.do(command)
    for state in world.states:
        assert state.fingerprint == computed_fingerprint(state)
    with_it, without = world_with(rooted(), issued()).state, world_with(rooted()).state
    assert with_it.fingerprint != without.fingerprint


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("AuthorityRootAdded", {"authority": CA, "root": {}}),
        ("AuthorityRootPromoted", {"authority": CA, "root": "x"}),
        ("AuthorityRootDropped", {"authority": CA, "root": "x"}),
        ("AuthorityRetired", {"authority": OTHER_CA}),
        ("AuthorityCreated", {"authority": CA, "account": ACCOUNT, "name": "x", "root": {}, "issues": True}),
        ("CertificateIssued", {"certificate": CERT}),
        ("CertificateDeleted", {"certificate": CERT}),
    ],
)
def test_an_event_that_does_not_fit_stops_the_fold(event_type: str, data: dict[str, Any]) -> None:
    world = world_with(rooted())
    at = Position(1, world.state.position.position + 1)
    with pytest.raises(Poison):
        evolve(world.state, placed(NewEvent(event_type, data), at))


def test_arns_name_what_acm_named() -> None:
    assert pki_name(CA) == PkiName(AUTHORITY, "eu-central-1", ACCOUNT, "ca-1")
    assert pki_name(CERT) == PkiName(CERTIFICATE, "eu-central-1", ACCOUNT, "cert-1")
    for arn in (CA, CERT):
        name = pki_name(arn)
        assert name is not None
        assert pki_arn(name.kind, name.region, name.account, name.id) == arn
    china = f"arn:aws-cn:acm:cn-north-1:{ACCOUNT}:certificate/11111111-2222-3333-4444-555555555555"
    assert pki_name(china) is not None
    for bad in ("", CERT + "/x", CERT.replace("acm", "iam"), CERT.replace("certificate/", "certificate-authority/")):
        assert pki_name(bad) is None


def test_specs_tell_which_arns_they_name() -> None:
    assert list(certificate_arns(listener_with(CERT))) == [CERT]
    policy = believer_of(OTHER_CA)["backendDefaults"]["clientPolicy"]
    backend = {"virtualService": {"virtualServiceName": "x", "clientPolicy": policy}}
    assert list(authority_arns({**believer_of(CA), "backends": [backend]})) == [CA, OTHER_CA]
    assert not list(authority_arns({}))
    assert not list(certificate_arns({"listeners": [{"tls": {"certificate": {"file": {}}}}]}))


@pytest.mark.parametrize(
    "name", ["cart.apps.local", "*.apps.local", "localhost", "10.0.0.7", "::1", "spiffe://a/b", "_x.a"]
)
def test_names_that_a_certificate_can_be_for(name: str) -> None:
    assert check_names(name, (name,)) == (name,)


@pytest.mark.parametrize("name", ["", "a..b", "*", "a.*.b", "-a.b", "a b", "ä.local", "x" * 254, "a.b\n", "a,b"])
def test_names_that_none_can_be_for(name: str) -> None:
    with pytest.raises(BadRequest):
        check_names(name, ())


def test_a_wildcard_covers_one_label() -> None:
    names = ("Cart.Apps.Local", "*.pay.local")
    assert covers(names, "cart.apps.local")
    assert covers(names, "v1.pay.local")
    assert not covers(names, "a.v1.pay.local")
    assert not covers(names, "pay.local")


def test_two_states_are_the_same_only_with_the_same_keys() -> None:
    """What a drill compares, since the hash leaves out what only API servers can open."""
    one = world_with(rooted()).state
    closed = one.but(authority_keys=World().state.authority_keys)
    assert MESH_FOLD.same(one, world_with(rooted()).state)
    assert not MESH_FOLD.same(one, closed)


def test_no_value_shows_a_key_when_it_is_printed() -> None:
    world = world_with(rooted(), issued())
    shown = repr([rooted(), rotated(), issued(), imported(CERT), *world.state.certificates.values()])
    shown += repr(AuthorityKey("id", CA, "the key of root 1")) + repr(list(world.state.authority_keys.values()))
    assert "the key of" not in shown
