"""Counters of a frontend. Labels are protocol, type and code only: one per proxy would drown whoever collects them."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class XdsMetrics:
    """One a process; tests give each server its own `registry`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.streams = Gauge("meshlog_xds_streams", "Open ADS streams", ["mode"], registry=registry)
        self.opened = Counter("meshlog_xds_streams_opened", "ADS streams let in", ["mode"], registry=registry)
        self.closed = Counter(
            "meshlog_xds_streams_closed",
            "ADS streams ended, by the gRPC status that they were given (OK: the proxy left)",
            ["mode", "code"],
            registry=registry,
        )
        self.refused = Counter(
            "meshlog_xds_calls_refused", "Calls refused before a stream was bound", ["code"], registry=registry
        )
        self.pushes = Counter("meshlog_xds_pushes", "Responses written", ["mode", "type"], registry=registry)
        self.pushed_bytes = Counter("meshlog_xds_pushed_bytes", "Bytes of those", ["mode", "type"], registry=registry)
        self.acks = Counter("meshlog_xds_acks", "Responses accepted", ["mode", "type"], registry=registry)
        self.nacks = Counter("meshlog_xds_nacks", "Responses refused", ["mode", "type"], registry=registry)
        self.unconfirmed = Counter(
            "meshlog_xds_unconfirmed", "Attempts to confirm the head for a stream that failed", registry=registry
        )
