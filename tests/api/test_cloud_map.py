"""Cloud Map through unmodified boto3: every operation with a success, and with each error that anything can provoke."""

# ruff: noqa: ARG005 - a table of functions with one shape

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from api.cloud_map import RegistryCommands
from api.cloud_map_wire import CBOR_PATH, TARGET
from api.outcomes import Origin
from mesh.commands import idempotency_token
from mesh.registry.commands import CopyInstances
from mesh.registry.operations import OPERATIONS, SHAPES
from mesh.registry.state import ServiceKey
from tests.api.conftest import ACCOUNT, ADMIN, REGION, Cloud, Server, call
from tests.api.signing import Signing, ask
from tests.aws_cli import run_all

SERVICE = "servicediscovery"
DNS = {"DnsRecords": [{"Type": "A", "TTL": 60}]}
IP = {"AWS_INSTANCE_IPV4": "10.0.0.1"}


def client_of(
    server: Server, protocol: str | None = None, key: tuple[str, str] = (ADMIN.access_key_id, ADMIN.secret)
) -> Any:
    """A boto3 client of Cloud Map. `protocol`: what it speaks, where that is not botocore's choice."""
    loader = Loader()
    if protocol is not None:
        model = loader.load_service_model(SERVICE, "service-2")
        model["metadata"] |= {"protocol": protocol, "protocols": [protocol]}
    session = boto3.session.Session(*key, region_name=REGION)
    session._session.register_component("data_loader", loader)
    return session.client(
        SERVICE,
        endpoint_url=server.url,
        config=Config(parameter_validation=False, inject_host_prefix=False, retries={"total_max_attempts": 1}),
    )


class Shop:
    """A namespace with a service of one instance, and the calls that tests make."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.ids: dict[str, str] = {}

    async def do(self, operation: str, **members: Any) -> Any:
        return await call(self.client, operation, **members)

    async def refused(self, operation: str, **members: Any) -> tuple[str, int, dict[str, Any]]:
        with pytest.raises(ClientError) as caught:
            await self.do(operation, **members)
        response = caught.value.response
        return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], dict(response)

    async def namespace(self, name: str, kind: str = "http", **members: Any) -> str:
        made = await self.do(f"create_{kind}_namespace", Name=name, **members)
        done = await self.do("get_operation", OperationId=made["OperationId"])
        assert done["Operation"]["Status"] == "SUCCESS"
        return str(done["Operation"]["Targets"]["NAMESPACE"])

    async def service(self, namespace: str, name: str, **members: Any) -> str:
        made = await self.do("create_service", NamespaceId=namespace, Name=name, **members)
        return str(made["Service"]["Id"])

    async def stock(self) -> Shop:
        namespace = self.ids["namespace"] = await self.namespace("shop.local")
        service = self.ids["service"] = await self.service(namespace, "orders", HealthCheckCustomConfig={})
        registered = await self.do("register_instance", ServiceId=service, InstanceId="i-1", Attributes=IP)
        self.ids["operation"] = registered["OperationId"]
        found = await self.do("get_service", Id=service)
        self.ids["arn"] = found["Service"]["Arn"]
        return self


@pytest.fixture(params=["json", "smithy-rpc-v2-cbor", None], ids=["json", "cbor", "as botocore chooses"])
async def shop(cloud: Cloud, request: pytest.FixtureRequest) -> Shop:
    return await Shop(client_of(cloud.server, request.param)).stock()


async def test_an_instance_lives_through_an_unmodified_boto3(shop: Shop) -> None:
    found = await shop.do("discover_instances", NamespaceName="shop.local", ServiceName="orders")
    assert found["Instances"] == [
        {
            "InstanceId": "i-1",
            "NamespaceName": "shop.local",
            "ServiceName": "orders",
            "HealthStatus": "HEALTHY",
            "Attributes": IP,
        }
    ]
    service = (await shop.do("get_service", Id=shop.ids["arn"]))["Service"]
    assert isinstance(service["CreateDate"], datetime)
    assert abs((datetime.now(UTC) - service["CreateDate"]).total_seconds()) < 600
    assert (service["Type"], service["InstanceCount"], service["NamespaceId"]) == ("HTTP", 1, shop.ids["namespace"])
    assert service["HealthCheckCustomConfig"] == {"FailureThreshold": 1}
    assert service["Arn"] == f"arn:aws:servicediscovery:{REGION}:{ACCOUNT}:service/{shop.ids['service']}"
    namespace = (await shop.do("get_namespace", Id=shop.ids["namespace"]))["Namespace"]
    assert (namespace["Name"], namespace["Type"], namespace["ServiceCount"]) == ("shop.local", "HTTP", 1)
    assert namespace["Properties"]["HttpProperties"] == {"HttpName": "shop.local"}


async def test_a_revision_moves_with_each_change_of_the_instances_and_with_nothing_else(shop: Shop) -> None:
    async def revision() -> int:
        told = await shop.do("discover_instances_revision", NamespaceName="shop.local", ServiceName="orders")
        found = await shop.do("discover_instances", NamespaceName="shop.local", ServiceName="orders")
        assert found["InstancesRevision"] == told["InstancesRevision"]
        return int(told["InstancesRevision"])

    ids = {"ServiceId": shop.ids["service"], "InstanceId": "i-1"}
    first = await revision()
    await shop.do("tag_resource", ResourceARN=shop.ids["arn"], Tags=[{"Key": "team", "Value": "mesh"}])
    assert await revision() == first
    await shop.do("register_instance", **ids, Attributes={**IP, "color": "blue"})
    await shop.do("update_instance_custom_health_status", **ids, Status="UNHEALTHY")
    await shop.do("update_instance_custom_health_status", **ids, Status="UNHEALTHY")
    await shop.do("deregister_instance", **ids)
    assert await revision() == first + 3


async def test_discovery_by_attributes_and_health(shop: Shop) -> None:
    service = shop.ids["service"]
    for name, color, zone in (("a", "blue", "a"), ("b", "blue", "b"), ("c", "green", "a")):
        attributes = {**IP, "color": color, "AVAILABILITY_ZONE": zone}
        await shop.do("register_instance", ServiceId=service, InstanceId=name, Attributes=attributes)
    health = {"ServiceId": service, "InstanceId": "b", "Status": "UNHEALTHY"}
    await shop.do("update_instance_custom_health_status", **health)

    async def found(**members: Any) -> str:
        answer = await shop.do("discover_instances", NamespaceName="shop.local", ServiceName="orders", **members)
        return " ".join(each["InstanceId"] for each in answer["Instances"])

    blue = {"color": "blue"}
    assert await found() == "a c i-1"
    assert await found(HealthStatus="ALL") == "a b c i-1"
    assert await found(HealthStatus="UNHEALTHY") == "b"
    assert await found(HealthStatus="HEALTHY", QueryParameters=blue) == "a"
    assert await found(QueryParameters={"AVAILABILITY_ZONE": "b"}) == "b", "none is healthy, so all"
    assert await found(HealthStatus="ALL", QueryParameters=blue, OptionalParameters={"AVAILABILITY_ZONE": "b"}) == "b"
    assert await found(HealthStatus="ALL", QueryParameters=blue, OptionalParameters={"AVAILABILITY_ZONE": "z"}) == "a b"
    assert await found(HealthStatus="ALL", MaxResults=2) == "a b"
    assert await found(QueryParameters={"color": "red"}) == ""
    status = await shop.do("get_instances_health_status", ServiceId=service, Instances=["a", "b"])
    assert status["Status"] == {"a": "HEALTHY", "b": "UNHEALTHY"}


async def test_without_a_check_health_is_unknown_and_counts_for_nothing(shop: Shop) -> None:
    service = await shop.service(shop.ids["namespace"], "plain")
    await shop.do("register_instance", ServiceId=service, InstanceId="i", Attributes=IP)
    found = await shop.do(
        "discover_instances", NamespaceName="shop.local", ServiceName="plain", HealthStatus="UNHEALTHY"
    )
    assert [each["HealthStatus"] for each in found["Instances"]] == ["UNKNOWN"]


async def test_lists_in_pages_and_with_filters(shop: Shop) -> None:
    dns = await shop.namespace(
        "zz.local", "private_dns", Vpc="vpc-1", Properties={"DnsProperties": {"SOA": {"TTL": 9}}}
    )
    await shop.service(dns, "web", DnsConfig=DNS)
    for index in range(5):
        await shop.do(
            "register_instance", ServiceId=shop.ids["service"], InstanceId=f"p-{index}", Attributes={"n": str(index)}
        )
    token: dict[str, str] = {}
    names: list[str] = []
    while True:
        found = await shop.do("list_instances", ServiceId=shop.ids["service"], MaxResults=2, **token)
        names += [each["Id"] for each in found["Instances"]]
        if "NextToken" not in found:
            break
        token = {"NextToken": found["NextToken"]}
    assert names == ["i-1", "p-0", "p-1", "p-2", "p-3", "p-4"]
    filters: list[tuple[str, dict[str, Any], list[str]]] = [
        ("TYPE", {"Values": ["DNS_PRIVATE"]}, ["zz.local"]),
        ("NAME", {"Values": ["sh"], "Condition": "BEGINS_WITH"}, ["shop.local"]),
        ("HTTP_NAME", {"Values": ["zz.local"], "Condition": "EQ"}, ["zz.local"]),
        ("RESOURCE_OWNER", {"Values": ["SELF"]}, ["shop.local", "zz.local"]),
        ("RESOURCE_OWNER", {"Values": ["OTHER_ACCOUNTS"]}, []),
    ]
    for name, told, expected in filters:
        listed = await shop.do("list_namespaces", Filters=[{"Name": name, **told}])
        assert [each["Name"] for each in listed["Namespaces"]] == expected, (name, told)
    listed = await shop.do("list_services", Filters=[{"Name": "NAMESPACE_ID", "Values": [dns]}])
    assert [(each["Name"], each["Type"]) for each in listed["Services"]] == [("web", "DNS_HTTP")]
    now = int(datetime.now(UTC).timestamp())
    listed = await shop.do(
        "list_operations",
        Filters=[
            {"Name": "SERVICE_ID", "Values": [shop.ids["service"]]},
            {"Name": "TYPE", "Values": ["REGISTER_INSTANCE"], "Condition": "IN"},
            {"Name": "STATUS", "Values": ["SUCCESS"]},
            {"Name": "UPDATE_DATE", "Values": [str(now - 600), str(now + 600)], "Condition": "BETWEEN"},
        ],
    )
    assert len(listed["Operations"]) == 6


async def test_what_is_changed_and_taken_away(shop: Shop) -> None:
    ids, arn = shop.ids, shop.ids["arn"]
    await shop.do("update_http_namespace", Id=ids["namespace"], Namespace={"Description": "the shop"})
    namespace = (await shop.do("get_namespace", Id=ids["namespace"]))["Namespace"]
    assert namespace["Description"] == "the shop"
    changed = await shop.do("update_service", Id=ids["service"], Service={"Description": "orders of the shop"})
    done = await shop.do("get_operation", OperationId=changed["OperationId"])
    assert (done["Operation"]["Type"], done["Operation"]["Targets"]) == ("UPDATE_SERVICE", {"SERVICE": ids["service"]})
    await shop.do("update_service_attributes", ServiceId=ids["service"], Attributes={"port": "80", "gone": "x"})
    await shop.do("delete_service_attributes", ServiceId=ids["service"], Attributes=["gone"])
    told = await shop.do("get_service_attributes", ServiceId=ids["service"])
    assert told["ServiceAttributes"]["Attributes"] == {"port": "80"}
    await shop.do("tag_resource", ResourceARN=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    await shop.do("untag_resource", ResourceARN=arn, TagKeys=["a", "none"])
    assert (await shop.do("list_tags_for_resource", ResourceARN=arn))["Tags"] == [{"Key": "b", "Value": "2"}]
    await shop.do("deregister_instance", ServiceId=ids["service"], InstanceId="i-1")
    await shop.do("delete_service", Id=ids["service"])
    await shop.do("delete_namespace", Id=ids["namespace"])
    assert (await shop.do("list_namespaces"))["Namespaces"] == []


async def test_a_repeated_request_id_registers_once(shop: Shop) -> None:
    told = {"ServiceId": shop.ids["service"], "InstanceId": "once", "CreatorRequestId": "r-1", "Attributes": IP}
    first = await shop.do("register_instance", **told)
    again = await shop.do("register_instance", **told)
    assert first["OperationId"] == again["OperationId"]
    code, status, response = await shop.refused("register_instance", **{**told, "InstanceId": "another"})
    assert (code, status) == ("DuplicateRequest", 409)
    assert response["DuplicateOperationId"] == first["OperationId"]
    made = await shop.do("create_service", NamespaceId=shop.ids["namespace"], Name="n", CreatorRequestId="r-2")
    same = await shop.do("create_service", NamespaceId=shop.ids["namespace"], Name="n", CreatorRequestId="r-2")
    assert made["Service"] == same["Service"]


Case = tuple[str, str, Callable[[dict[str, str]], dict[str, Any]]]
NOWHERE = {"ServiceId": "srv-none", "InstanceId": "i-1"}
NO_ARN = f"arn:aws:servicediscovery:{REGION}:{ACCOUNT}:service/srv-none"
MANY_TAGS = [{"Key": f"k{index}", "Value": ""} for index in range(51)]
CASES: list[Case] = [
    ("CreateHttpNamespace", "NamespaceAlreadyExists", lambda ids: {"Name": "shop.local"}),
    ("CreateHttpNamespace", "InvalidInput", lambda ids: {"Name": "white space"}),
    ("CreateHttpNamespace", "TooManyTagsException", lambda ids: {"Name": "x", "Tags": MANY_TAGS}),
    ("CreateHttpNamespace", "DuplicateRequest", lambda ids: {"Name": "other", "CreatorRequestId": "used"}),
    ("CreatePrivateDnsNamespace", "NamespaceAlreadyExists", lambda ids: {"Name": "shop.local", "Vpc": "vpc-1"}),
    ("CreatePrivateDnsNamespace", "InvalidInput", lambda ids: {"Name": "x.local"}),
    ("CreatePrivateDnsNamespace", "TooManyTagsException", lambda ids: {"Name": "x", "Vpc": "v", "Tags": MANY_TAGS}),
    ("CreatePublicDnsNamespace", "NamespaceAlreadyExists", lambda ids: {"Name": "shop.local"}),
    ("CreatePublicDnsNamespace", "InvalidInput", lambda ids: {"Name": "no-dot"}),
    ("CreatePublicDnsNamespace", "TooManyTagsException", lambda ids: {"Name": "x.com", "Tags": MANY_TAGS}),
    ("CreateService", "NamespaceNotFound", lambda ids: {"Name": "x", "NamespaceId": "ns-none"}),
    ("CreateService", "ServiceAlreadyExists", lambda ids: {"Name": "orders", "NamespaceId": ids["namespace"]}),
    ("CreateService", "InvalidInput", lambda ids: {"Name": "x", "NamespaceId": ids["namespace"], "DnsConfig": DNS}),
    ("CreateService", "TooManyTagsException",
     lambda ids: {"Name": "x", "NamespaceId": ids["namespace"], "Tags": MANY_TAGS}),
    ("DeleteNamespace", "NamespaceNotFound", lambda ids: {"Id": "ns-none"}),
    ("DeleteNamespace", "ResourceInUse", lambda ids: {"Id": ids["namespace"]}),
    ("DeleteNamespace", "InvalidInput", lambda ids: {}),
    ("DeleteService", "ServiceNotFound", lambda ids: {"Id": "srv-none"}),
    ("DeleteService", "ResourceInUse", lambda ids: {"Id": ids["service"]}),
    ("DeleteService", "InvalidInput", lambda ids: {}),
    ("DeleteServiceAttributes", "ServiceNotFound", lambda ids: {"ServiceId": "srv-none", "Attributes": ["a"]}),
    ("DeleteServiceAttributes", "InvalidInput", lambda ids: {"ServiceId": ids["service"], "Attributes": []}),
    ("UpdateServiceAttributes", "ServiceNotFound", lambda ids: {"ServiceId": "srv-none", "Attributes": {"a": "b"}}),
    ("UpdateServiceAttributes", "InvalidInput", lambda ids: {"ServiceId": ids["service"], "Attributes": {}}),
    ("UpdateServiceAttributes", "ServiceAttributesLimitExceededException",
     lambda ids: {"ServiceId": ids["full"], "Attributes": {"one": "more"}}),
    ("GetServiceAttributes", "ServiceNotFound", lambda ids: {"ServiceId": "srv-none"}),
    ("GetServiceAttributes", "InvalidInput", lambda ids: {}),
    ("DeregisterInstance", "InstanceNotFound", lambda ids: {"ServiceId": ids["service"], "InstanceId": "none"}),
    ("DeregisterInstance", "ServiceNotFound", lambda ids: NOWHERE),
    ("DeregisterInstance", "InvalidInput", lambda ids: {"ServiceId": ids["service"]}),
    ("DiscoverInstances", "NamespaceNotFound", lambda ids: {"NamespaceName": "none", "ServiceName": "orders"}),
    ("DiscoverInstances", "ServiceNotFound", lambda ids: {"NamespaceName": "shop.local", "ServiceName": "none"}),
    ("DiscoverInstances", "InvalidInput", lambda ids: {"NamespaceName": "shop.local"}),
    ("DiscoverInstancesRevision", "NamespaceNotFound", lambda ids: {"NamespaceName": "none", "ServiceName": "orders"}),
    ("DiscoverInstancesRevision", "ServiceNotFound",
     lambda ids: {"NamespaceName": "shop.local", "ServiceName": "none"}),
    ("DiscoverInstancesRevision", "InvalidInput", lambda ids: {"NamespaceName": "shop.local"}),
    ("GetInstance", "InstanceNotFound", lambda ids: {"ServiceId": ids["service"], "InstanceId": "none"}),
    ("GetInstance", "ServiceNotFound", lambda ids: NOWHERE),
    ("GetInstance", "InvalidInput", lambda ids: {"ServiceId": ids["service"]}),
    ("GetInstancesHealthStatus", "InstanceNotFound", lambda ids: {"ServiceId": ids["service"], "Instances": ["none"]}),
    ("GetInstancesHealthStatus", "ServiceNotFound", lambda ids: {"ServiceId": "srv-none"}),
    ("GetInstancesHealthStatus", "InvalidInput", lambda ids: {"ServiceId": ids["service"], "MaxResults": 101}),
    ("GetNamespace", "NamespaceNotFound", lambda ids: {"Id": "ns-none"}),
    ("GetNamespace", "InvalidInput", lambda ids: {}),
    ("GetOperation", "OperationNotFound", lambda ids: {"OperationId": "none"}),
    ("GetOperation", "InvalidInput", lambda ids: {}),
    ("GetService", "ServiceNotFound", lambda ids: {"Id": "srv-none"}),
    ("GetService", "InvalidInput", lambda ids: {}),
    ("ListInstances", "ServiceNotFound", lambda ids: {"ServiceId": "srv-none"}),
    ("ListInstances", "InvalidInput", lambda ids: {"ServiceId": ids["service"], "NextToken": "of another list"}),
    ("ListNamespaces", "InvalidInput", lambda ids: {"MaxResults": 0}),
    ("ListOperations", "InvalidInput", lambda ids: {"Filters": [{"Name": "COLOR", "Values": ["x"]}]}),
    ("ListServices", "InvalidInput",
     lambda ids: {"Filters": [{"Name": "NAMESPACE_ID", "Values": ["a", "b"], "Condition": "EQ"}]}),
    ("ListTagsForResource", "ResourceNotFoundException", lambda ids: {"ResourceARN": NO_ARN}),
    ("ListTagsForResource", "InvalidInput", lambda ids: {"ResourceARN": "arn:aws:s3:::x"}),
    ("RegisterInstance", "ServiceNotFound", lambda ids: {**NOWHERE, "Attributes": IP}),
    ("RegisterInstance", "ResourceInUse",
     lambda ids: {"ServiceId": ids["copied"], "InstanceId": "x", "Attributes": IP}),
    ("RegisterInstance", "DuplicateRequest",
     lambda ids: {"ServiceId": ids["service"], "InstanceId": "x", "Attributes": IP, "CreatorRequestId": "used"}),
    ("RegisterInstance", "ResourceLimitExceeded",
     lambda ids: {"ServiceId": ids["service"], "InstanceId": "x", "Attributes": dict.fromkeys("abcdef", "v" * 1000)}),
    ("RegisterInstance", "InvalidInput",
     lambda ids: {"ServiceId": ids["service"], "InstanceId": "x", "Attributes": {"AWS_INSTANCE_IPV4": "no"}}),
    ("TagResource", "ResourceNotFoundException",
     lambda ids: {"ResourceARN": NO_ARN, "Tags": [{"Key": "a", "Value": "b"}]}),
    ("TagResource", "TooManyTagsException", lambda ids: {"ResourceARN": ids["arn"], "Tags": MANY_TAGS}),
    ("TagResource", "InvalidInput",
     lambda ids: {"ResourceARN": ids["arn"], "Tags": [{"Key": "aws:own", "Value": "b"}]}),
    ("UntagResource", "ResourceNotFoundException", lambda ids: {"ResourceARN": NO_ARN, "TagKeys": ["a"]}),
    ("UntagResource", "InvalidInput", lambda ids: {"ResourceARN": "x", "TagKeys": ["a"]}),
    ("UpdateHttpNamespace", "NamespaceNotFound", lambda ids: {"Id": "ns-none", "Namespace": {"Description": ""}}),
    ("UpdateHttpNamespace", "InvalidInput", lambda ids: {"Id": ids["namespace"], "Namespace": {}}),
    ("UpdatePrivateDnsNamespace", "NamespaceNotFound", lambda ids: {"Id": "ns-none", "Namespace": {}}),
    ("UpdatePrivateDnsNamespace", "InvalidInput", lambda ids: {"Id": ids["namespace"], "Namespace": {}}),
    ("UpdatePublicDnsNamespace", "NamespaceNotFound", lambda ids: {"Id": "ns-none", "Namespace": {}}),
    ("UpdatePublicDnsNamespace", "InvalidInput", lambda ids: {"Id": ids["namespace"], "Namespace": {}}),
    ("UpdateInstanceCustomHealthStatus", "InstanceNotFound",
     lambda ids: {"ServiceId": ids["service"], "InstanceId": "none", "Status": "HEALTHY"}),
    ("UpdateInstanceCustomHealthStatus", "ServiceNotFound", lambda ids: {**NOWHERE, "Status": "HEALTHY"}),
    ("UpdateInstanceCustomHealthStatus", "CustomHealthNotFound",
     lambda ids: {"ServiceId": ids["plain"], "InstanceId": "i", "Status": "HEALTHY"}),
    ("UpdateInstanceCustomHealthStatus", "InvalidInput",
     lambda ids: {"ServiceId": ids["service"], "InstanceId": "i-1", "Status": "SICK"}),
    ("UpdateService", "ServiceNotFound", lambda ids: {"Id": "srv-none", "Service": {}}),
    ("UpdateService", "InvalidInput", lambda ids: {"Id": ids["service"], "Service": {"DnsConfig": DNS}}),
]  # fmt: skip
"""Operation, error, and an input that provokes it."""

OUT_OF_REACH = {
    ("CreateHttpNamespace", "ResourceLimitExceeded"): "the 51st namespace; tested in tests/mesh/registry",
    ("CreatePrivateDnsNamespace", "ResourceLimitExceeded"): "the same",
    ("CreatePublicDnsNamespace", "ResourceLimitExceeded"): "the same",
    ("CreateService", "ResourceLimitExceeded"): "the 1 001st service of a namespace",
    ("CreatePrivateDnsNamespace", "DuplicateRequest"): "as of CreateHttpNamespace",
    ("CreatePublicDnsNamespace", "DuplicateRequest"): "as of CreateHttpNamespace",
    ("DiscoverInstances", "RequestLimitExceeded"): "admission's; tested in tests/api/test_cloud_map_wire.py",
    ("DiscoverInstancesRevision", "RequestLimitExceeded"): "the same",
    **{
        (operation, error): "operations are done before they are answered, so none is ever under way"
        for operation in (
            "DeleteNamespace", "DeregisterInstance", "UpdateHttpNamespace", "UpdatePrivateDnsNamespace",
            "UpdatePublicDnsNamespace", "UpdateService",
        )
        for error in ("DuplicateRequest", "ResourceInUse")
    },
}  # fmt: skip
"""Declared errors that no input of a test provokes, and why."""


def test_every_declared_error_has_a_case_or_a_reason() -> None:
    declared = {(name, error) for name, facts in OPERATIONS.items() for error in facts["errors"]}
    cases = {(operation, error) for operation, error, _ in CASES}
    assert declared - cases - OUT_OF_REACH.keys() == set()
    assert cases - declared == set()


@pytest.mark.parametrize("protocol", ["json", "smithy-rpc-v2-cbor"])
async def test_every_declared_error_with_its_status(cloud: Cloud, protocol: str) -> None:
    shop = await Shop(client_of(cloud.server, protocol)).stock()
    ids = shop.ids
    ids["plain"] = await shop.service(ids["namespace"], "plain")
    ids["full"] = await shop.service(ids["namespace"], "full")
    await shop.do("register_instance", ServiceId=ids["plain"], InstanceId="i", Attributes=IP, CreatorRequestId="used")
    await shop.namespace("used", CreatorRequestId="used")
    attributes = {f"a{index}": "" for index in range(30)}
    await shop.do("update_service_attributes", ServiceId=ids["full"], Attributes=attributes)
    ids["copied"] = await copied_service(cloud.server)
    wrong = []
    for operation, error, members in CASES:
        method = boto3_name(operation)
        code, status, response = await shop.refused(method, **members(ids))
        if (code, status) != (error, SHAPES[error]["status"]) or not response["Error"]["Message"]:
            wrong.append((operation, error, code, status, response["Error"]["Message"]))
    assert wrong == []


def boto3_name(operation: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)[1:]


async def copied_service(server: Server) -> str:
    """A service whose instances come from elsewhere."""
    commands: RegistryCommands = server.app.state.registry_commands
    token = idempotency_token(ACCOUNT, "p", "Copy", "t", {})
    key = ServiceKey(ACCOUNT, "ecs.local", "cart")
    await commands.submit(CopyInstances(key, "aws:eu-north-1"), Origin(ACCOUNT, "p", "", "r", "Copy", token))
    assert server.ports.registry is not None
    return server.ports.registry.replica.state.services[key].id


async def test_what_is_no_operation_is_answered_as_aws_does(cloud: Cloud) -> None:
    for target in ("Route53AutoNaming_v20170314.Explode", "DynamoDB_20120810.ListTables", ""):
        reply = await ask(cloud.server, "POST", "/", b"{}", Signing(service=SERVICE, amz_target=target))
        assert (reply.status, reply.document["__type"]) == (400, "UnknownOperationException"), target
        assert reply.headers["content-type"] == "application/x-amz-json-1.1"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"\xff"', "not UTF-8"),
        (b"{}", "Id: is required"),
    ],
)
async def test_what_is_no_input_is_invalid(cloud: Cloud, body: bytes, told: str) -> None:
    signing = Signing(service=SERVICE, amz_target=f"{TARGET}.GetService")
    reply = await ask(cloud.server, "POST", "/", body, signing)
    assert (reply.status, reply.code) == (400, "InvalidInput")
    assert told in reply.document["Message"]
    reply = await ask(cloud.server, "POST", f"{CBOR_PATH}GetService", b"\xff", Signing(service=SERVICE))
    assert (reply.status, reply.code, reply.headers["smithy-protocol"]) == (400, "InvalidInput", "rpc-v2-cbor")


async def test_what_one_server_writes_another_reads_at_once(pair: Cloud) -> None:
    first, second = (Shop(client_of(server)) for server in pair.servers)
    await first.stock()
    for number in range(5):
        told = {"ServiceId": first.ids["service"], "InstanceId": f"n{number}", "Attributes": IP}
        await first.do("register_instance", **told)
        found = await second.do("discover_instances", NamespaceName="shop.local", ServiceName="orders")
        assert len(found["Instances"]) == number + 2


async def test_policies_say_who_may_do_what(cloud: Cloud) -> None:
    shop = await Shop(client_of(cloud.server)).stock()
    iam = Iam(cloud.server)
    key = await iam.user("registrar", "AWSCloudMapRegisterInstanceAccess")
    other = await shop.service(shop.ids["namespace"], "other")
    registrar = Shop(client_of(cloud.server, key=key))
    await registrar.do("register_instance", ServiceId=other, InstanceId="i", Attributes=IP)
    code, status, _ = await registrar.refused("delete_service", Id=other)
    assert (code, status) == ("AccessDeniedException", 400)
    arn = f"arn:aws:servicediscovery:{REGION}:{ACCOUNT}:service/{other}"
    await iam.put("narrow", {"Effect": "Deny", "Action": "servicediscovery:*", "Resource": arn}, to="registrar")
    code, _, _ = await registrar.refused("register_instance", ServiceId=other, InstanceId="i", Attributes=IP)
    assert code == "AccessDeniedException"
    told = {"ServiceId": shop.ids["service"], "InstanceId": "i", "Attributes": IP}
    await registrar.do("register_instance", **told)
    await shop.do("tag_resource", ResourceARN=shop.ids["arn"], Tags=[{"Key": "stage", "Value": "prod"}])
    tagged = {"StringEquals": {"aws:ResourceTag/stage": "prod"}}
    deny = {"Effect": "Deny", "Action": "servicediscovery:RegisterInstance", "Resource": "*", "Condition": tagged}
    await iam.put("narrow", deny, to="registrar")
    assert (await registrar.refused("register_instance", **told))[0] == "AccessDeniedException"
    by_name = {"StringEquals": {"servicediscovery:NamespaceName": "shop.local"}}
    deny = {"Effect": "Deny", "Action": "servicediscovery:Discover*", "Resource": "*", "Condition": by_name}
    await iam.put("narrow", deny, to="registrar")
    names = {"NamespaceName": "shop.local", "ServiceName": "orders"}
    assert (await registrar.refused("discover_instances", **names))[0] == "AccessDeniedException"


class Iam:
    """Users and their policies, over the API of ours."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def _do(self, route: str, **body: Any) -> Any:
        reply = await ask(self._server, "POST", f"/meshlog/v1/{route}", body, Signing(service="meshlog"))
        assert reply.status == 200, reply
        return reply.document

    async def user(self, name: str, policy: str) -> tuple[str, str]:
        """A new user's key."""
        await self._do("iam/users", user=name)
        await self._do("iam/users/attach", user=name, policy=policy)
        key = await self._do("access-keys", user=name)
        return key["access_key_id"], key["secret_access_key"]

    async def put(self, name: str, statement: dict[str, Any], *, to: str) -> None:
        document = {"Version": "2012-10-17", "Statement": statement}
        await self._do("iam/users/policies", user=to, name=name, document=document)


async def test_boto3_with_meshlog_env_needs_no_argument(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a name like data-127.0.0.1 to resolve, which boto3 would make of an endpoint by itself."""
    told = {
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": cloud.server.url,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": ADMIN.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    await Shop(client_of(cloud.server)).stock()
    client = boto3.session.Session().client(SERVICE)
    found = await call(client, "discover_instances", NamespaceName="shop.local", ServiceName="orders")
    assert [each["InstanceId"] for each in found["Instances"]] == ["i-1"]
    names = ["--namespace-name", "shop.local", "--service-name", "orders"]
    [ran] = await asyncio.to_thread(run_all, [["servicediscovery", "discover-instances", *names]], told)
    assert ran.code == 0, ran.err
    assert [each["InstanceId"] for each in json.loads(ran.out)["Instances"]] == ["i-1"]
