"""Who a caller is: the node that its certificate, verified by the TLS layer under the proxies' root, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from identity.node_id import NodeId, parse_spiffe_id


def peer_node(auth_context: Mapping[str, Iterable[bytes]], trust_domain: str) -> NodeId | None:
    """The one node that the caller's verified certificate names, or None. (gRPC gives `peer_spiffe_id` only if the
    certificate has exactly one URI name, as SPIFFE demands.)"""
    names = [value.decode("utf-8", "replace") for value in auth_context.get("peer_spiffe_id", ())]
    return parse_spiffe_id(names[0], trust_domain) if len(names) == 1 else None
