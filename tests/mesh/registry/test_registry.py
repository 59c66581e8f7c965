"""The registry's log: what commands lead to, how events fold, and that a checkpoint is the state it was made of."""

# ruff: noqa: ARG005 - a table of functions with one shape

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Damaged, MeshlogError, Poison
from mesh.events import Event
from mesh.limits import (
    INSTANCES_PER_NAMESPACE,
    INSTANCES_PER_SERVICE,
    NAMESPACES_PER_ACCOUNT,
    REGISTRY_OPERATIONS_KEPT,
    SERVICES_PER_NAMESPACE,
    TOKEN_WINDOW_US,
)
from mesh.position import Position
from mesh.registry.changes import changed_services
from mesh.registry.checkpoint import from_documents, to_documents
from mesh.registry.commands import (
    COMMANDS,
    ChangeServiceAttributes,
    CopyInstances,
    CreateNamespace,
    CreateService,
    DeleteNamespace,
    DeleteService,
    DeregisterInstance,
    MarkHeartbeats,
    RegisterInstance,
    RegistryCommand,
    ReportHealth,
    TagRegistered,
    UpdateNamespace,
    UpdateService,
)
from mesh.registry.decide import DECIDERS
from mesh.registry.errors import (
    CustomHealthNotFound,
    DuplicateRequest,
    InstanceNotFound,
    InUse,
    InvalidInput,
    NamespaceAlreadyExists,
    NamespaceNotFound,
    ResourceLimitExceeded,
    ResourceNotFound,
    ServiceAlreadyExists,
    ServiceNotFound,
)
from mesh.registry.events import EVENT_TYPES
from mesh.registry.evolve import FOLDS, evolve, folded
from mesh.registry.names import arn
from mesh.registry.state import (
    NO_FACTS,
    Health,
    NamespaceKey,
    Operation,
    RegistryState,
    ServiceKey,
    TokenEntry,
    computed_fingerprint,
    state_hash,
)
from tests.mesh.registry.worlds import ACCOUNT, SHOP, World, shop, stocked

CUSTOM: dict[str, Any] = {"HealthCheckCustomConfig": {}}


def test_every_command_and_every_event_has_its_function() -> None:
    assert set(DECIDERS) == set(COMMANDS)
    assert set(FOLDS) == set(EVENT_TYPES)


def test_an_instance_lives() -> None:
    world = stocked(2)
    service = world.state.services[SHOP]
    assert [each.id for each in world.state.discovered(SHOP)] == ["i0", "i1"]
    world.do(RegisterInstance(service.id, "i0", {"AWS_INSTANCE_IPV4": "10.9.9.9"}))
    assert world.state.discovered(SHOP)[0].attributes == {"AWS_INSTANCE_IPV4": "10.9.9.9"}
    world.do(DeregisterInstance(service.id, "i1"))
    assert [each.id for each in world.state.discovered(SHOP)] == ["i0"]
    assert world.state.services[SHOP].revision == service.revision + 2
    assert world.state.discovered(ServiceKey(ACCOUNT, "shop.local", "none")) == ()


def test_a_service_made_again_goes_on_counting_above_its_former_revisions() -> None:
    world = stocked(3)
    last = world.state.services[SHOP].revision
    for index in range(3):
        world.do(DeregisterInstance(world.service_id(), f"i{index}"))
    namespace = world.state.services[SHOP].namespace_id
    world.do(DeleteService(world.service_id()))
    world.do(CreateService(namespace, SHOP.service))
    assert world.state.services[SHOP].revision > last + 3


def test_every_event_about_a_service_names_it() -> None:
    world = stocked(1, **CUSTOM)
    world.do(ReportHealth(world.service_id(), "i0", Health.UNHEALTHY))
    assert changed_services(world.events[:1]) == set()
    assert all(changed_services([event]) == {SHOP} for event in world.events[1:])


def test_health_is_what_was_reported_unless_the_instance_is_silent() -> None:
    world = stocked(1, {"MESHLOG_HEARTBEAT_S": "10"}, **CUSTOM)
    seen = []
    steps: list[RegistryCommand] = [
        MarkHeartbeats(SHOP, ("i0",), silent=True),
        ReportHealth(world.service_id(), "i0", Health.UNHEALTHY),
        MarkHeartbeats(SHOP, ("i0", "gone"), silent=False),
        ReportHealth(world.service_id(), "i0", Health.HEALTHY),
    ]
    for command in steps:
        world.do(command)
        [instance] = world.state.discovered(SHOP)
        seen.append((instance.health.value, instance.silent, instance.reported.value))
    assert seen == [
        ("UNHEALTHY", True, "HEALTHY"),
        ("UNHEALTHY", True, "UNHEALTHY"),
        ("UNHEALTHY", False, "UNHEALTHY"),
        ("HEALTHY", False, "HEALTHY"),
    ]
    before = world.state.position
    world.do(ReportHealth(world.service_id(), "i0", Health.HEALTHY))
    assert world.state.position == before, "what is so already is no event"


def test_a_repeated_request_is_answered_with_the_first_ones_operation() -> None:
    world = shop()
    command = RegisterInstance(world.service_id(), "i0", {"AWS_INSTANCE_IPV4": "10.0.0.1"})
    world.do(command, request="once")
    [operation] = [each for each in world.state.operations.values() if each.type == "REGISTER_INSTANCE"]
    again = world.do(command, request="once")
    assert again.replay is not None
    assert again.replay.outcome == {"operation": operation.id}
    other = RegisterInstance(world.service_id(), "i1", {})
    with pytest.raises(DuplicateRequest) as caught:
        world.do(other, request="once", operation="RegisterInstance")
    assert caught.value.members == {"DuplicateOperationId": operation.id}


def test_a_copied_service_takes_no_registrations_and_a_service_of_ours_is_not_copied_into() -> None:
    world = stocked(1)
    with pytest.raises(InUse):
        world.do(CopyInstances(SHOP, "aws:eu-north-1"))
    copied = ServiceKey(ACCOUNT, "ecs.local", "cart")
    put: tuple[tuple[str, dict[str, str], Health], ...] = (
        ("t1", {"AWS_INSTANCE_IPV4": "10.1.0.1"}, Health.HEALTHY),
        ("t2", {}, Health.UNHEALTHY),
    )
    world.do(CopyInstances(copied, "aws:eu-north-1", put))
    world.do(CopyInstances(copied, "aws:eu-north-1", put))
    assert [(each.id, each.health.value) for each in world.state.discovered(copied)] == [
        ("t1", "HEALTHY"),
        ("t2", "UNHEALTHY"),
    ]
    with pytest.raises(InUse):
        world.do(RegisterInstance(world.service_id(copied), "mine", {}))
    world.do(CopyInstances(copied, "aws:eu-north-1", (), ("t2", "never there")))
    assert [each.id for each in world.state.discovered(copied)] == ["t1"]


DNS = {"DnsRecords": [{"Type": "A", "TTL": 60}]}
REFUSED: list[tuple[str, type[MeshlogError], Any]] = [
    ("namespace twice", NamespaceAlreadyExists, lambda ns, srv: CreateNamespace("shop.local", "HTTP")),
    ("no namespace", NamespaceNotFound, lambda ns, srv: DeleteNamespace("ns-none")),
    ("namespace with services", InUse, lambda ns, srv: DeleteNamespace(ns)),
    ("namespace of another type", InvalidInput, lambda ns, srv: UpdateNamespace(ns, "DNS_PRIVATE", "x")),
    ("service nowhere", NamespaceNotFound, lambda ns, srv: CreateService("ns-none", "x")),
    ("service twice", ServiceAlreadyExists, lambda ns, srv: CreateService(ns, "orders")),
    ("DNS in an HTTP namespace", InvalidInput, lambda ns, srv: CreateService(ns, "x", spec={"DnsConfig": DNS})),
    ("service with instances", InUse, lambda ns, srv: DeleteService(srv)),
    ("no service", ServiceNotFound, lambda ns, srv: UpdateService("srv-none", {})),
    ("no such instance", InstanceNotFound, lambda ns, srv: DeregisterInstance(srv, "none")),
    ("no custom health", CustomHealthNotFound, lambda ns, srv: ReportHealth(srv, "i0", Health.HEALTHY)),
    ("bad address", InvalidInput, lambda ns, srv: RegisterInstance(srv, "x", {"AWS_INSTANCE_IPV4": "10.0.0"})),
    ("bad port", InvalidInput, lambda ns, srv: RegisterInstance(srv, "x", {"AWS_INSTANCE_PORT": "70000"})),
    ("EC2", InvalidInput, lambda ns, srv: RegisterInstance(srv, "x", {"AWS_EC2_INSTANCE_ID": "i-1"})),
    ("first health without a check", InvalidInput,
     lambda ns, srv: RegisterInstance(srv, "x", {"AWS_INIT_HEALTH_STATUS": "UNHEALTHY"})),
    ("a beat each second", InvalidInput, lambda ns, srv: RegisterInstance(srv, "x", {"MESHLOG_HEARTBEAT_S": "1"})),
    ("31 attributes", InvalidInput, lambda ns, srv: RegisterInstance(srv, "x", {f"a{n}": "" for n in range(31)})),
    ("6 000 characters", ResourceLimitExceeded,
     lambda ns, srv: RegisterInstance(srv, "x", {f"a{n}": "v" * 1000 for n in range(6)})),
    ("tags of nothing", ResourceNotFound,
     lambda ns, srv: TagRegistered(arn("eu", ACCOUNT, "service", "srv-none"), {"a": "b"})),
    ("no ARN", InvalidInput, lambda ns, srv: TagRegistered("arn:aws:s3:::x", {"a": "b"})),
]  # fmt: skip


@pytest.mark.parametrize(("error", "command"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_is_refused(error: type[MeshlogError], command: Any) -> None:
    world = stocked(1)
    service = world.state.services[SHOP]
    before = world.state
    with pytest.raises(error):
        world.do(command(service.namespace_id, service.id))
    assert world.state is before


def test_another_accounts_ids_name_nothing() -> None:
    world = stocked(1)
    service = world.state.services[SHOP]
    for command, error in (
        (DeleteNamespace(service.namespace_id), NamespaceNotFound),
        (DeregisterInstance(service.id, "i0"), ServiceNotFound),
    ):
        with pytest.raises(error):
            world.do(command, account="999999999999")


def test_names_in_dns_namespaces_differ_by_more_than_capitals() -> None:
    world = World()
    world.do(CreateNamespace("dns.local", "DNS_PRIVATE"))
    [namespace] = world.state.namespaces.values()
    world.do(CreateService(namespace.id, "Orders", spec={"DnsConfig": DNS}))
    with pytest.raises(ServiceAlreadyExists):
        world.do(CreateService(namespace.id, "orders", spec={"DnsConfig": DNS}))
    with pytest.raises(InvalidInput):
        world.do(CreateService(namespace.id, "none"))
    with pytest.raises(InvalidInput):
        world.do(RegisterInstance(world.service_id(ServiceKey(ACCOUNT, "dns.local", "Orders")), "i", {}))


def test_quotas() -> None:
    world = World()
    for number in range(NAMESPACES_PER_ACCOUNT):
        world.do(CreateNamespace(f"n{number}", "HTTP"))
    with pytest.raises(ResourceLimitExceeded):
        world.do(CreateNamespace("one-more", "HTTP"))
    world.do(CreateNamespace("another-accounts", "HTTP"), account="999999999999")
    namespace = world.state.namespaces[NamespaceKey(ACCOUNT, "n0")]
    keys = [ServiceKey(ACCOUNT, "n0", f"s{number}") for number in range(SERVICES_PER_NAMESPACE)]
    for key in keys:
        world.do(CreateService(namespace.id, key.service))
    with pytest.raises(ResourceLimitExceeded):
        world.do(CreateService(namespace.id, "one-more"))
    for number in range(INSTANCES_PER_SERVICE):
        world.do(RegisterInstance(world.service_id(keys[0]), f"i{number}", {}))
    with pytest.raises(ResourceLimitExceeded):
        world.do(RegisterInstance(world.service_id(keys[0]), "one-more", {}))
    world.do(RegisterInstance(world.service_id(keys[0]), "i0", {"again": "yes"}))
    for number in range(INSTANCES_PER_NAMESPACE - INSTANCES_PER_SERVICE):
        world.do(RegisterInstance(world.service_id(keys[1]), f"i{number}", {}))
    with pytest.raises(ResourceLimitExceeded):
        world.do(RegisterInstance(world.service_id(keys[2]), "one-more", {}))


def test_operations_and_answers_are_forgotten_in_the_end() -> None:
    state = RegistryState()
    for number in range(REGISTRY_OPERATIONS_KEPT + 5):
        state = state.with_operation(Operation(f"o{number}", ACCOUNT, "REGISTER_INSTANCE", NO_FACTS, number))
    assert len(state.operations) == REGISTRY_OPERATIONS_KEPT
    assert "o4" not in state.operations
    assert "o5" in state.operations
    day_us = TOKEN_WINDOW_US
    for number in range(3):
        entry = TokenEntry(b"body", Position(1, number + 1), number * day_us, NO_FACTS)
        state = state.with_token(bytes([number]) * 32, entry)
    assert len(state.tokens) == 2
    assert computed_fingerprint(state) == state.fingerprint


COMMAND_LISTS = st.lists(
    st.one_of(
        st.builds(lambda n: ("register", n), st.integers(0, 3)),
        st.builds(lambda n: ("deregister", n), st.integers(0, 3)),
        st.builds(lambda n: ("unhealthy", n), st.integers(0, 3)),
        st.builds(lambda n: ("silent", n), st.integers(0, 3)),
        st.just(("copy", 0)),
        st.just(("tag", 0)),
        st.just(("attributes", 0)),
        st.just(("update", 0)),
    ),
    max_size=15,
)


def _command(world: World, kind: str, number: int) -> RegistryCommand:
    service = world.service_id()
    made: dict[str, RegistryCommand] = {
        "register": RegisterInstance(service, f"i{number}", {"AWS_INSTANCE_IPV4": "10.0.0.1"}, "r"),
        "deregister": DeregisterInstance(service, f"i{number}"),
        "unhealthy": ReportHealth(service, f"i{number}", Health.UNHEALTHY),
        "silent": MarkHeartbeats(SHOP, (f"i{number}",), silent=True),
        "copy": CopyInstances(ServiceKey(ACCOUNT, "ecs", "cart"), "aws", (("t", {"a": "b"}, Health.HEALTHY),)),
        "tag": TagRegistered(arn("eu", ACCOUNT, "service", service), {"team": "mesh"}),
        "attributes": ChangeServiceAttributes(service, {"a": "b"}, ("c",)),
        "update": UpdateService(service, {"Description": "new"}),
    }
    return made[kind]


@given(COMMAND_LISTS)
def test_fingerprint_and_checkpoint_are_those_of_the_state(steps: list[tuple[str, int]]) -> None:
    world = shop(**CUSTOM)
    for kind, number in steps:
        try:
            world.do(_command(world, kind, number))
        except MeshlogError:
            continue
    state = world.state
    assert computed_fingerprint(state) == state.fingerprint
    again = from_documents(*to_documents(state))
    assert again == state
    assert state_hash(again) == state_hash(state) == state_hash(folded(world.events))
    world.do(RegisterInstance(world.service_id(), "after", {}))
    assert state_hash(evolve(again, world.events[-1])) == state_hash(world.state)


def test_a_checkpoint_that_was_tampered_with_is_damaged() -> None:
    documents = to_documents(stocked(1).state)
    documents.config[8] = []
    with pytest.raises(Damaged):
        from_documents(*documents)
    with pytest.raises(Damaged):
        from_documents(["something", "else"], None)


def test_what_does_not_fit_is_poison() -> None:
    world = stocked(1)
    bad: list[tuple[str, int, Any]] = [
        ("NoSuchType", 1, {}),
        ("InstanceRegistered", 2, {}),
        ("InstanceDeregistered", 1, {"service": list(SHOP), "instance": "none"}),
        ("InstanceRegistered", 1, None),
        ("ServiceDeleted", 1, {"service": list(SHOP)}),
    ]
    for kind, schema, data in bad:
        event = Event(Position(1, 99), 1, 1, kind, schema, ACCOUNT, "a", "", "r", None, data)
        with pytest.raises(Poison):
            evolve(world.state, event)
