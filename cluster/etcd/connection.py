"""One role's connection to an etcd cluster: calls in, plain values out, one channel for each member.

Reads go to the best member and, if it does not answer, to the others within one deadline. A write is sent once, to one
member: what it came to, known or not, is the caller's to handle; nothing here may ever send it again. The etcd3
package's synchronous client is used through its futures, so a stuck member holds no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from cluster.etcd import protos
from cluster.etcd.choice import EtcdMember, MemberChoice
from cluster.etcd.failures import Verdict, denied, describe, judge, too_large
from cluster.etcd.translation import comparison, operation, range_request, range_result, reads_of
from cluster.etcd.values import (
    Comparison,
    MemberStatus,
    Operation,
    RangeRead,
    RangeResult,
    RevisionCompacted,
    TxnDone,
    TxnOutcome,
    TxnRefused,
    TxnUnknown,
    WatchUpdate,
)
from cluster.etcd.watch import WatchThread
from mesh.errors import NoQuorum, OutcomeUnknown, SettingsError
from runtime import limits
from runtime.clock import Clock, Entropy

HAS_LEADER = (("hasleader", "true"),)
"""Call metadata: a member without a leader says so at once, instead of answering late or, on a watch, never."""

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", limits.ETCD_KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", limits.ETCD_KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", limits.ETCD_CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", limits.ETCD_CONNECT_MS),
    ("grpc.max_receive_message_length", limits.ETCD_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
)


class TlsFiles(NamedTuple):
    """PEM files: etcd's trust root, and this role's client certificate, whose CN is its etcd user."""

    ca: Path
    certificate: Path
    key: Path


class EtcdConnection:
    """Use from one event loop; `close` when done."""

    def __init__(
        self, members: Sequence[EtcdMember], zone: str, tls: TlsFiles | None, clock: Clock, entropy: Entropy
    ) -> None:
        if not members:
            raise SettingsError("No etcd member is configured: give at least one as zone and host:port")
        self.members = tuple(members)
        self._tls = tls
        self._clock = clock
        self._choice = MemberChoice(members, zone, entropy)
        self._clients: dict[int, Any] = {}
        self._opening = threading.Lock()
        self._closed = False
        self._watches: set[WatchThread] = set()

    async def range(self, read: RangeRead) -> RangeResult:
        """A quorum (linearizable) read. NoQuorum, RevisionCompacted, SettingsError or TimelineMoved."""
        return range_result(await self.read("KV", "Range", range_request(read)))

    async def read_together(self, reads: Sequence[RangeRead]) -> Sequence[RangeResult]:
        """Several quorum reads as of one revision of the store. They must not name a revision of their own."""
        success = [protos.rpc.RequestOp(request_range=range_request(read)) for read in reads]
        response = await self.read("KV", "Txn", protos.rpc.TxnRequest(success=success))
        return reads_of(response)

    async def txn(
        self, compare: Sequence[Comparison], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnOutcome:
        """If all of `compare` holds then `success` else `failure`, in one revision. Sent once.

        LimitExceeded or SettingsError where etcd will never take it.
        """
        request = protos.rpc.TxnRequest(
            compare=[comparison(each) for each in compare],
            success=[operation(each) for each in success],
            failure=[operation(each) for each in failure],
        )
        response = await self.write("KV", "Txn", request)
        if isinstance(response, (TxnUnknown, TxnRefused)):
            return response
        return TxnDone(response.succeeded, response.header.revision, reads_of(response))

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Set a key, sent once; gives the store's revision. OutcomeUnknown or NoQuorum."""
        request = protos.rpc.PutRequest(key=key, value=value, lease=lease)
        return int(_certain(await self.write("KV", "Put", request), "a put").header.revision)

    async def delete(self, key: bytes, range_end: bytes = b"") -> int:
        """Delete a key or a range, sent once; gives how many keys went. OutcomeUnknown or NoQuorum."""
        request = protos.rpc.DeleteRangeRequest(key=key, range_end=range_end)
        return int(_certain(await self.write("KV", "DeleteRange", request), "a deletion").deleted)

    async def lease_grant(self, ttl_s: int) -> int:
        """A new lease's id. A lost answer leaves a lease behind that expires by itself."""
        request = protos.rpc.LeaseGrantRequest(TTL=ttl_s)
        return int(_certain(await self.write("Lease", "LeaseGrant", request), "a lease").ID)

    async def lease_keepalive(self, lease: int) -> int:
        """Renew a lease; gives the seconds it has left, 0 if it is gone. NoQuorum if no member answers."""
        request = protos.rpc.LeaseKeepAliveRequest(ID=lease)

        async def renew(stub: Any, timeout_s: float) -> Any:
            # A stream with one request and one answer; the synchronous client can only be read in a thread.
            stream = stub(iter((request,)), timeout=timeout_s, metadata=HAS_LEADER)
            answers = await asyncio.to_thread(list, stream)
            if not answers:
                raise NoQuorum("An etcd member ended a lease's renewal without an answer")
            return answers[0]

        return int((await self._first_answer("Lease", "LeaseKeepAlive", renew)).TTL)

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys; fine if it is gone already."""
        await self.write("Lease", "LeaseRevoke", protos.rpc.LeaseRevokeRequest(ID=lease))

    async def statuses(self) -> list[MemberStatus]:
        """Every member's account of itself, in the configured order; one that does not answer has `error`."""
        return list(await asyncio.gather(*(self._status(index) for index in range(len(self.members)))))

    async def watch(self, key: bytes, range_end: bytes, from_revision: int) -> AsyncGenerator[WatchUpdate, None]:
        """Changes of a range of keys from a revision on, for ever, over lost members.

        Each change comes once and in order, no revision split. RevisionCompacted if `from_revision` is gone. Close it
        with `aclose`.
        """
        create = protos.rpc.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=from_revision, progress_notify=True, fragment=True
        )
        addresses = [member.address for member in self.members]
        stub_of = partial(self._stub, service="Watch", method="Watch")
        watch = WatchThread(create, self._choice, addresses, stub_of, self._clock)
        self._watches.add(watch)
        try:
            async for update in watch.updates():
                yield update
        finally:
            self._watches.discard(watch)
            watch.close()

    def close(self) -> None:
        """End watches and channels; what is in flight fails, and so does every later call."""
        self._closed = True
        for watch in list(self._watches):
            watch.close()
        self.reconnect()

    def reconnect(self) -> None:
        """Close all channels; the next calls open new ones, with the certificates that are in the files then."""
        with self._opening:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    async def read(self, service: str, method: str, request: Any) -> Any:
        """Any call that changes nothing, on the best member that answers: `service` as `KV`, `method` as `Range`."""

        async def call(stub: Any, timeout_s: float) -> Any:
            return await _finished(stub.future(request, timeout=timeout_s, metadata=HAS_LEADER))

        return await self._first_answer(service, method, call)

    async def _first_answer(self, service: str, method: str, call: Callable[[Any, float], Awaitable[Any]]) -> Any:
        """Members in turn, round after round, until one gives an answer to be believed or the deadline passes."""
        what, reason = f"{service}/{method}", "no member answered"
        give_up_s = self._clock.monotonic_s() + limits.ETCD_READ_TOTAL_S
        pause_s = limits.ETCD_RETRY_PAUSE_S
        while True:
            for index in self._choice.order(self._clock.monotonic_s()):
                left_s = give_up_s - self._clock.monotonic_s()
                if self._closed:
                    raise NoQuorum("The connection to etcd is closed")
                if left_s <= 0:
                    raise NoQuorum(f"etcd gave no answer to {what} within {limits.ETCD_READ_TOTAL_S:g} s ({reason})")
                term = self._choice.term
                try:
                    response = await call(self._stub(index, service, method), min(left_s, limits.ETCD_CALL_S))
                except grpc.RpcError as error:
                    reason = self._judge_read(index, what, error)
                    continue
                if self._choice.believe(response.header.cluster_id, response.header.raft_term, term):
                    self._choice.answered(index)
                    return response
                reason = f"{self.members[index].address} is in an older Raft term than the others"
                self._choice.failed(index, self._clock.monotonic_s())
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.ETCD_RETRY_PAUSE_MAX_S)

    def _judge_read(self, index: int, what: str, error: grpc.RpcError) -> str:
        address = self.members[index].address
        code, details = describe(error)
        verdict = judge(code, details)
        if verdict is Verdict.COMPACTED:
            raise RevisionCompacted from error
        if verdict is Verdict.DENIED:
            raise denied(what, address, details) from error
        self._choice.failed(index, self._clock.monotonic_s())
        return f"{address}: {details}"

    async def write(self, service: str, method: str, request: Any) -> Any:
        """Any call that changes something, sent once: its answer, TxnUnknown or TxnRefused."""
        if self._closed:
            raise NoQuorum("The connection to etcd is closed")
        index = self._choice.order(self._clock.monotonic_s())[0]
        term = self._choice.term
        call = self._stub(index, service, method).future(request, timeout=limits.ETCD_CALL_S, metadata=HAS_LEADER)
        try:
            response = await _finished(call)
        except grpc.RpcError as error:
            return self._judge_write(index, f"{service}/{method}", error)
        self._choice.answered(index)
        self._choice.believe(response.header.cluster_id, response.header.raft_term, term)
        return response

    def _judge_write(self, index: int, what: str, error: grpc.RpcError) -> TxnUnknown | TxnRefused:
        address = self.members[index].address
        code, details = describe(error)
        verdict = judge(code, details)
        if verdict is Verdict.DENIED:
            raise denied(what, address, details) from error
        if verdict is Verdict.TOO_LARGE:
            raise too_large(what, details) from error
        self._choice.failed(index, self._clock.monotonic_s())
        reason = f"{address}: {details}"
        return TxnRefused(reason) if verdict is Verdict.REFUSED else TxnUnknown(reason)

    async def on_member(self, index: int, service: str, method: str, request: Any, timeout_s: float) -> Any:
        """One call to one member, sent once. NoQuorum without a good answer, SettingsError if it refuses this user."""
        call = self._stub(index, service, method).future(request, timeout=timeout_s)
        try:
            return await _finished(call)
        except grpc.RpcError as error:
            code, details = describe(error)
            address = self.members[index].address
            if judge(code, details) is Verdict.DENIED:
                raise denied(f"{service}/{method}", address, details) from error
            raise NoQuorum(f"etcd at {address} did not do {service}/{method}: {details}") from error

    async def _status(self, index: int) -> MemberStatus:
        member = self.members[index]
        call = self._stub(index, "Maintenance", "Status").future(protos.rpc.StatusRequest(), timeout=limits.ETCD_CALL_S)
        try:
            status = await _finished(call)
        except grpc.RpcError as error:
            return MemberStatus(member.zone, member.address, error=describe(error)[1])
        return MemberStatus(
            member.zone,
            member.address,
            status.version,
            status.header.member_id,
            status.leader,
            status.raftTerm,
            status.dbSize,
            status.dbSizeInUse,
            tuple(status.errors),
            quota_bytes=status.dbSizeQuota,
            applied_index=status.raftAppliedIndex,
        )

    def _stub(self, index: int, service: str, method: str) -> Any:
        """The callable of one RPC on one member's channel. Also called from watches' threads."""
        with self._opening:
            client = self._clients.get(index)
            if client is None:
                client = self._clients[index] = self._open(self.members[index])
        known = getattr(getattr(protos.rpc, f"{service}Stub")(client.channel), method, None)
        # The package's stubs are of an older etcd: a call that they lack gives its answer as bytes.
        return known or client.channel.unary_unary(
            f"/etcdserverpb.{service}/{method}", request_serializer=lambda request: request.SerializeToString()
        )

    def _open(self, member: EtcdMember) -> Any:
        host, _, port = member.address.rpartition(":")
        options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS]
        if member.server_name:
            options.append(("grpc.ssl_target_name_override", member.server_name))
        files: dict[str, str] = {}
        if self._tls is not None:
            files = dict(zip(("ca_cert", "cert_cert", "cert_key"), map(str, self._tls), strict=True))
        try:
            return protos.etcd3.Etcd3Client(host=host, port=int(port), grpc_options=options, **files)
        except OSError as failure:
            raise SettingsError(f"A certificate file for etcd cannot be read: {failure}") from failure


async def _finished(call: Any) -> Any:
    """A gRPC future's result, awaited; cancelling the wait cancels the call."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def on_done(_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    call.add_done_callback(on_done)
    try:
        await done
    except asyncio.CancelledError:
        call.cancel()
        raise
    try:
        return call.result()
    except grpc.FutureCancelledError as cancelled:
        raise NoQuorum("The connection to etcd was closed while a call was in flight") from cancelled


def _certain(response: Any, what: str) -> Any:
    if isinstance(response, TxnUnknown):
        raise OutcomeUnknown(f"etcd gave no answer to {what} ({response.reason}): it may or may not have been done")
    if isinstance(response, TxnRefused):
        raise NoQuorum(f"etcd refused {what} for now ({response.reason}): try again")
    return response
