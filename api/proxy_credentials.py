"""Proxies that sign: what a frontend was shown becomes the node that the proxy may be, or a gRPC status and a sentence.

The stock App Mesh image signs each stream (SigV4, service `appmesh`, an empty body), and so may any Envoy, by the
filter `aws_request_signing` in its xDS cluster (an unsigned payload). Whoever may be issued a certificate for a node
(`appmesh:StreamAggregatedResources` on it) may be it by its access key too; `node.id` alone never says anything.
Credentials that proved right once are asked after for as long as the stream is open.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import msgpack
import structlog

from api.authentication import Authenticator
from api.authorization import CONNECT, Target, authorise, authorise_now
from api.ports import ApiPorts
from api.trail import Attempt, claimed_key
from identity.caller import Caller
from identity.node_id import NodeId, parse_node_id
from identity.proxy_wire import Granted, Presented, Refused
from identity.sigv4 import APPMESH, MESHLOG, TOKEN_HEADER, SignedRequest
from mesh.errors import BadRequest, Forbidden, MeshlogError, NotAuthenticated, Unavailable, error_code
from mesh.iam.evaluate import Circumstances
from runtime.limits import REFUSAL_CONFIRM_S

log = structlog.get_logger(__name__)

INVALID_ARGUMENT, PERMISSION_DENIED, UNAVAILABLE, UNAUTHENTICATED = 3, 7, 14, 16
"""gRPC's numbers, used as App Mesh used them."""

_ISSUE = f"{MESHLOG}:IssueProxyIdentity"
"""The call that grants the same thing: the permission asked for is CONNECT, on the node."""


class _Grant(NamedTuple):
    """What is asked after while the stream is open."""

    node: NodeId
    source_ip: str
    region: str
    access_key_id: str
    token: str | None

    def packed(self) -> bytes:
        packed: bytes = msgpack.packb(list(self))
        return packed


class ProxyGate:
    """Verifies for frontends."""

    def __init__(self, ports: ApiPorts, authenticator: Authenticator) -> None:
        self._ports, self._authenticator = ports, authenticator

    async def check(self, presented: Presented) -> Granted | Refused:
        """Who the proxy is. Raises nothing that the caller brought about."""
        try:
            return await self._granted(presented)
        except (NotAuthenticated, Forbidden, BadRequest) as error:
            self._note(presented, error)
            return _refused(error)
        except Unavailable as error:
            log.info("proxy not verified", node=presented.node[:200], reason=error.message)
            return _refused(error)

    async def standing(self, grants: list[bytes]) -> dict[int, Refused]:
        """Which of them count no more, as of a head confirmed now. Unavailable: nobody can say."""
        await self._ports.replica.confirmed(self._ports.read_deadline_s)
        verdicts = {grant: self._fallen(grant) for grant in set(grants)}
        return {place: fallen for place, grant in enumerate(grants) if (fallen := verdicts[grant]) is not None}

    def _note(self, presented: Presented, error: MeshlogError) -> None:
        """A refused stream is a refused call, as App Mesh's own trail had it."""
        log.info("proxy refused", node=presented.node[:200], source_ip=presented.source_ip, reason=error.message)
        if self._ports.audit is None:
            return
        attempt = Attempt(
            request_id=self._ports.entropy.uuid(),
            time_us=self._ports.clock.now_us(),
            source_ip=presented.source_ip,
            method="POST",
            path=presented.method,
            claimed_key=claimed_key(dict(presented.headers).get("authorization", "")),
            action=CONNECT,
            members={"node": presented.node},
        )
        self._ports.audit.calls.refused(attempt, error_code(error), error.message)

    async def _granted(self, presented: Presented) -> Granted:
        path = presented.method
        readings = [
            SignedRequest("POST", path, "", (("host", host), *presented.headers), b"", streams=True)
            for host in presented.hosts
        ]
        if not readings:
            raise Unavailable(
                "the frontend does not know by which names it is dialled: set 'signed_names' in its settings"
            )
        caller = await self._authenticator.caller_of_any(readings, (APPMESH,))
        node = parse_node_id(presented.node, caller.account)
        grant = _Grant(node, presented.source_ip, caller.region, caller.access_key_id, readings[0].single(TOKEN_HEADER))
        # A proxy that starts while etcd is away is judged by what is known here: it must get the last good state too.
        with suppress(Unavailable):
            await self._ports.replica.confirmed(REFUSAL_CONFIRM_S)
        circumstances = self._circumstances(presented.source_ip)
        await authorise_now(self._ports, caller, _ISSUE, [Target(node.key, CONNECT)], circumstances)
        return Granted(node, caller.principal, grant.packed())

    def _fallen(self, packed: bytes) -> Refused | None:
        try:
            node, *rest = msgpack.unpackb(packed)
            grant = _Grant(NodeId(*node), *rest)
        except (ValueError, TypeError, msgpack.UnpackException):
            return Refused(UNAUTHENTICATED, "this server did not make the grant: connect again")
        try:
            caller: Caller = self._authenticator.still(grant.access_key_id, grant.token, grant.region)
            circumstances = self._circumstances(grant.source_ip)
            state = self._ports.replica.state
            authorise(state, caller, _ISSUE, [Target(grant.node.key, CONNECT)], circumstances)
        except (NotAuthenticated, Forbidden) as error:
            return _refused(error)
        return None

    def _circumstances(self, source_ip: str) -> Circumstances:
        now_us = self._ports.clock.now_us()
        return Circumstances(source_ip=source_ip, time_us=now_us, secure=True, region=self._ports.region)


def _refused(error: MeshlogError) -> Refused:
    if isinstance(error, NotAuthenticated):
        return Refused(UNAUTHENTICATED, error.message)
    if isinstance(error, Forbidden):
        return Refused(PERMISSION_DENIED, error.message)
    return Refused(UNAVAILABLE if isinstance(error, Unavailable) else INVALID_ARGUMENT, error.message)
