"""Parts of Envoy messages that several resources share."""

from __future__ import annotations

import json
from datetime import timedelta

import betterproto2

from projector.envoy import names
from projector.envoy.protos import core, protobuf


def packed(message: betterproto2.Message) -> protobuf.Any:
    """The message as an Any: Envoy takes every extension's configuration typed."""
    return protobuf.Any.pack(message)


def duration(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def stats_metadata(tags: tuple[tuple[str, str], ...]) -> core.Metadata:
    """App Mesh's tags for its metrics extension: JSON inside a string, as it was."""
    config = json.dumps({"tags": [{"key": key, "value": value} for key, value in tags]}, separators=(",", ":"))
    value = protobuf.Struct(fields={"config": protobuf.Value(string_value=config)})
    return core.Metadata(filter_metadata={names.STATS_METADATA: value})


def ads_source() -> core.ConfigSource:
    """The stream by which everything comes, without a limit on the first fetch."""
    return core.ConfigSource(
        ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3, initial_fetch_timeout=duration(0)
    )


def address(host: str, port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=port))
