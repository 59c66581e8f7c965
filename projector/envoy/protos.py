"""The one place where Envoy's message classes come in; their import warns and they serialise slowly, settled here.

betterproto2 makes a new pydantic validator each time that it serialises a message, nested ones too: 2.8 ms for one
cluster, against 0.3 ms without. Ours are validated when they are built and never changed afterwards, so that second
validation is turned off. For every field it then changes the process's warning filters to look up the default, which
is two thirds of what is left: no default of a class that we use warns, so it is looked up as it is.
"""

from __future__ import annotations

import warnings

import betterproto2

with warnings.catch_warnings():
    # The generated classes use a pydantic decorator in a way that pydantic announces to drop.
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
    from envoy_data_plane.envoy.config.cluster import v3 as cluster
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
    from envoy_data_plane.envoy.config.listener import v3 as listener
    from envoy_data_plane.envoy.config.route import v3 as route
    from envoy_data_plane.envoy.extensions.access_loggers.file import v3 as file_access_log
    from envoy_data_plane.envoy.extensions.filters.http.health_check import v3 as health_check_filter
    from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router_filter
    from envoy_data_plane.envoy.extensions.filters.listener.http_inspector import v3 as http_inspector
    from envoy_data_plane.envoy.extensions.filters.listener.original_dst import v3 as original_dst
    from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector import v3 as tls_inspector
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
    from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy import v3 as tcp_proxy
    from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
    from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
    from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
    from envoy_data_plane.envoy.type import v3 as envoy_type
    from envoy_data_plane.envoy.type.matcher import v3 as matcher
    from envoy_data_plane.google import protobuf


def _validated_when_built(message: betterproto2.Message) -> None:
    """Stands in for `Message._validate`."""


def _default_of(message: betterproto2.Message, field_name: str) -> object:
    """Stands in for `Message._get_field_default`."""
    made: object = message._betterproto.default_gen[field_name]()  # type: ignore[arg-type]
    return made


betterproto2.Message._validate = _validated_when_built  # type: ignore[assignment, method-assign]
betterproto2.Message._get_field_default = _default_of  # type: ignore[assignment, method-assign]

__all__ = (
    "accesslog",
    "cluster",
    "core",
    "endpoint",
    "envoy_type",
    "file_access_log",
    "hcm",
    "health_check_filter",
    "http_inspector",
    "listener",
    "matcher",
    "original_dst",
    "previous_hosts",
    "protobuf",
    "route",
    "router_filter",
    "tcp_proxy",
    "tls",
    "tls_inspector",
    "upstream_http",
)
