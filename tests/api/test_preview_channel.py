"""Scripts from App Mesh's preview channel: the same calls, signed for a service of another name."""

from __future__ import annotations

from tests.api.conftest import Cloud
from tests.api.signing import Signing, ask


async def test_what_is_signed_for_the_preview_service_is_taken(cloud: Cloud) -> None:
    preview = Signing(service="appmesh-preview")
    made = await ask(cloud.server, "PUT", "/v20190125/meshes", {"meshName": "m"}, preview)
    assert made.status == 200
    described = await ask(cloud.server, "GET", "/v20190125/meshes/m", signing=preview)
    assert described.document["meshName"] == "m"


async def test_nothing_else_is_open_to_it(cloud: Cloud) -> None:
    refused = await ask(cloud.server, "GET", "/meshlog/v1/status", signing=Signing(service="appmesh-preview"))
    assert refused.status == 403
