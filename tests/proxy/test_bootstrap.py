"""The bootstrap as a document: what a reader, and an Envoy, finds in it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mesh.errors import BadRequest, SettingsError
from proxy import bootstrap
from runtime.limits import XDS_PING_INTERVAL_MIN_S
from runtime.settings import Endpoint

NODE = "mesh/shop/virtualNode/api"
CREDENTIALS = bootstrap.Credentials(
    certificate="-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
    key="-----BEGIN PRIVATE KEY-----\nBB\n-----END PRIVATE KEY-----\n",
    authority="-----BEGIN CERTIFICATE-----\nCC\n-----END CERTIFICATE-----\n",
)
FRONTENDS = [Endpoint("z1", "10.0.0.1:7412"), Endpoint("z2", "10.0.0.2:7412"), Endpoint("z1", "10.0.0.3:7412")]


def build(**changes: Any) -> bootstrap.Document:
    arguments: dict[str, Any] = {
        "node_id": NODE,
        "frontends": FRONTENDS,
        "tls_context": bootstrap.inline_tls(CREDENTIALS),
    }
    return bootstrap.build(**arguments | changes)


def cluster(document: bootstrap.Document) -> dict[str, Any]:
    (only,) = document["static_resources"]["clusters"]
    assert isinstance(only, dict)
    return only


def priorities(document: bootstrap.Document) -> list[tuple[int, str, list[str]]]:
    return [
        (
            group["priority"],
            group["locality"]["zone"],
            [one["endpoint"]["address"]["socket_address"]["address"] for one in group["lb_endpoints"]],
        )
        for group in cluster(document)["load_assignment"]["endpoints"]
    ]


def test_each_zone_is_a_priority_and_the_own_zone_the_first() -> None:
    assert priorities(build()) == [(0, "z1", ["10.0.0.1", "10.0.0.3"]), (1, "z2", ["10.0.0.2"])]
    assert priorities(build(zone="z2")) == [(0, "z2", ["10.0.0.2"]), (1, "z1", ["10.0.0.1", "10.0.0.3"])]
    # A zone without frontends of its own changes nothing but where the Envoy says that it is.
    assert priorities(build(zone="z9")) == priorities(build())
    assert build(zone="z9")["node"]["locality"] == {"zone": "z9"}


def test_names_are_resolved_and_addresses_are_not() -> None:
    assert cluster(build())["type"] == "STATIC"
    assert cluster(build(frontends=[Endpoint("z1", "frontend-z1:7412")]))["type"] == "STRICT_DNS"


def test_the_node_is_told_as_given_and_once() -> None:
    document = build()
    assert document["node"]["id"] == NODE
    ads = document["dynamic_resources"]["ads_config"]
    assert ads["set_node_on_first_message_only"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert build(mode="sotw")["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"


@pytest.mark.parametrize(("asked", "given"), [(0, 9901), (9901, 9901), (19000, 19000)])
def test_the_admin_port_is_on_loopback(asked: int, given: int) -> None:
    address = build(admin_port=asked)["admin"]["address"]["socket_address"]
    assert address == {"address": "127.0.0.1", "port_value": given}


def test_frontends_are_believed_by_name_whatever_their_address() -> None:
    context = cluster(build())["transport_socket"]["typed_config"]
    assert context["sni"] == "frontend.meshlog"
    (matcher,) = context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert matcher == {"san_type": "DNS", "matcher": {"exact": "frontend.meshlog"}}


def test_envoy_pings_no_more_often_than_a_frontend_allows() -> None:
    assert float(bootstrap.PING_INTERVAL.removesuffix("s")) > XDS_PING_INTERVAL_MIN_S


def test_yaml_reads_back_with_keys_as_blocks_under_comments() -> None:
    text = bootstrap.to_yaml(build(), ["expires 2027-01-01"])
    assert text.startswith("# expires 2027-01-01\nnode:\n")
    assert "inline_string: |\n" in text
    assert "&id" not in text
    assert yaml.safe_load(text) == build()


def test_the_bootstrap_of_a_directory_has_no_key_in_it() -> None:
    text = bootstrap.to_yaml(build(tls_context=bootstrap.file_tls("/etc/envoy/identity")))
    assert "PRIVATE KEY" not in text
    assert "/etc/envoy/identity/identity.sds.yaml" in text
    files = {file.name: file for file in bootstrap.secret_files(CREDENTIALS, "/etc/envoy/identity")}
    assert [name for name, file in files.items() if file.private] == ["identity.pem"]
    assert [name for name, file in files.items() if "PRIVATE KEY" in file.text] == ["identity.pem"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"mode": "rest"}, BadRequest, "delta or sotw"),
        ({"frontends": []}, BadRequest, "no frontend"),
        ({"frontends": [Endpoint("z1", "nowhere")]}, SettingsError, "host:port"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build(**changes)


def test_an_envoy_that_signs_has_no_certificate_and_asks_no_cloud_for_a_key() -> None:
    document = build(tls_context=bootstrap.verifying_tls("the root"), signing_region="eu-north-1")
    (options,) = cluster(document)["typed_extension_protocol_options"].values()
    signer, codec = options["http_filters"]
    assert (signer["name"], codec["name"]) == (
        "envoy.filters.http.aws_request_signing", "envoy.filters.http.upstream_codec",
    )  # fmt: skip
    config = signer["typed_config"]
    assert (config["service_name"], config["region"]) == ("appmesh", "eu-north-1")
    assert config["credential_provider"].pop("custom_credential_provider_chain") is True
    assert set(config["credential_provider"]) == {"environment_credential_provider", "credentials_file_provider"}
    text = bootstrap.to_yaml(document)
    assert "private_key" not in text
    assert "the root" in text
    assert "aws_request_signing" not in bootstrap.to_yaml(build())
