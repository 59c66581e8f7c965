"""One frontend: xDS to proxies from what projectors feed; wired from the settings. It reaches neither log nor etcd."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog
from prometheus_client import REGISTRY

from cli.role_health import check_addresses, serve_health, status_of
from cluster import pki
from projector.feed.client import FeedClient, secure_channels
from runtime.clock import SystemClock, SystemEntropy
from runtime.health import Check
from runtime.settings import FrontendSettings, TlsFiles, split_address
from runtime.supervise import Supervisor
from runtime.tls import channel_credentials, one_sided_credentials, server_credentials
from xds.metrics import XdsMetrics
from xds.server import XdsServer
from xds.signed import Signing, names_signed_for
from xds.verifiers import Verifiers

log = structlog.get_logger(__name__)


async def run_frontend(settings: FrontendSettings) -> None:
    """One frontend, until a signal. No etcd, no keys, no disk but its certificates."""
    check_addresses(settings)
    clock, entropy = SystemClock(), SystemEntropy()
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor())
        supervisor.stop_on_signals()
        feed = FeedClient(
            zone=settings.zone,
            projectors=settings.projectors,
            channels=secure_channels(lambda: channel_credentials(settings.role_tls)),
            clock=clock,
            entropy=entropy,
            frontend_id=settings.id,
            frontend_address=settings.advertise,
        )
        signing = _signing(settings, stack)
        server = XdsServer(
            feed=feed,
            trust_domain=settings.trust_domain,
            clock=clock,
            entropy=entropy,
            metrics=XdsMetrics(REGISTRY),
            signing=signing,
        )

        def status() -> Mapping[str, Any]:
            refused = [
                {
                    "node": str(proxy.node),
                    "type": proxy.refusal.type,
                    "resources": list(proxy.refusal.names),
                    "position": str(proxy.refusal.position),
                }
                for proxy in server.proxies
                if proxy.refusal is not None
            ]
            return status_of(settings, feed.position) | {
                "proxies": len(server.proxies),
                "refused": refused,
                "warnings": server.proxies.crowded(settings.proxies_per_node),
            }

        checks: dict[str, Check] = {"feed": lambda: None if feed.ready else "no projector feeds this frontend yet"}
        await serve_health(stack, settings, checks, status)
        proxies_root = TlsFiles(
            certificate=settings.role_tls.certificate,
            key=settings.role_tls.key,
            authority=settings.proxy_authority_certificate,
        )
        signed = None
        if signing is not None and settings.signed_listen is not None:
            signed = (settings.signed_listen, one_sided_credentials(settings.signed_tls or settings.role_tls))
        await server.start(settings.listen, server_credentials(proxies_root), signed=signed)
        stack.push_async_callback(server.stop, 0)
        supervisor.start(feed.run(), "feed")
        if server.signed is not None:
            supervisor.start(server.signed.run(), "signed streams")
        log.info("serving", role=settings.role, address=settings.listen)
        await supervisor.wait()


def _signing(settings: FrontendSettings, stack: AsyncExitStack) -> Signing | None:
    """What proxies that sign need; None where they are not asked for."""
    if settings.signed_listen is None:
        return None
    seen = settings.signed_tls or settings.role_tls
    addresses = [settings.signed_listen, *([settings.signed_advertise] if settings.signed_advertise else [])]
    further = [name.strip() for name in (settings.signed_names or "").split(",") if name.strip()]
    ports = [split_address(address)[1] for address in addresses]
    names = names_signed_for(pki.hosts_of(seen.certificate.read_bytes()), ports, further)
    verifiers = Verifiers(settings.zone, settings.apis or (), lambda: channel_credentials(settings.role_tls))
    stack.push_async_callback(verifiers.close)
    return Signing(verifiers, names)
