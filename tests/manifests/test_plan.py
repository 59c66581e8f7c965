"""A plan makes live resources what the files say, in an order that the API accepts, or says why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.comparison import same_spec
from manifests.document import Desired, Manifest, Problem, Reading
from manifests.live import LiveResource, Rehearsal, live_resource
from manifests.plan import DELETE, TAG, Plan, Prune, Surroundings, plan_apply, plan_delete
from mesh.commands import Create, Delete, TagResource, UntagResource, Update
from mesh.errors import Conflict
from mesh.kinds import ResourceKey

ACCOUNT, OTHER = "123456789012", "210987654321"
READING = Reading(ACCOUNT, "eu-west-1")
Specs = dict[str, dict[str, Any]]


def key_of(path: str, account: str = ACCOUNT) -> ResourceKey:
    """`mesh`, `virtualNode/n`, `virtualRouter/r/route/x`, all in mesh m."""
    words = path.split("/")
    if words == ["mesh"]:
        return ResourceKey(account, "m", "mesh", "", "m")
    return ResourceKey(account, "m", words[-2], words[1] if len(words) == 4 else "", words[-1])


def desired(specs: Mapping[str, Mapping[str, Any]], **more: Any) -> list[Desired]:
    found = []
    for number, (path, spec) in enumerate(specs.items(), start=1):
        key = key_of(path)
        found.append(Desired(key.kind, None, key.mesh, key.parent, key.name, spec, source=f"f:{number}", **more))
    return found


def around(specs: Mapping[str, Mapping[str, Any]], tags: Mapping[str, str] | None = None, **more: Any) -> Surroundings:
    live = {key_of(path): LiveResource(key_of(path), spec, tags or {}, ACCOUNT) for path, spec in specs.items()}
    return Surroundings(READING, live, **more)


def apply_to(before: Surroundings, plan: Plan) -> Surroundings:
    """The world after the plan, each step held to the API's own rules."""
    rehearsal = before.rehearsal()
    live = dict(before.live)
    for step in plan.steps:
        rehearsal.carry_out(step.commands)
        after = step.document()["after"]
        if after is None:
            del live[step.key]
        else:
            live[step.key] = LiveResource(step.key, after["spec"], after["tags"], ACCOUNT)
    return Surroundings(before.reading, live, before.quotas)


def told(plan: Plan) -> list[str]:
    return [f"{step.action} {step.key.path.removeprefix('mesh/m/')}" for step in plan.steps]


def listeners(*ports: int) -> dict[str, Any]:
    return {"listeners": [{"portMapping": {"port": port, "protocol": "http"}} for port in ports]}


def node(*ports: int) -> dict[str, Any]:
    return {**listeners(*ports), "serviceDiscovery": {"dns": {"hostname": "n.example.com"}}}


def route(target: str, port: int | None = None, target_port: int | None = None) -> dict[str, Any]:
    aim: dict[str, Any] = {"virtualNode": target, "weight": 1}
    match: dict[str, Any] = {"prefix": "/"}
    if port is not None:
        match["port"] = port
    if target_port is not None:
        aim["port"] = target_port
    return {"httpRoute": {"match": match, "action": {"weightedTargets": [aim]}}}


SHOP: Specs = {
    "virtualGateway/g/gatewayRoute/all": {
        "httpRoute": {
            "match": {"prefix": "/"},
            "action": {"target": {"virtualService": {"virtualServiceName": "cart"}}},
        }
    },
    "virtualGateway/g": listeners(80),
    "virtualService/cart": {"provider": {"virtualRouter": {"virtualRouterName": "r"}}},
    "virtualRouter/r/route/x": route("a"),
    "virtualRouter/r": listeners(80),
    "virtualNode/a": {**node(80), "backends": [{"virtualService": {"virtualServiceName": "cart"}}]},
    "mesh": {},
}
"""Written the wrong way round."""


class TestApply:
    def test_all_is_made_in_the_order_of_references(self) -> None:
        plan = plan_apply(Manifest(tuple(desired(SHOP))), around({}))
        assert told(plan) == [
            "create mesh/m",
            "create virtualNode/a",
            "create virtualRouter/r",
            "create virtualRouter/r/route/x",
            "create virtualService/cart",
            "create virtualGateway/g",
            "create virtualGateway/g/gatewayRoute/all",
        ]
        assert not plan.problems

    def test_a_second_time_nothing_is_left_to_do(self) -> None:
        first = plan_apply(Manifest(tuple(desired(SHOP))), around({}))
        again = plan_apply(Manifest(tuple(desired(SHOP))), apply_to(around({}), first))
        assert (again.steps, len(again.unchanged)) == ((), len(SHOP))

    def test_only_what_differs_is_changed(self) -> None:
        plan = plan_apply(Manifest(tuple(desired({**SHOP, "virtualRouter/r/route/x": route("a", 80)}))), around(SHOP))
        assert told(plan) == ["update virtualRouter/r/route/x"]
        (change,) = [step.document() for step in plan.steps]
        assert (change["before"]["spec"], change["after"]["spec"]) == (route("a"), route("a", 80))

    def test_tags_are_left_where_the_document_says_nothing_of_them(self) -> None:
        plan = plan_apply(Manifest(tuple(desired({"mesh": {}}))), around({"mesh": {}}, {"team": "a"}))
        assert not plan.steps

    def test_tags_become_exactly_the_document_s(self) -> None:
        wanted = desired({"mesh": {}}, tags={"team": "b", "new": "1"})
        plan = plan_apply(Manifest(tuple(wanted)), around({"mesh": {}}, {"team": "a", "old": "1", "kept": "1"}))
        (step,) = plan.steps
        assert step.action == TAG
        assert step.commands == (
            UntagResource(key_of("mesh"), ("kept", "old")),
            TagResource(key_of("mesh"), {"team": "b", "new": "1"}),
        )
        assert step.document()["after"]["tags"] == {"team": "b", "new": "1"}

    def test_new_resources_get_their_tags_at_once(self) -> None:
        plan = plan_apply(Manifest(tuple(desired({"mesh": {}}, tags={"team": "b"}))), around({}))
        assert plan.steps[0].commands == (Create(key_of("mesh"), {}, {"team": "b"}),)

    def test_a_second_listener_comes_after_its_routes_say_their_port(self) -> None:
        before: Specs = {
            "mesh": {},
            "virtualNode/a": node(80),
            "virtualRouter/r": listeners(80),
            "virtualRouter/r/route/x": route("a"),
        }
        after: Specs = {**before, "virtualRouter/r": listeners(80, 81), "virtualRouter/r/route/x": route("a", 80)}
        plan = plan_apply(Manifest(tuple(desired(after))), around(before))
        assert told(plan) == ["update virtualRouter/r/route/x", "update virtualRouter/r"]
        back = plan_apply(Manifest(tuple(desired(before))), apply_to(around(before), plan))
        assert told(back) == ["update virtualRouter/r", "update virtualRouter/r/route/x"]

    def test_a_second_listener_of_a_node_comes_after_its_routes_say_the_target_s(self) -> None:
        before: Specs = {
            "mesh": {},
            "virtualNode/a": node(80),
            "virtualRouter/r": listeners(80),
            "virtualRouter/r/route/x": route("a"),
        }
        after: Specs = {**before, "virtualNode/a": node(80, 81), "virtualRouter/r/route/x": route("a", None, 81)}
        plan = plan_apply(Manifest(tuple(desired(after))), around(before))
        assert told(plan) == ["update virtualRouter/r/route/x", "update virtualNode/a"]

    def test_two_nodes_may_have_each_other_s_services_as_backends(self) -> None:
        specs: Specs = {"mesh": {}}
        for one, other in (("a", "b"), ("b", "a")):
            specs[f"virtualNode/{one}"] = {
                **node(80),
                "backends": [{"virtualService": {"virtualServiceName": f"of-{other}"}}],
            }
            specs[f"virtualService/of-{one}"] = {"provider": {"virtualNode": {"virtualNodeName": one}}}
        plan = plan_apply(Manifest(tuple(desired(specs))), around({}))
        assert len(plan.steps) == 5
        assert not plan_delete(Manifest(tuple(desired(specs))), around(specs)).problems


class TestWhatIsWrong:
    def test_all_of_it_is_told_and_the_rest_still_planned(self) -> None:
        specs: Specs = {
            "mesh": {},
            "virtualNode/a": {"listeners": [{"portMapping": {"port": 0, "protocol": "smtp"}}]},
            "virtualNode/b": node(80),
            "virtualService/s": {"provider": {"virtualNode": {"virtualNodeName": "gone"}}},
        }
        plan = plan_apply(Manifest(tuple(desired(specs))), around({}))
        assert told(plan) == ["create mesh/m", "create virtualNode/b"]
        first, second = plan.problems
        assert str(first).startswith(
            "f:2: mesh/m/virtualNode/a: 2 validation errors: spec.listeners[0].portMapping.port"
        )
        assert str(second).startswith("f:4: mesh/m/virtualService/s: VirtualNode with name gone is not present under")

    def test_problems_of_reading_go_before_those_of_planning(self) -> None:
        broken = Problem("cannot be read", "g:1")
        plan = plan_apply(Manifest(tuple(desired({"virtualNode/b": {}})), problems=(broken,)), around({}))
        assert [problem.source for problem in plan.problems] == ["g:1", "f:1"]

    def test_a_quota_counts(self) -> None:
        specs: Specs = {"mesh": {}, "virtualNode/a": {}, "virtualNode/b": {}}
        plan = plan_apply(Manifest(tuple(desired(specs))), around({}, quotas={"L-E043DFB4": 1}))
        assert told(plan) == ["create mesh/m", "create virtualNode/a"]
        assert "L-E043DFB4" in str(plan.problems[0])

    def test_room_is_made_where_a_quota_leaves_none(self) -> None:
        before: Specs = {"mesh": {}, "virtualNode/old": {}}
        after: Specs = {"mesh": {}, "virtualNode/new": {}}
        surroundings = around(before, quotas={"L-E043DFB4": 1})
        plan = plan_apply(Manifest(tuple(desired(after))), surroundings, Prune(frozenset({(ACCOUNT, "m")})))
        assert told(plan) == ["delete virtualNode/old", "create virtualNode/new"]

    def test_a_mesh_that_is_not_visible_is_told(self) -> None:
        (item,) = desired({"virtualNode/a": {}})
        elsewhere = Desired(item.kind, OTHER, item.mesh, "", item.name, {}, source="f:1")
        (problem,) = plan_apply(Manifest((elsewhere,)), around({})).problems
        assert f"mesh m of account {OTHER} is not shared with account {ACCOUNT}" in str(problem)


class TestShared:
    LIVE = (
        LiveResource(key_of("mesh", OTHER), {}, {}, OTHER),
        LiveResource(key_of("virtualNode/theirs", OTHER), {}, {}, OTHER),
        LiveResource(key_of("virtualNode/ours", OTHER), {}, {}, ACCOUNT),
    )

    def plan(self, *names: str, prune: bool = False, kind: str = "virtualNode") -> Plan:
        wanted = tuple(Desired(kind, OTHER, "m", "", name, {"logging": {}}, source="f:1") for name in names)
        scope = Prune(frozenset({(OTHER, "m")})) if prune else None
        return plan_apply(Manifest(wanted), Surroundings(READING, {each.key: each for each in self.LIVE}), scope)

    def test_a_consumer_makes_and_changes_its_own(self) -> None:
        assert told(self.plan("ours", "new")) == ["update virtualNode/ours", "create virtualNode/new"]

    def test_a_consumer_changes_nothing_of_others_and_makes_no_gateway(self) -> None:
        assert len(self.plan("theirs").problems) == 1
        assert len(self.plan("g", kind="virtualGateway").problems) == 1

    def test_only_what_is_one_s_own_is_pruned(self) -> None:
        assert told(self.plan("new", prune=True)) == ["create virtualNode/new", "delete virtualNode/ours"]


class TestSurplus:
    def test_routes_that_the_router_s_document_does_not_list_go(self) -> None:
        live: Specs = {
            "mesh": {},
            "virtualNode/a": node(80),
            "virtualRouter/r": listeners(80),
            "virtualRouter/r/route/old": route("a"),
            "virtualRouter/other": listeners(80),
            "virtualRouter/other/route/kept": route("a"),
        }
        wanted = [
            *desired({"virtualRouter/r": listeners(80)}, all_children=True),
            *desired({"virtualRouter/r/route/new": route("a")}),
        ]
        plan = plan_apply(Manifest(tuple(wanted)), around(live))
        assert told(plan) == ["create virtualRouter/r/route/new", "delete virtualRouter/r/route/old"]
        assert plan.deletions[0].why == "is not among the routes of r"

    def test_prune_takes_what_is_in_no_file_and_never_the_mesh(self) -> None:
        plan = plan_apply(Manifest(()), around(SHOP), Prune(frozenset({(ACCOUNT, "m")})))
        assert [step.action for step in plan.steps] == [DELETE] * (len(SHOP) - 1)
        assert not plan.problems

    def test_prune_keeps_to_its_meshes_and_tags(self) -> None:
        assert not plan_apply(Manifest(()), around(SHOP), Prune(frozenset({(ACCOUNT, "other")}))).steps
        scope = Prune(frozenset({(ACCOUNT, "m")}), {"by": "ci"})
        assert not plan_apply(Manifest(()), around({"mesh": {}, "virtualNode/a": {}}, {"by": "hand"}), scope).steps
        assert plan_apply(Manifest(()), around({"mesh": {}, "virtualNode/a": {}}, {"by": "ci"}), scope).steps

    def test_what_is_still_used_by_what_stays_is_not_pruned_but_told(self) -> None:
        plan = plan_apply(
            Manifest(
                tuple(desired({path: SHOP[path] for path in ("mesh", "virtualRouter/r", "virtualRouter/r/route/x")}))
            ),
            around(SHOP),
            Prune(frozenset({(ACCOUNT, "m")})),
        )
        assert "delete virtualNode/a" not in told(plan)
        assert "cannot be deleted because it is the target of one or more routes" in str(plan.problems[0])

    def test_nothing_goes_while_something_could_not_be_read(self) -> None:
        broken = Manifest((), problems=(Problem("x", "f:1"),))
        assert not plan_apply(broken, around(SHOP), Prune(frozenset({(ACCOUNT, "m")}))).steps

    def test_a_document_that_breaks_a_rule_still_names_what_stays(self) -> None:
        wanted = desired({"virtualNode/a": {"listeners": "x"}})
        plan = plan_apply(
            Manifest(tuple(wanted)), around({"mesh": {}, "virtualNode/a": {}}), Prune(frozenset({(ACCOUNT, "m")}))
        )
        assert not plan.steps


class TestDelete:
    def test_all_goes_in_the_reverse_order(self) -> None:
        plan = plan_delete(Manifest(tuple(reversed(desired(SHOP)))), around(SHOP))
        assert told(plan) == [
            "delete virtualGateway/g/gatewayRoute/all",
            "delete virtualGateway/g",
            "delete virtualService/cart",
            "delete virtualRouter/r/route/x",
            "delete virtualRouter/r",
            "delete virtualNode/a",
            "delete mesh/m",
        ]

    def test_what_is_not_there_is_not_missed(self) -> None:
        plan = plan_delete(Manifest(tuple(desired(SHOP))), around({"mesh": {}}))
        assert (told(plan), len(plan.unchanged)) == (["delete mesh/m"], len(SHOP) - 1)

    def test_a_router_that_lists_its_routes_takes_all_of_them_with_it(self) -> None:
        live = {path: SHOP[path] for path in ("mesh", "virtualNode/a", "virtualRouter/r", "virtualRouter/r/route/x")}
        plan = plan_delete(Manifest(tuple(desired({"virtualRouter/r": {}}, all_children=True))), around(live))
        assert told(plan) == ["delete virtualRouter/r/route/x", "delete virtualRouter/r"]

    def test_what_a_document_retains_stays(self) -> None:
        plan = plan_delete(Manifest(tuple(desired({"mesh": {}}, retained=True))), around({"mesh": {}}))
        assert (plan.steps, plan.left) == ((), (key_of("mesh"),))

    def test_what_something_else_needs_is_told(self) -> None:
        plan = plan_delete(Manifest(tuple(desired({"virtualNode/a": {}, "mesh": {}}))), around(SHOP))
        assert not plan.steps
        assert [str(problem).split(": ")[0] for problem in plan.problems] == ["f:1", "f:2"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"backends": []}, True),
        ({"logging": None}, {}, True),
        ({"logging": {}}, {}, False),
        (node(80), node(81), False),
        ({"a": [{"b": []}]}, {"a": [{}]}, True),
    ],
)
def test_what_makes_no_difference(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert same_spec(one, other) is same


def test_a_health_check_s_port_that_the_service_filled_in_makes_no_difference() -> None:
    def checked(**more: int) -> dict[str, Any]:
        spec = node(80)
        spec["listeners"][0]["healthCheck"] = {"protocol": "http", "healthyThreshold": 2, **more}
        return spec

    assert same_spec(checked(), checked(port=80))
    assert not same_spec(checked(), checked(port=81))


def test_live_resources_are_read_from_the_api_s_documents() -> None:
    document = {
        "meshName": "m",
        "virtualRouterName": "r",
        "routeName": "x",
        "spec": {"a": 1},
        "metadata": {"meshOwner": OTHER, "resourceOwner": ACCOUNT},
        "tags": [{"key": "k", "value": "v"}],
    }
    expected = LiveResource(key_of("virtualRouter/r/route/x", OTHER), {"a": 1}, {"k": "v"}, ACCOUNT)
    assert live_resource(document) == expected


# --- any mesh into any other


@st.composite
def _meshes(draw: st.DrawFn) -> Specs:
    nodes = draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1))
    several = {name: draw(st.booleans()) for name in nodes}
    specs: Specs = {"mesh": {}}
    for name in nodes:
        specs[f"virtualNode/{name}"] = node(80, 81) if several[name] else node(80)
    routers = draw(st.lists(st.sampled_from("rst"), unique=True))
    for router in routers:
        wide = draw(st.booleans())
        specs[f"virtualRouter/{router}"] = listeners(80, 81) if wide else listeners(80)
        for name in draw(st.lists(st.sampled_from("xyz"), unique=True)):
            target = draw(st.sampled_from(nodes))
            port = 80 if wide or draw(st.booleans()) else None
            aim = 81 if several[target] else None
            specs[f"virtualRouter/{router}/route/{name}"] = route(target, port, aim)
    services: dict[str, bool] = {}
    for name in draw(st.lists(st.sampled_from("uvw"), unique=True)):
        through_a_router = draw(st.booleans())
        if routers and through_a_router:
            provider = draw(st.sampled_from(routers))
            services[name] = len(specs[f"virtualRouter/{provider}"]["listeners"]) > 1
            specs[f"virtualService/{name}"] = {"provider": {"virtualRouter": {"virtualRouterName": provider}}}
        else:
            provider = draw(st.sampled_from(nodes))
            services[name] = several[provider]
            specs[f"virtualService/{name}"] = {"provider": {"virtualNode": {"virtualNodeName": provider}}}
    if draw(st.booleans()):
        wide = draw(st.booleans())
        specs["virtualGateway/g"] = listeners(80, 81) if wide else listeners(80)
        for name in draw(st.lists(st.sampled_from(sorted(services)), unique=True)) if services else ():
            aim_at: dict[str, Any] = {"virtualService": {"virtualServiceName": name}}
            if services[name]:
                aim_at["port"] = 80
            match = {"prefix": f"/{name}", **({"port": 80} if wide else {})}
            specs[f"virtualGateway/g/gatewayRoute/{name}"] = {
                "httpRoute": {"match": match, "action": {"target": aim_at}}
            }
    return specs


@given(before=_meshes(), after=_meshes(), shuffle=st.randoms(use_true_random=False))
def test_any_mesh_becomes_any_other(before: Specs, after: Specs, shuffle: Any) -> None:
    wanted = desired(after)
    shuffle.shuffle(wanted)
    start, manifest = around(before), Manifest(tuple(wanted))
    scope = Prune(frozenset({(ACCOUNT, "m")}))
    plan = plan_apply(manifest, start, scope)
    assert not plan.problems
    end = apply_to(start, plan)
    assert {key: each.spec for key, each in end.live.items()} == {key_of(path): spec for path, spec in after.items()}
    assert plan_apply(manifest, end, scope).steps == ()
    gone = plan_delete(manifest, end)
    assert not gone.problems
    assert not apply_to(end, gone).live


def test_a_rehearsal_counts_all_of_a_step_or_nothing() -> None:
    rehearsal = Rehearsal(ACCOUNT, [], {})
    made = Create(key_of("mesh"), {}, {})
    with pytest.raises(Conflict, match="already exists"):
        rehearsal.carry_out([made, made])
    rehearsal.carry_out([made, Update(key_of("mesh"), {}), Delete(key_of("mesh"))])
    rehearsal.carry_out([made])
