"""CloudFormation templates become the calls that CloudFormation itself would have made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import cloudformation
from manifests.cloudformation_parameters import read_parameters
from manifests.document import Desired, Manifest, Reading
from manifests.text import documents
from mesh.errors import BadRequest
from mesh.kinds import KINDS, MESH
from mesh.model.operations import SHAPES

ACCOUNT, OTHER = "111122223333", "444455556666"


def read(
    *texts: str, imports: Mapping[str, str] | None = None, stack: str | None = None, **parameters: str
) -> Manifest:
    found = [
        document for index, text in enumerate(texts) for document in documents(text, f"shop{index or ''}.template.yaml")
    ]
    assert all(cloudformation.is_template(document.value) for document in found)
    values = {name.replace("__", "."): value for name, value in parameters.items()}
    return cloudformation.parse(
        found, Reading(ACCOUNT, "eu-west-1", parameters=values, imports=imports or {}, stack=stack)
    )


def value(expression: str, head: str = "", **given: Any) -> Any:
    """What a virtual node's DNS hostname comes out as, for an expression in YAML's flow style."""
    manifest = read(f"{head}\nResources: {{N: {{{_node(expression)}}}, {_FOREIGN}}}", **given)
    assert not manifest.problems, manifest.problems
    return manifest.resources[-1].spec["serviceDiscovery"]["dns"]["hostname"]


def problem(expression: str, head: str = "", **given: Any) -> str:
    """Why an expression has no value."""
    manifest = read(f"{head}\nResources: {{N: {{{_node(expression)}}}, {_FOREIGN}}}", **given)
    assert not [each for each in manifest.resources if each.name == "n"]
    (found,) = manifest.problems
    where, _, why = (
        str(found).removeprefix("shop.template.yaml:2: ").partition(": Spec.ServiceDiscovery.DNS.Hostname: ")
    )
    assert where == "N"
    return why


def _node(hostname: str) -> str:
    return (
        "Type: AWS::AppMesh::VirtualNode, Properties: {MeshName: m, VirtualNodeName: n, "
        f"Spec: {{ServiceDiscovery: {{DNS: {{Hostname: {hostname}}}}}}}}}"
    )


_FOREIGN = (
    "Lb: {Type: AWS::ElasticLoadBalancingV2::LoadBalancer}, "
    "Registry: {Type: AWS::ServiceDiscovery::Service, Properties: {Name: !Sub 'reg-${AWS::Region}'}}, "
    "Zone: {Type: AWS::Route53::RecordSet, Properties: {Name: !Join [., [api, example]]}}"
)

_LB = "AWS::ElasticLoadBalancingV2::LoadBalancer"
_AT_AWS = "is known to AWS alone: give it with --parameter"


SHOP = """\
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Project: {Type: String}
  Port: {Type: Number, Default: 8080}
  CanaryWeight: {Type: Number, Default: 0, AllowedValues: [0, 1]}
  CaPath: {Type: String, Default: ""}
  Image: {Type: String}
Conditions:
  Validate: !Not [!Equals [!Ref CaPath, ""]]
  Canary: !Equals [!Ref CanaryWeight, 1]
Resources:
  Mesh:
    Type: AWS::AppMesh::Mesh
    Properties:
      MeshName: !Sub '${Project}-mesh'
      Tags: [{Key: team, Value: yes}, {Key: tier, Value: 1}]
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties: {ContainerDefinitions: [{Name: app, Image: !Ref Image}]}
  Front:
    Type: AWS::AppMesh::VirtualNode
    DependsOn: Mesh
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualNodeName: front
      Spec:
        BackendDefaults:
          ClientPolicy:
            TLS:
              Fn::If:
                - Validate
                - Enforce: !If [Canary, True, False]
                  Validation: {Trust: {File: {CertificateChain: !Ref CaPath}}}
                - !Ref AWS::NoValue
        Backends:
          - VirtualService: {VirtualServiceName: !GetAtt ColorService.VirtualServiceName}
        Listeners:
          - PortMapping: {Port: !Ref Port, Protocol: http}
            ConnectionPool: {HTTP: {MaxConnections: 10}}
            OutlierDetection:
              maxServerErrors: 5
              maxEjectionPercent: 100
              interval: {value: 30, unit: s}
              baseEjectionDuration: {value: 5, unit: s}
        ServiceDiscovery:
          AWSCloudMap:
            NamespaceName: !Sub '${Project}.local'
            ServiceName: !GetAtt Registry.Name
            Attributes: [{Key: ECS_TASK_DEFINITION_FAMILY, Value: blue}]
  Registry:
    Type: AWS::ServiceDiscovery::Service
    Properties: {Name: front}
  Router:
    Type: AWS::AppMesh::VirtualRouter
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      Spec: {Listeners: [{PortMapping: {Port: !Ref Port, Protocol: http}}]}
  Route:
    Type: AWS::AppMesh::Route
    DeletionPolicy: Retain
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualRouterName: !GetAtt Router.VirtualRouterName
      RouteName: all
      Spec:
        HttpRoute:
          Match: {Prefix: /}
          Action:
            WeightedTargets:
              - {VirtualNode: !GetAtt Front.VirtualNodeName, Weight: 1}
              - Fn::If:
                  - Canary
                  - {VirtualNode: canary, Weight: !Ref CanaryWeight}
                  - !Ref AWS::NoValue
          RetryPolicy:
            MaxRetries: 2
            PerRetryTimeout: {Unit: s, Value: "3"}
            HttpRetryEvents: [server-error]
            TcpRetryEvents: [connection-error]
  ColorService:
    Type: AWS::AppMesh::VirtualService
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualServiceName: !Sub 'color.${Project}.local'
      Spec: {Provider: {VirtualRouter: {VirtualRouterName: !GetAtt Router.VirtualRouterName}}}
  CanaryNode:
    Type: AWS::AppMesh::VirtualNode
    Condition: Canary
    Properties: {MeshName: !GetAtt Mesh.MeshName, VirtualNodeName: canary, Spec: {}}
Outputs:
  Mesh: {Value: !GetAtt Mesh.MeshName, Export: {Name: !Sub '${Project}:Mesh'}}
  Task: {Value: !Ref Task, Export: {Name: !Sub '${Project}:Task'}}
"""


def test_a_template_becomes_desired_resources() -> None:
    found = {each.name: each for each in read(SHOP, Project="shop").resources}
    assert list(found) == ["shop-mesh", "front", "shop-Router", "all", "color.shop.local"]
    assert found["shop-mesh"] == Desired(
        "mesh", None, "shop-mesh", "", "shop-mesh", {}, {"team": "true", "tier": "1"}, "shop.template.yaml:13"
    )
    assert found["front"].spec == {
        "backendDefaults": {"clientPolicy": {}},
        "backends": [{"virtualService": {"virtualServiceName": "color.shop.local"}}],
        "listeners": [
            {
                "portMapping": {"port": 8080, "protocol": "http"},
                "connectionPool": {"http": {"maxConnections": 10}},
                "outlierDetection": {
                    "maxServerErrors": 5,
                    "maxEjectionPercent": 100,
                    "interval": {"value": 30, "unit": "s"},
                    "baseEjectionDuration": {"value": 5, "unit": "s"},
                },
            }
        ],
        "serviceDiscovery": {
            "awsCloudMap": {
                "namespaceName": "shop.local",
                "serviceName": "front",
                "attributes": [{"key": "ECS_TASK_DEFINITION_FAMILY", "value": "blue"}],
            }
        },
    }
    assert found["all"].parent == "shop-Router"
    assert found["all"].retained
    assert not found["front"].retained
    assert found["all"].spec["httpRoute"]["retryPolicy"] == {
        "maxRetries": 2,
        "perRetryTimeout": {"unit": "s", "value": 3},
        "httpRetryEvents": ["server-error"],
        "tcpRetryEvents": ["connection-error"],
    }
    assert found["front"].tags is None, "a template that says nothing of tags leaves them"


def test_what_is_not_app_mesh_is_listed_and_needs_no_parameters() -> None:
    manifest = read(SHOP, Project="shop")
    assert not manifest.problems, "Image is the task's, and nobody asked for it"
    assert [(each.what, each.why) for each in manifest.skipped] == [
        ("AWS::ECS::TaskDefinition Task", "not App Mesh: it stays with CloudFormation"),
        ("AWS::ServiceDiscovery::Service Registry", "not App Mesh: it stays with AWS Cloud Map"),
        ("AWS::AppMesh::VirtualNode CanaryNode", "its condition Canary is false"),
    ]
    assert manifest.skipped[0].source == "shop.template.yaml:18"


def test_conditions_choose_properties_items_and_resources() -> None:
    manifest = read(SHOP, Project="shop", CanaryWeight="1", CaPath="/ca.pem", Port="80")
    found = {each.name: each for each in manifest.resources}
    assert found["canary"].spec == {}
    assert [each["virtualNode"] for each in found["all"].spec["httpRoute"]["action"]["weightedTargets"]] == [
        "front",
        "canary",
    ]
    assert found["front"].spec["backendDefaults"]["clientPolicy"]["tls"] == {
        "enforce": True,
        "validation": {"trust": {"file": {"certificateChain": "/ca.pem"}}},
    }
    assert found["front"].spec["listeners"][0]["portMapping"]["port"] == 80


def test_json_and_yaml_of_one_template_are_the_same() -> None:
    (document,) = documents(SHOP, "shop.yaml")
    of_json = read(json.dumps(document.value), Project="shop")
    of_yaml = read(SHOP, Project="shop")
    assert [each.spec for each in of_json.resources] == [each.spec for each in of_yaml.resources]
    assert [each.what for each in of_json.skipped] == [each.what for each in of_yaml.skipped]


def test_templates_of_one_run_import_from_each_other() -> None:
    importing = """\
Resources:
  Gateway:
    Type: AWS::AppMesh::VirtualGateway
    Properties:
      MeshName: {'Fn::ImportValue': !Sub 'shop:Mesh'}
      MeshOwner: '444455556666'
      VirtualGatewayName: edge
      Spec: {Listeners: [{PortMapping: {Port: 80, Protocol: http}}]}
"""
    gateway = read(importing, SHOP, Project="shop").resources[0]
    assert (gateway.account, gateway.mesh, gateway.kind) == (OTHER, "shop-mesh", "virtualGateway")
    assert read(importing, imports={"shop:Mesh": "given"}).resources[0].mesh == "given"
    (found,) = read(importing).problems
    assert found.text == (
        "Gateway: MeshName: another stack's export 'shop:Mesh' is wanted: give it with --import-value "
        "'shop:Mesh=VALUE', or apply the template that exports it together with this one"
    )


def test_what_shall_go_needs_no_values_of_its_spec() -> None:
    (document,) = documents(SHOP.replace("!GetAtt Registry.Name", "!GetAtt Unknown.Name"), "shop.yaml")
    reading = Reading(ACCOUNT, "eu-west-1", parameters={"Project": "shop"})
    assert [str(each) for each in cloudformation.parse([document], reading).problems]
    manifest = cloudformation.parse([document], replace(reading, names_only=True))
    assert not manifest.problems
    assert [each.name for each in manifest.resources] == [each.name for each in read(SHOP, Project="shop").resources]


def test_what_cdk_synthesises_is_read() -> None:
    bookkeeping = {
        "Parameters": {"BootstrapVersion": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk/version"}},
        "Conditions": {"Told": {"Fn::Or": [{"Fn::Equals": [{"Ref": "AWS::Region"}, "eu-west-1"]}, {"Condition": "No"}]},
                       "No": {"Fn::Equals": ["a", "b"]}},
        "Rules": {"CheckBootstrapVersion": {"Assertions": [{"Assert": {"Fn::Not": [{"Fn::Contains": [["1"], "2"]}]}}]}},
    }  # fmt: skip
    mesh = {"Type": "AWS::AppMesh::Mesh", "Properties": {"MeshName": "basemesh", "Spec": {}},
            "Metadata": {"aws:cdk:path": "base/mesh/Resource"}}  # fmt: skip
    exported = {"Fn::GetAtt": ["mesh0A1B2C3D", "MeshName"]}
    base = bookkeeping | {
        "Resources": {"mesh0A1B2C3D": mesh, "CDKMetadata": {"Type": "AWS::CDK::Metadata", "Condition": "Told"}},
        "Outputs": {"E": {"Value": exported, "Export": {"Name": "base:ExportsOutputFnGetAttmesh0A1B2C3DMeshName"}}},
    }
    imported = {"Fn::ImportValue": "base:ExportsOutputFnGetAttmesh0A1B2C3DMeshName"}
    service = {"MeshName": imported, "VirtualServiceName": "a.local", "Spec": {}}
    nodes = bookkeeping | {"Resources": {"svc": {"Type": "AWS::AppMesh::VirtualService", "Properties": service}}}
    manifest = read(json.dumps(nodes), json.dumps(base))
    assert not manifest.problems
    assert [(each.kind, each.mesh, each.name) for each in manifest.resources] == [
        ("virtualService", "basemesh", "a.local"),
        ("mesh", "basemesh", "basemesh"),
    ]
    assert [each.why for each in manifest.skipped] == ["CDK's own bookkeeping"]


def test_an_export_that_only_aws_knows_is_asked_for() -> None:
    importing = "Resources: {S: {Type: AWS::AppMesh::VirtualService, Properties: {MeshName: m, VirtualServiceName: "
    importing += "!ImportValue 'shop:Task', Spec: {}}}}"
    (found,) = read(importing, SHOP, Project="shop").problems
    assert "the Ref of Task (AWS::ECS::TaskDefinition) is known to AWS alone" in found.text
    assert "--parameter Task=VALUE" in found.text
    assert read(importing, SHOP, Project="shop", Task="t.local").resources[0].name == "t.local"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("plain.local", "plain.local"),
        ("!Ref AWS::Region", "eu-west-1"),
        ("!Ref AWS::AccountId", ACCOUNT),
        ("!Ref 'AWS::Partition'", "aws"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!Ref AWS::StackName", "shop"),
        ("!Sub 'a.${AWS::StackName}.${!Literal}.${Registry.Name}'", "a.shop.${Literal}.reg-eu-west-1"),
        ("!Sub ['${A}.${P}', {A: !Join ['-', [x, !Ref AWS::Region]]}]", "x-eu-west-1.p1"),
        ("!Join ['.', [a, !Ref P, !Ref AWS::NoValue, 1, true]]", "a.p1.1.true"),
        ("!Join ['', !Ref L]", "xyz"),
        ("!Select [1, !Split ['.', 'a.b.c']]", "b"),
        ("!Select ['0', !Ref L]", "x"),
        ("!Select [4, !Split [':', !GetAtt Mine.Arn]]", ACCOUNT),
        ("{'Fn::Select': [5, {'Fn::Split': [':', {Ref: Mine}]}]}", "mesh/big"),
        ("!FindInMap [Regions, !Ref 'AWS::Region', Host]", "eu.local"),
        ("!FindInMap [Regions, mars, Host, {DefaultValue: !Ref P}]", "p1"),
        ("!If [IsP1, yes.local, no.local]", "yes.local"),
        ("!If [Neither, yes.local, no.local]", "no.local"),
        ("!Ref Zone", "api.example"),
        ("!GetAtt [Registry, Name]", "reg-eu-west-1"),
        ("{'Fn::GetAtt': Mine.MeshName}", "big"),
        ("!GetAtt Mine.ResourceOwner", ACCOUNT),
        ("!GetAtt Mine.MeshOwner", ACCOUNT),
        ("{'Fn::Base64': abc}", "YWJj"),
        ("{'Fn::ToJsonString': {a: !Ref P}}", '{"a":"p1"}'),
        ("8080", "8080"),
        ("no", "false"),
    ],
)
def test_every_function_has_cloudformations_value(expression: str, expected: str) -> None:
    head = (
        "Parameters: {P: {Type: String, Default: p1}, L: {Type: CommaDelimitedList, Default: 'x, y,z'}}\n"
        "Mappings: {Regions: {eu-west-1: {Host: eu.local}}}\n"
        "Conditions:\n"
        "  IsP1: !Equals [!Ref P, p1]\n"
        "  Far: !Not [!Equals [!Ref 'AWS::Region', eu-west-1]]\n"
        "  Neither: !And [!Condition IsP1, !Or [!Condition Far, !Equals [1, 2]]]"
    )
    text = f"{head}\nResources: {{Mine: {{Type: AWS::AppMesh::Mesh, Properties: {{MeshName: big}}}}, "
    manifest = read(f"{text}N: {{{_node(expression)}}}, {_FOREIGN}}}")
    assert not manifest.problems, manifest.problems
    assert manifest.resources[-1].spec["serviceDiscovery"]["dns"]["hostname"] == expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("!GetAtt Lb.DNSName", f"the DNSName of Lb ({_LB}) {_AT_AWS} Lb.DNSName=VALUE"),
        ("!Ref Lb", f"the Ref of Lb ({_LB}) {_AT_AWS} Lb=VALUE"),
        ("!Ref AWS::StackId", f"the AWS::StackId {_AT_AWS} AWS::StackId=VALUE"),
        ("!GetAtt N.Uid", "the Uid of N is not known before it is created: give it with --parameter N.Uid=VALUE"),
        ("!GetAtt N.RouteName", "N (AWS::AppMesh::VirtualNode) has no attribute RouteName"),
        ("!Ref Nobody", "there is no Nobody in Parameters or Resources"),
        ("!Sub '${Nobody}'", "there is no Nobody in Parameters or Resources"),
        ("!If [Nobody, a, b]", "there is no condition Nobody in Conditions"),
        ("!FindInMap [A, b, c]", "Mappings have no A.b.c"),
        ("!Select [3, [a]]", "Fn::Select: there is no item 3 in a list of 1"),
        ("!Join ['.', a]", "Fn::Join needs a list, and is given text"),
        ("!Join ['.']", "Fn::Join takes a list of 2, and is given a list of 1"),
        ("!Split ['', a]", "Fn::Split: the delimiter is empty"),
        ("{'Fn::GetAZs': ''}", "Fn::GetAZs asks AWS: write the value that it gives"),
        ("{'Fn::Nothing': ''}", "Fn::Nothing is not known here: write the value that it gives"),
        ("{Ref: A, Else: B}", "Ref must stand alone in its object"),
        ("'{{resolve:ssm:/a:1}}'", "{{resolve:ssm:/a:1}} asks AWS: write the value that it gives"),
        ("[a]", "must be text here, and is a list of 1"),
        ("~", "is empty (null), which CloudFormation does not allow: take it out"),
    ],
)
def test_what_has_no_value_is_said_with_its_path(expression: str, why: str) -> None:
    assert problem(expression) == why


def test_values_that_only_aws_knows_can_be_given() -> None:
    assert value("!GetAtt Lb.DNSName", Lb__DNSName="lb.example") == "lb.example"
    assert value("!Sub 'x.${Lb.DNSName}'", Lb__DNSName="lb.example") == "x.lb.example"
    assert value("!Ref Lb", Lb="lb") == "lb"
    assert value("!GetAtt N.Uid", N__Uid="u") == "u"


@pytest.mark.parametrize(
    ("declared", "given", "why"),
    [
        ("{Type: String}", None, "has no value: give it with --parameter P=V"),
        ("{Type: Number}", "x", "must be a number"),
        ("{Type: Number, MinValue: 3}", "2", "must be from 3 to any"),
        ("{Type: Number, MinValue: 1, MaxValue: 2.5}", "3", "must be from 1 to 2.5"),
        ("{Type: Number, MaxValue: many}", "3", "has a MaxValue that is no number"),
        ("{Type: String, AllowedValues: [a, b]}", "c", "must be one of a, b"),
        ("{Type: String, AllowedPattern: '[a-z]+'}", "A", "must match [a-z]+"),
        ("{Type: String, MinLength: 2, MaxLength: 3}", "a", "must have from 2 to 3 characters"),
        ("{Type: List<Number>}", "1,b", "must be a number"),
        ("{Type: String, AllowedValues: [a], ConstraintDescription: is odd.}", "c", "is odd."),
    ],
)
def test_parameters_are_what_the_template_demands(declared: str, given: str | None, why: str) -> None:
    values = {} if given is None else {"P": given}
    assert (
        problem("!Join ['', [!Ref P]]", f"Parameters: {{P: {declared}}}", **values)
        == f"the template's parameter P {why}"
    )


def test_an_ssm_parameter_is_asked_for() -> None:
    head = "Parameters: {P: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /a/b}}"
    assert problem("!Ref P", head).startswith(
        "the P (an SSM parameter) is known to AWS alone: give it with --parameter P="
    )
    assert value("!Ref P", head, P="found") == "found"


@pytest.mark.parametrize(
    "content",
    [
        '[{"ParameterKey": "Port", "ParameterValue": "80"}, {"ParameterKey": "Zones", "ParameterValue": ["a", "b"]}]',
        '["Port=80", "Zones=a,b"]',
        '{"Parameters": {"Port": 80, "Zones": "a,b"}}',
        "Port: 80\nZones: [a, b]\n",
    ],
)
def test_parameters_are_read_from_a_file_of_any_tool(content: str) -> None:
    assert read_parameters(content, "p.json") == {"Port": "80", "Zones": "a,b"}


@pytest.mark.parametrize("content", ["", "[1]", '{"Parameters": 3}', '{"a": {"b": 1}}', "a: 1\n---\nb: 2\n", "{"])
def test_a_file_that_has_no_parameters_is_told(content: str) -> None:
    with pytest.raises(BadRequest, match=r"p\.json"):
        read_parameters(content, "p.json")


def test_a_parameter_that_no_template_has_is_an_error() -> None:
    (found,) = read(SHOP, Project="shop", Prot="80").problems
    assert found.text == "--parameter Prot: no template has a parameter or a resource of that name"


def test_values_that_are_defined_by_themselves_are_found() -> None:
    assert "is defined by itself" in problem("!If [C, a, b]", "Conditions: {C: !Not [!Condition C]}")
    text = (
        "Resources:\n  A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: !GetAtt B.MeshName}}\n"
        "  B: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: !Sub 'x${A.MeshName}'}}\n"
    )
    assert ["is defined by itself" in each.text for each in read(text).problems] == [True, True]


def test_all_that_is_wrong_with_a_resource_is_said_at_once() -> None:
    text = """\
Resources:
  N:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: m
      Colour: red
      Spec:
        Listeners:
          - PortMapping: {Port: eighty, Protocol: http, port: 3}
            TLS: [STRICT]
        Backends: {}
        BackendDefaults: {ClientPolicy: {TLS: {Enforce: perhaps}}}
  Odd: {Type: AWS::AppMesh::VirtualThing}
  Bare: {Type: AWS::AppMesh::VirtualRouter, Properties: {MeshName: m}}
  Service: {Type: AWS::AppMesh::VirtualService, Properties: {MeshName: m, Spec: {}}}
  Text: hello
"""
    first, *others = map(str, read(text).problems)
    assert first.startswith("shop.template.yaml:1: Text makes the template's resources inside AWS: apply what it makes")
    node = "shop.template.yaml:3: N: "
    assert others == [
        node + "Colour: is not a known property (known: MeshName, MeshOwner, Spec, Tags, VirtualNodeName)",
        node + 'Spec.Listeners[0].PortMapping.Port: "eighty" must be a whole number',
        node + "Spec.Listeners[0].PortMapping.port: is there twice, in two spellings",
        node + "Spec.Listeners[0].TLS: a list of 1 must be an object",
        node + "Spec.Backends: an object of 0 must be a list",
        node + 'Spec.BackendDefaults.ClientPolicy.TLS.Enforce: "perhaps" must be true or false',
        "shop.template.yaml:13: Odd: there is no resource type AWS::AppMesh::VirtualThing",
        "shop.template.yaml:14: Bare: Spec: is required",
        "shop.template.yaml:15: Service: VirtualServiceName: is required",
    ]


def test_a_key_twice_matters_where_it_is_app_mesh_s() -> None:
    node = "  N: {Type: AWS::AppMesh::VirtualNode, Properties: {MeshName: m, Spec: {}, Spec: {Backends: []}}}\n"
    elsewhere = "  S: {Type: AWS::ECS::Service, Properties: {Cluster: a, Cluster: b}}\n"
    assert not read("Resources:\n" + elsewhere).problems
    assert [each.text for each in read("Resources:\n" + elsewhere + node).problems] == [
        "N: the key Spec is there twice"
    ]


def test_a_ref_where_a_name_is_wanted_is_explained() -> None:
    text = (
        "Resources:\n  M: {Type: AWS::AppMesh::Mesh}\n"
        "  R: {Type: AWS::AppMesh::VirtualRouter, Properties: {MeshName: !Ref M, Spec: {}}}\n"
    )
    manifest = read(text, stack="prod")
    assert manifest.resources[0].name == "prod-M"
    (found,) = manifest.problems
    assert "!Ref of an App Mesh resource gives its ARN, !GetAtt <resource>.MeshName its name" in found.text


def test_a_mesh_needs_no_properties() -> None:
    for properties in ("", ", Properties: {}", ", Properties: ~"):
        (mesh,) = read(f"Resources: {{M: {{Type: AWS::AppMesh::Mesh{properties}}}}}", stack="s").resources
        assert (mesh.name, mesh.spec, mesh.tags) == ("s-M", {}, None)


def test_macros_and_loops_are_not_guessed() -> None:
    unexpanded = "'Fn::ForEach::X': [I, [a], {}], 'Fn::Transform': {Name: AWS::Include}"
    text = f"Transform: [AWS::LanguageExtensions, Ours]\nResources: {{{unexpanded}, {_FOREIGN}}}"
    assert [each.text.split(" makes")[0] for each in read(text).problems] == ["Ours", "Fn::ForEach::X", "Fn::Transform"]
    assert not read("Transform: AWS::Serverless-2016-10-31\nResources: {" + _FOREIGN + "}").problems


def test_templates_are_told_from_other_documents() -> None:
    assert cloudformation.is_template({"AWSTemplateFormatVersion": "2010-09-09"})
    assert not cloudformation.is_template({"apiVersion": "v1", "kind": "List", "items": []})
    assert not cloudformation.is_template({"Resources": {"a": {"Type": "x"}}})
    assert not cloudformation.is_template(["Resources"])


def test_the_calls_are_valid_for_botocore() -> None:
    service = Session().get_service_model("appmesh")
    every = read(SHOP, Project="shop", CanaryWeight="1", CaPath="/ca.pem").resources
    for each in every:
        kind = KINDS[each.kind]
        call: dict[str, Any] = {"meshName": each.mesh, kind.name_member: each.name, "spec": each.spec}
        if kind.parent:
            call[KINDS[kind.parent].name_member] = each.parent
        report = ParamValidator().validate(call, service.operation_model(f"Create{kind.title}").input_shape)
        assert not report.has_errors(), report.generate_report()


WORDS = (
    "Ref", "Fn::Sub", "Fn::GetAtt", "Fn::Join", "Fn::Select", "Fn::Split", "Fn::If", "Fn::FindInMap", "Fn::ImportValue",
    "Fn::Equals", "Fn::And", "Fn::Not", "Fn::Length", "Fn::Base64", "Fn::GetAZs", "Condition", "Type", "Properties",
    "MeshName", "VirtualNodeName", "Spec", "Tags", "Key", "Listeners", "Default", "AllowedValues", "AllowedPattern",
    "MinValue", "MaxLength", "Export", "Name", "Value", "A", "B", "Transform", "DeletionPolicy",
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.sampled_from(
    ["A", "B", "A.B", "${A}", "${A.MeshName}", "AWS::Region", "AWS::NoValue", "AWS::AppMesh::Mesh", "Number", "String",
     "AWS::AppMesh::VirtualNode", "AWS::ECS::Service", "List<Number>", "CommaDelimitedList", "{{resolve:x}}", "[", ""]
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=12,
)
RESOURCE = st.fixed_dictionaries(
    {"Type": st.sampled_from(["AWS::AppMesh::Mesh", "AWS::AppMesh::VirtualNode", "AWS::ECS::Service"])},
    optional={"Properties": ANYTHING, "Condition": LEAVES, "DeletionPolicy": LEAVES},
)


@settings(max_examples=30)
@given(
    template=st.fixed_dictionaries(
        {"Resources": st.dictionaries(st.sampled_from("ABC"), RESOURCE, min_size=1) | ANYTHING},
        optional={
            name: st.dictionaries(st.sampled_from("ABC"), ANYTHING) | ANYTHING
            for name in ("Parameters", "Conditions", "Mappings", "Outputs", "Transform")
        },
    ),
    parameters=st.dictionaries(st.sampled_from(["A", "B", "A.B", "C"]), st.sampled_from(["", "1", "x,2"])),
)
def test_no_template_is_too_odd_to_be_answered(template: dict[str, Any], parameters: dict[str, str]) -> None:
    template["AWSTemplateFormatVersion"] = "2010-09-09"
    (document,) = documents(json.dumps(template), "odd.json")
    manifest = cloudformation.parse([document], Reading(ACCOUNT, "eu-west-1", parameters=parameters))
    assert all(str(each) for each in manifest.problems)


def values(shape_name: str) -> st.SearchStrategy[Any]:
    """Any value of a shape of the model, bounds aside."""
    shape = SHAPES[shape_name]
    if shape["type"] == "structure":
        members = {name: later(each["shape"]) for name, each in shape["members"].items()}
        return st.fixed_dictionaries({}, optional=members)
    if shape["type"] == "list":
        return st.lists(later(shape["member"]), max_size=2)
    return {
        "string": st.text(alphabet="abc/.-", max_size=6),
        "integer": st.integers(0, 99),
        "long": st.integers(0, 99),
        "boolean": st.booleans(),
    }[shape["type"]]


def later(shape_name: str) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: values(shape_name))


def in_cloudformation(value: Any, as_text: bool) -> Any:
    """As CloudFormation's own reference spells it: acronyms in capitals, scalars perhaps as text."""
    capitals = {"tls", "acm", "sds", "http", "http2", "grpc", "tcp", "dns"}
    if isinstance(value, dict):
        return {
            name.upper()
            if name in capitals
            else "AWSCloudMap"
            if name == "awsCloudMap"
            else name[0].upper() + name[1:]: (in_cloudformation(item, as_text))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [in_cloudformation(item, as_text) for item in value]
    return str(value).lower() if as_text and isinstance(value, int) else value


@settings(max_examples=8)
@given(data=st.data(), as_text=st.booleans())
@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind is not MESH], ids=lambda kind: kind.name)
def test_every_property_of_the_model_arrives(kind: Any, data: st.DataObject, as_text: bool) -> None:
    spec = data.draw(values(f"{kind.title}Spec"))
    properties: dict[str, Any] = {"MeshName": "m", "Spec": in_cloudformation(spec, as_text)}
    properties[f"{kind.title}Name"] = "n"
    if kind.parent:
        properties[f"{KINDS[kind.parent].title}Name"] = "p"
    template = {"Resources": {"R": {"Type": f"AWS::AppMesh::{kind.title}", "Properties": properties}}}
    manifest = read(json.dumps(template))
    assert manifest.problems == ()
    assert manifest.resources[0].spec == spec
