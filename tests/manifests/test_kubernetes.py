"""Custom resources become what the App Mesh controller makes of them: names, membership, references, specs."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.document import Desired, Manifest, Reading
from manifests.kubernetes import read
from manifests.kubernetes_objects import KIND_NAMES, selects
from manifests.kubernetes_specs import convert
from manifests.text import Document, documents

ACCOUNT = "123456789012"
READING = Reading(ACCOUNT, "eu-west-1")
MESH = """
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {namespaceSelector: {matchLabels: {mesh: shop}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {mesh: shop, gateway: ingress}}
---
"""


def manifest(*texts: str, reading: Reading = READING) -> Manifest:
    found = [
        document for index, text in enumerate(texts) for document in documents(dedent(text), f"{index or 'f'}.yaml")
    ]
    return read(found, reading)


def custom(kind: str, name: str, spec: str, namespace: str = "web") -> str:
    head = f"apiVersion: appmesh.k8s.aws/v1beta2\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
    return f"{head}spec: {spec}\n---\n"


def by_path(found: Manifest) -> dict[str, Desired]:
    assert not found.problems, [str(problem) for problem in found.problems]
    return {item.key(ACCOUNT).path: item for item in found.resources}


def says(found: Manifest) -> str:
    return "\n".join(str(problem) for problem in found.problems)


class TestNames:
    def test_a_mesh_has_its_own_name_and_the_others_that_of_their_namespace(self) -> None:
        found = manifest(
            MESH
            + custom("VirtualNode", "front", "{}")
            + custom("VirtualRouter", "cart", "{listeners: [{portMapping: {port: 80, protocol: http}}]}")
            + custom("VirtualService", "cart", "{}")
            + custom("VirtualGateway", "in", "{namespaceSelector: {matchLabels: {gateway: ingress}}}")
            + custom("GatewayRoute", "all", "{httpRoute: {match: {prefix: /}}}")
        )
        assert list(by_path(found)) == [
            "mesh/shop",
            "mesh/shop/virtualNode/front_web",
            "mesh/shop/virtualRouter/cart_web",
            "mesh/shop/virtualService/cart.web",
            "mesh/shop/virtualGateway/in_web",
            "mesh/shop/virtualGateway/in_web/gatewayRoute/all_web",
        ]

    def test_aws_name_wins_unless_it_is_empty(self) -> None:
        found = manifest(
            MESH.replace("{namespaceSelector", "{awsName: the-shop, namespaceSelector")
            + custom("VirtualService", "cart", "{awsName: cart.example.com}")
            + custom("VirtualService", "pay", "{awsName: ''}")
        )
        assert list(by_path(found)) == [
            "mesh/the-shop",
            "mesh/the-shop/virtualService/cart.example.com",
            "mesh/the-shop/virtualService/pay.web",
        ]

    def test_an_object_without_a_namespace_is_in_the_one_that_the_caller_named(self) -> None:
        text = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front}\n"
        found = manifest(MESH + text, reading=Reading(ACCOUNT, "r", namespace="web"))
        assert "mesh/shop/virtualNode/front_web" in by_path(found)

    def test_lists_hold_objects_and_typed_lists_need_not_repeat_the_kind(self) -> None:
        found = manifest(
            MESH
            + "apiVersion: v1\nkind: List\nitems:\n"
            + "- {apiVersion: appmesh.k8s.aws/v1beta2, kind: VirtualNode, metadata: {name: a, namespace: web}}\n---\n"
            + "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNodeList\n"
            + "items:\n- metadata: {name: b, namespace: web}\n"
        )
        assert {"mesh/shop/virtualNode/a_web", "mesh/shop/virtualNode/b_web"} <= by_path(found).keys()


class TestMembership:
    def test_the_namespace_s_labels_choose_the_mesh(self) -> None:
        other = MESH.replace("shop", "bank").replace("web", "vault")
        found = manifest(MESH + other + custom("VirtualNode", "a", "{}") + custom("VirtualNode", "a", "{}", "vault"))
        assert {"mesh/shop/virtualNode/a_web", "mesh/bank/virtualNode/a_vault"} <= by_path(found).keys()

    def test_no_mesh_for_a_known_namespace_is_told_in_the_controller_s_words(self) -> None:
        found = manifest(MESH.replace("{mesh: shop, ", "{") + custom("VirtualNode", "a", "{}"))
        assert "VirtualNode web/a: failed to find matching mesh for namespace: web, expecting 1 but found 0" in says(
            found
        )

    def test_two_meshes_for_a_namespace_too(self) -> None:
        twice = MESH + MESH.partition("---")[0].replace("name: shop", "name: other") + "---\n"
        found = manifest(twice + custom("VirtualNode", "a", "{}"))
        assert "found multiple matching meshes for namespace: web, expecting 1 but found 2: shop,other" in says(found)

    def test_without_the_namespace_s_document_the_only_mesh_is_taken(self) -> None:
        found = manifest(MESH.partition("---")[0] + "---\n" + custom("VirtualNode", "a", "{}"))
        assert "mesh/shop/virtualNode/a_web" in by_path(found)

    def test_the_label_that_kubernetes_gives_each_namespace_counts(self) -> None:
        selector = "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [web]}]}"
        meshes = custom("Mesh", "a", f"{{namespaceSelector: {selector}}}") + custom("Mesh", "b", "{}")
        found = manifest(meshes + custom("VirtualNode", "n", "{}"))
        assert "mesh/a/virtualNode/n_web" in by_path(found)

    def test_an_object_out_of_a_cluster_tells_its_mesh(self) -> None:
        found = manifest(custom("VirtualNode", "a", "{meshRef: {name: far, uid: 0-0}}"))
        assert "mesh/far/virtualNode/a_web" in by_path(found)

    def test_the_caller_can_name_the_mesh(self) -> None:
        found = manifest(custom("VirtualNode", "a", "{}"), reading=Reading(ACCOUNT, "r", mesh="far"))
        assert list(by_path(found)) == ["mesh/far/virtualNode/a_web"]

    def test_a_mesh_of_another_account_is_used_and_not_made(self) -> None:
        text = MESH.replace("spec: {", "spec: {meshOwner: '999999999999', ")
        found = manifest(text + custom("VirtualNode", "a", "{}"))
        assert [(item.kind, item.account) for item in found.resources] == [("virtualNode", "999999999999")]
        assert any("belongs to account 999999999999" in skipped.why for skipped in found.skipped)

    def test_a_gateway_route_goes_to_the_gateway_of_its_namespace_and_labels(self) -> None:
        gateways = "".join(
            custom(
                "VirtualGateway",
                name,
                "{namespaceSelector: {matchLabels: {gateway: ingress}}, "
                f"gatewayRouteSelector: {{matchLabels: {{to: {name}}}}}}}",
            )
            for name in ("left", "right")
        )
        route = custom("GatewayRoute", "r", "{}").replace("namespace: web}", "namespace: web, labels: {to: right}}")
        assert "mesh/shop/virtualGateway/right_web/gatewayRoute/r_web" in by_path(manifest(MESH + gateways + route))

    def test_a_gateway_that_is_in_no_file_is_the_only_one_that_is_there_or_the_one_named(self) -> None:
        route = MESH + custom("GatewayRoute", "r", "{}")
        there = {(ACCOUNT, "shop", "virtualGateway"): {"in_web"}}
        found = manifest(route, reading=replace(READING, live=there))
        assert "mesh/shop/virtualGateway/in_web/gatewayRoute/r_web" in by_path(found)
        named = manifest(route, reading=replace(READING, gateway="out", live=there))
        assert "mesh/shop/virtualGateway/out/gatewayRoute/r_web" in by_path(named)
        there = {(ACCOUNT, "shop", "virtualGateway"): {"in_web", "out_web"}}
        assert "or say --gateway NAME" in says(manifest(route, reading=replace(READING, live=there)))

    def test_a_gateway_route_without_a_gateway_is_told(self) -> None:
        found = manifest(MESH + custom("GatewayRoute", "r", "{}"), reading=replace(READING, live={}))
        assert "failed to find matching virtualGateway for namespace: web, expecting 1 but found 0" in says(found)


class TestReferences:
    def test_references_become_the_names_of_what_they_refer_to(self) -> None:
        found = by_path(
            manifest(
                MESH
                + custom("VirtualNode", "v1", "{awsName: cart-v1}")
                + custom(
                    "VirtualRouter",
                    "cart",
                    "{listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: all, priority: 1, "
                    "httpRoute: {match: {prefix: /}, "
                    "action: {weightedTargets: [{virtualNodeRef: {name: v1}, weight: 9}, "
                    "{virtualNodeRef: {name: v2, namespace: new}, weight: 1, port: 81}]}}}]}",
                )
                + custom("VirtualService", "cart", "{provider: {virtualRouter: {virtualRouterRef: {name: cart}}}}")
                + custom("VirtualService", "one", "{provider: {virtualNode: {virtualNodeRef: {name: v1}}}}")
                + custom("VirtualNode", "front", "{backends: [{virtualService: {virtualServiceRef: {name: cart}}}]}")
            )
        )
        assert found["mesh/shop/virtualRouter/cart_web/route/all"].spec == {
            "priority": 1,
            "httpRoute": {
                "match": {"prefix": "/"},
                "action": {
                    "weightedTargets": [
                        {"virtualNode": "cart-v1", "weight": 9},
                        {"virtualNode": "v2_new", "weight": 1, "port": 81},
                    ]
                },
            },
        }
        assert found["mesh/shop/virtualService/cart.web"].spec == {
            "provider": {"virtualRouter": {"virtualRouterName": "cart_web"}}
        }
        assert found["mesh/shop/virtualService/one.web"].spec == {
            "provider": {"virtualNode": {"virtualNodeName": "cart-v1"}}
        }
        assert found["mesh/shop/virtualNode/front_web"].spec == {
            "backends": [{"virtualService": {"virtualServiceName": "cart.web"}}]
        }

    def test_what_is_in_no_file_is_looked_for_among_what_is_there(self) -> None:
        there = {(ACCOUNT, "shop", "virtualService"): {"cart.web.svc.cluster.local", "pay.web", "pay.web.svc"}}
        backends = "".join(
            f"{{virtualService: {{virtualServiceRef: {{name: {name}}}}}}}, " for name in ("cart", "pay", "new")
        )
        text = MESH + custom("VirtualNode", "a", f"{{backends: [{backends}]}}")
        found = manifest(text, reading=replace(READING, live=there))
        assert [
            each["virtualService"]["virtualServiceName"]
            for each in by_path(found)["mesh/shop/virtualNode/a_web"].spec["backends"]
        ] == [
            "cart.web.svc.cluster.local",
            "pay.web",
            "new.web",
        ]
        assert [(skipped.what, skipped.why) for skipped in found.skipped if "VirtualService" in skipped.what] == [
            ("VirtualNode web/a's VirtualService web/new", "is in no file, and taken to be named new.web")
        ]

    def test_an_arn_gives_its_name_and_a_wrong_one_is_told(self) -> None:
        arn = "arn:aws:appmesh:eu-west-1:999999999999:mesh/other/virtualService/pay.example.com"
        good = manifest(
            MESH + custom("VirtualNode", "a", f"{{backends: [{{virtualService: {{virtualServiceARN: '{arn}'}}}}]}}")
        )
        assert by_path(good)["mesh/shop/virtualNode/a_web"].spec["backends"] == [
            {"virtualService": {"virtualServiceName": "pay.example.com"}}
        ]
        bad = arn.replace("virtualService", "virtualNode")
        found = manifest(
            MESH + custom("VirtualNode", "a", f"{{backends: [{{virtualService: {{virtualServiceARN: '{bad}'}}}}]}}")
        )
        assert "virtualServiceARN: is not the ARN of a virtualService" in says(found)

    def test_backend_groups_add_their_services_after_the_node_s_own_each_once(self) -> None:
        found = by_path(
            manifest(
                MESH
                + custom("BackendGroup", "colours", "{virtualservices: [{name: red}, {name: blue, namespace: sea}]}")
                + custom("VirtualService", "red", "{awsName: red.example.com}")
                + custom(
                    "VirtualNode",
                    "a",
                    "{backends: [{virtualService: {virtualServiceRef: {name: red}, clientPolicy: {}}}], "
                    "backendGroups: [{name: colours}, {name: '*', namespace: web}]}",
                )
            )
        )
        assert found["mesh/shop/virtualNode/a_web"].spec == {
            "backends": [
                {"virtualService": {"virtualServiceName": "red.example.com", "clientPolicy": {}}},
                {"virtualService": {"virtualServiceName": "blue.sea"}},
            ]
        }

    def test_a_backend_group_that_is_in_no_file_is_told(self) -> None:
        found = manifest(MESH + custom("VirtualNode", "a", "{backendGroups: [{name: gone}]}"))
        assert "BackendGroup web/gone is in no file" in says(found)


class TestSpecs:
    def test_a_mesh_s_service_discovery_has_the_api_s_name(self) -> None:
        spec = (
            "{namespaceSelector: {}, egressFilter: {type: ALLOW_ALL}, meshServiceDiscovery: {ipPreference: IPv4_ONLY}}"
        )
        assert by_path(manifest(custom("Mesh", "m", spec)))["mesh/m"].spec == {
            "egressFilter": {"type": "ALLOW_ALL"},
            "serviceDiscovery": {"ipPreference": "IPv4_ONLY"},
        }

    def test_initialisms_nulls_and_empty_lists(self) -> None:
        spec: dict[str, Any] = {
            "listeners": [
                {
                    "portMapping": {"port": 8080, "protocol": "http2"},
                    "tls": {
                        "mode": "STRICT",
                        "certificate": {"acm": {"certificateARN": "arn:c"}},
                        "validation": {"trust": {"sds": {"secretName": "s"}}, "subjectAlternativeNames": None},
                    },
                    "timeout": {"http2": {"idle": {"unit": "s", "value": 0}}},
                    "connectionPool": {"http2": {"maxRequests": 5}},
                    "outlierDetection": None,
                }
            ],
            "backends": [],
            "backendDefaults": {
                "clientPolicy": {
                    "tls": {
                        "enforce": False,
                        "ports": [],
                        "validation": {"trust": {"acm": {"certificateAuthorityARNs": ["arn:a", "arn:b"]}}},
                    }
                }
            },
            "logging": {},
            "serviceDiscovery": {"dns": {"hostname": "a.example.com", "responseType": "ENDPOINTS"}},
        }
        converted = convert("VirtualNodeSpec", spec, _no_reference)
        assert converted.spec == {
            "listeners": [
                {
                    "portMapping": {"port": 8080, "protocol": "http2"},
                    "tls": {
                        "mode": "STRICT",
                        "certificate": {"acm": {"certificateArn": "arn:c"}},
                        "validation": {"trust": {"sds": {"secretName": "s"}}},
                    },
                    "timeout": {"http2": {"idle": {"unit": "s", "value": 0}}},
                    "connectionPool": {"http2": {"maxRequests": 5}},
                }
            ],
            "backendDefaults": {
                "clientPolicy": {
                    "tls": {
                        "enforce": False,
                        "validation": {"trust": {"acm": {"certificateAuthorityArns": ["arn:a", "arn:b"]}}},
                    }
                }
            },
            "logging": {},
            "serviceDiscovery": {"dns": {"hostname": "a.example.com", "responseType": "ENDPOINTS"}},
        }
        assert (converted.ignored, converted.problems) == ([], [])

    def test_what_is_the_controller_s_own_is_left_out_and_what_nobody_knows_is_told(self) -> None:
        listener = "{portMapping: {port: 80, protocol: http}, logging: {}}"
        found = manifest(MESH + custom("VirtualGateway", "in", f"{{podSelector: {{}}, listeners: [{listener}]}}"))
        assert by_path(found)["mesh/shop/virtualGateway/in_web"].spec == {
            "listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]
        }
        assert [skipped.what for skipped in found.skipped if "field" in skipped.why] == [
            "VirtualGateway web/in spec.listeners[0].logging"
        ]

    def test_routes_know_their_lines_and_the_router_claims_all_of_them(self) -> None:
        text = """\
            apiVersion: appmesh.k8s.aws/v1beta2
            kind: VirtualRouter
            metadata:
              name: r
            spec:
              routes:
                - name: a
                  tcpRoute: {action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}
                - name: b
                  grpcRoute: {match: {serviceName: s}, action: {weightedTargets: []}}
            """
        found = by_path(manifest(text, reading=Reading(ACCOUNT, "r", mesh="m")))
        router, a, b = found.values()
        assert (router.all_children, router.spec) == (True, {})
        assert (a.source, b.source) == ("f.yaml:7", "f.yaml:9")
        assert a.spec == {"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "n_default", "weight": 1}]}}}

    def test_a_route_name_twice_or_missing_is_told(self) -> None:
        found = manifest(MESH + custom("VirtualRouter", "r", "{routes: [{name: a}, {name: a}, {}]}"))
        assert "spec.routes[1].name: a is there twice" in says(found)
        assert "spec.routes[2].name: is required" in says(found)


class TestTheRest:
    def test_what_is_no_app_mesh_resource_is_skipped(self) -> None:
        found = manifest(MESH + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: front, namespace: web}\n")
        assert [(skipped.what, skipped.why) for skipped in found.skipped] == [
            ("Namespace web", "is Kubernetes' own; its labels are used"),
            ("Deployment web/front", "is no App Mesh resource"),
        ]

    def test_an_older_version_is_told(self) -> None:
        found = manifest("apiVersion: appmesh.k8s.aws/v1beta1\nkind: Mesh\nmetadata: {name: m}\n")
        assert "is of appmesh.k8s.aws/v1beta1, and only appmesh.k8s.aws/v1beta2 is understood" in says(found)

    def test_a_variable_that_nobody_replaced_is_told(self) -> None:
        found = manifest(custom("VirtualNode", "a", "{}", "'${APP_NAMESPACE}'"))
        assert "${APP_NAMESPACE} is a variable that nobody has replaced" in says(found)

    def test_the_same_object_twice_is_told_where_it_differs(self) -> None:
        node = custom("VirtualNode", "a", "{}")
        assert not manifest(MESH + node, node).problems
        found = manifest(MESH + node, custom("VirtualNode", "a", "{logging: {}}"))
        assert "VirtualNode web/a: is in f.yaml:11 too, with another spec" in says(found)


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["2"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Near"}]}, False),
    ],
)
def test_label_selectors(selector: object, chosen: bool) -> None:
    assert selects(selector, {"a": "1"}) is chosen


_MEMBERS = (
    *("listeners", "routes", "backends", "name", "virtualService", "virtualServiceRef", "provider", "virtualNode"),
    *("virtualNodeARN", "awsName", "backendGroups", "meshRef", "namespaceSelector", "gatewayRouteSelector", "key"),
    *("matchLabels", "matchExpressions", "operator", "values", "httpRoute", "action", "weightedTargets", "x"),
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["In", "NotIn", "", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_MEMBERS), inner, max_size=3),
    max_leaves=12,
)
_OBJECTS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("appmesh.k8s.aws/v1beta2"),
        "kind": st.sampled_from(sorted([*KIND_NAMES, "BackendGroup", "VirtualNodeList"])),
        "metadata": st.fixed_dictionaries({"name": st.sampled_from("ab"), "namespace": st.just("n"), "labels": _ANY}),
        "spec": _ANY | st.dictionaries(st.sampled_from(_MEMBERS), _ANY, max_size=4),
        "items": st.lists(_ANY, max_size=2),
    }
)


@given(st.lists(_OBJECTS, max_size=4))
def test_any_objects_are_read_or_told(objects: list[dict[str, Any]]) -> None:
    found = read([Document(value, "f", 1) for value in objects], Reading(ACCOUNT, "r", mesh="m", live={}))
    for item in found.resources:
        assert isinstance(item.spec, dict)
        assert item.name
        assert item.mesh


def _no_reference(kind: str, reference: object) -> str:
    raise AssertionError(f"no reference to a {kind} was expected: {reference}")
