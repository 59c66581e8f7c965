"""A real DNS server in the outside world, whose answers a test may change while Envoys ask."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from functools import partial

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord

from tests.traffic.loop import Loop
from tests.traffic.namespaces import NetNamespace

PORT = 53
DOMAIN = "mesh.test"


class DnsServer:
    """Answers `<label>.<anything>.mesh.test` with the addresses of `<label>`, each in the record of its family."""

    def __init__(self, namespace: NetNamespace, loop: Loop) -> None:
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()
        self._sockets = [namespace.listen(host, PORT, socket.SOCK_DGRAM) for host in ("0.0.0.0", "::")]
        for each in self._sockets:
            loop.add_reader(each, partial(self._answer, each))

    def set(self, label: str, *addresses: str) -> None:
        """From now on `label` has these."""
        with self._lock:
            self._addresses[label] = addresses

    def asked_for(self, label: str) -> int:
        """How many questions for a name under `label` came so far."""
        with self._lock:
            return sum(count for (name, _), count in self.asked.items() if name.startswith(f"{label}."))

    def _answer(self, opened: socket.socket) -> None:
        data, peer = opened.recvfrom(4096)
        question = DNSRecord.parse(data)
        name, kind = str(question.q.qname), QTYPE[question.q.qtype]
        with self._lock:
            self.asked[name, kind] += 1
            found = self._addresses.get(name.split(".", maxsplit=1)[0]) if name.endswith(f".{DOMAIN}.") else None
        reply = question.reply()
        if found is None:
            reply.header.rcode = RCODE.NXDOMAIN
        for address in found or ():
            v6 = ipaddress.ip_address(address).version == 6
            if kind == ("AAAA" if v6 else "A"):
                data_of = AAAA(address) if v6 else A(address)
                reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=data_of, ttl=1))
        opened.sendto(reply.pack(), peer)

    def close(self) -> None:
        for each in self._sockets:
            each.close()
