"""Beside AWS, under `/meshlog/v1/`: what a server says of itself, and certificates for proxies.

GET  status?min_position=           {role, id, zone, epoch, position, level, state_hash, ready, reason, members?}
POST proxies/identity               {node, csr_pem} → {node, certificate_pem, chain, ca, not_after, xds: [...]}

Same signatures, errors and positions as the App Mesh API, as for all of `/meshlog/v1/`.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from typing import Any

from api.appmesh import confirmed_state, origin_of
from api.authorization import CONNECT, Target
from api.calls import Answer, Call
from api.commands import CommandService
from api.ports import ApiPorts
from api.reads import MIN_POSITION, reached
from api.requests import Fields, nothing, read_body, read_query, route, router_of
from api.routes import Router
from identity.caller import Caller
from identity.node_id import NodeId, parse_node_id
from mesh.commands import IssueProxyIdentity
from mesh.decide import present
from mesh.errors import Unavailable
from mesh.state import state_hash

_IDENTITY_FIELDS: Fields = {"node": (str, True), "csr_pem": (str, True)}


class AdminApi:
    """The handlers, bound to one server's ports."""

    def __init__(self, ports: ApiPorts, commands: CommandService) -> None:
        self._ports = ports
        self._commands = commands

    def router(self) -> Router:
        """Its routes."""
        return router_of(
            [
                route("GET status", "GetStatus", read_query(MIN_POSITION), nothing, self._status),
                route("POST proxies/identity", "IssueProxyIdentity", read_body(_IDENTITY_FIELDS), _node, self._sign),
            ]
        )

    async def _status(self, call: Call) -> Answer:
        await reached(self._ports, call)
        state, readiness = self._ports.replica.state, self._ports.readiness()
        document = {
            "role": "api",
            "id": self._ports.server_id,
            "zone": self._ports.zone,
            "epoch": state.position.epoch,
            "position": state.position.position,
            "level": state.level,
            "state_hash": state_hash(state),
            "ready": readiness.ready,
            "reason": readiness.reason,
        }
        if self._ports.members is not None:
            # Status is asked for most when etcd is away: it must answer then, with what this server knows itself.
            with contextlib.suppress(Unavailable):
                document["members"] = [dict(member) for member in await self._ports.members()]
        return Answer(document, state.position)

    async def _sign(self, call: Call) -> Answer:
        ports = self._ports
        node = parse_node_id(call.members["node"], call.caller.account)
        present(await confirmed_state(ports), node.key)
        issued = ports.signer.sign(node, call.members["csr_pem"].encode(), ports.clock.now_us())
        command = IssueProxyIdentity(node.key, issued.serial, issued.not_after_us)
        outcome = await self._commands.submit(command, origin_of("IssueProxyIdentity", call))
        document = {
            "node": str(node),
            "certificate_pem": issued.certificate_pem,
            "chain": issued.chain,
            "ca": issued.ca,
            "not_after": _iso_seconds(issued.not_after_us),
            "xds": [{"zone": endpoint.zone, "address": endpoint.address} for endpoint in ports.xds_endpoints()],
        }
        return Answer(document, outcome.position)


def _iso_seconds(time_us: int) -> str:
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _node(caller: Caller, members: Mapping[str, Any]) -> list[Target]:
    node: NodeId = parse_node_id(members["node"], caller.account)
    return [Target(node.key, CONNECT)]
