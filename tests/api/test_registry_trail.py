"""The audit names who registered what, beside the calls on meshes, page by page, whatever a page's size."""

from __future__ import annotations

import pytest

from tests.api.conftest import ACCOUNT, ADMIN, Cloud
from tests.api.test_audit import audit
from tests.api.test_cloud_map import Shop
from tests.api.test_registry import stocked

IDENTITY = "userIdentity"


@pytest.mark.parametrize("limit", ["1", "2", "100"])
async def test_registrations_stand_beside_calls_on_meshes_in_order_of_time(cloud: Cloud, limit: str) -> None:
    shop: Shop = await stocked(cloud.server, 2)
    await shop.do("deregister_instance", ServiceId=shop.ids["service"], InstanceId="i1")
    trail = await audit(cloud, limit=limit)
    told = [event for event in trail if event["eventSource"] == "servicediscovery.amazonaws.com"]
    assert [event["eventName"] for event in told] == [
        "CreateHttpNamespace",
        "CreateService",
        "RegisterInstance",
        "RegisterInstance",
        "DeregisterInstance",
    ]
    assert told[-1]["requestParameters"] == {
        "namespaceName": "shop.local",
        "serviceName": "orders",
        "instanceId": "i1",
    }
    assert {event[IDENTITY]["accountId"] for event in told} == {ACCOUNT}
    assert {event[IDENTITY]["arn"] for event in told} == {ADMIN.principal}
    assert told[0]["responseElements"] == {"position": "1.1", "log": "registry"}
    assert len({event["eventID"] for event in trail}) == len(trail), "no event of one log is taken for the other's"
    assert [event["eventTime"] for event in trail] == sorted(event["eventTime"] for event in trail)
    assert "10." not in str([event["requestParameters"] for event in told]), "attributes are never told"


async def test_a_question_about_a_mesh_is_not_answered_with_the_registry(cloud: Cloud) -> None:
    await stocked(cloud.server, 1)
    assert not [event for event in await audit(cloud, mesh="shop") if event["eventName"] == "RegisterInstance"]
    by_admin = await audit(cloud, actor=ADMIN.principal, status="accepted")
    assert "RegisterInstance" in {event["eventName"] for event in by_admin}
    assert not [event for event in await audit(cloud, status="refused") if event["eventName"] == "RegisterInstance"]
