"""The connection against real etcd: members die, stop and come back; reads go on, writes are never sent twice."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.etcd import protos
from cluster.etcd.choice import EtcdMember
from cluster.etcd.connection import EtcdConnection, TlsFiles
from cluster.etcd.values import (
    CreateRevisionIs,
    Delete,
    ModRevisionIs,
    Put,
    RangeRead,
    RevisionCompacted,
    TxnDone,
    TxnUnknown,
    ValueIs,
)
from mesh.errors import LimitExceeded, NoQuorum, OutcomeUnknown, SettingsError, TimelineMoved
from runtime.clock import SystemClock, SystemEntropy
from runtime.ports import free_port
from tests.conditions import PATIENCE_S
from tests.etcd_cluster import EtcdCluster, EtcdTls


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd-connection"), size=3) as running:
        yield running


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cluster" in request.fixturenames:
        running: EtcdCluster = request.getfixturevalue("cluster")
        for index, member in enumerate(running.members):
            if member.process is None:
                running.start(index)


def connect(endpoints: list[tuple[str, str]], tls: TlsFiles | None = None) -> EtcdConnection:
    members = [EtcdMember(*endpoint) for endpoint in endpoints]
    return EtcdConnection(members, "z1", tls, SystemClock(), SystemEntropy())


@pytest.fixture
async def connection(cluster: EtcdCluster) -> AsyncIterator[EtcdConnection]:
    opened = connect(cluster.endpoints)
    yield opened
    opened.close()


async def test_put_range_and_delete(connection: EtcdConnection) -> None:
    revision = await connection.put(b"a/1", b"one")
    await connection.put(b"a/2", b"two")
    found = await connection.range(RangeRead(b"a/", b"a0", limit=1))
    assert [(item.key, item.value, item.mod_revision) for item in found.items] == [(b"a/1", b"one", revision)]
    assert found.more
    old = await connection.range(RangeRead(b"a/", b"a0", revision=revision))
    assert len(old.items) == 1
    assert await connection.delete(b"a/", b"a0") == 2
    assert (await connection.range(RangeRead(b"a/", b"a0"))).items == ()


async def test_a_txn_takes_one_branch_whole(connection: EtcdConnection) -> None:
    await connection.put(b"t", b"one")
    revision = (await connection.range(RangeRead(b"t"))).items[0].mod_revision
    done = await connection.txn(
        [ValueIs(b"t", b"one"), ModRevisionIs(b"t", revision), CreateRevisionIs(b"t/new", 0)],
        [Put(b"t", b"two"), Put(b"t/new", b"x")],
    )
    assert isinstance(done, TxnDone)
    assert done.succeeded
    lost = await connection.txn([ValueIs(b"t", b"one")], [Put(b"t", b"three")], [RangeRead(b"t"), Delete(b"t/new")])
    assert isinstance(lost, TxnDone)
    assert not lost.succeeded
    assert [item.value for item in lost.reads[0].items] == [b"two"]
    assert (await connection.range(RangeRead(b"t/new"))).items == ()


async def test_reads_together_are_of_one_revision(connection: EtcdConnection) -> None:
    await connection.put(b"r/1", b"one")
    one, two = await connection.read_together([RangeRead(b"r/1"), RangeRead(b"r/none")])
    assert one.revision == two.revision > 0
    assert [item.value for item in one.items] == [b"one"]


async def test_leases_hold_keys_and_let_them_go(connection: EtcdConnection) -> None:
    lease = await connection.lease_grant(30)
    await connection.put(b"leased", b"here", lease)
    assert (await connection.range(RangeRead(b"leased"))).items[0].lease == lease
    assert await connection.lease_keepalive(lease) == 30
    await connection.lease_revoke(lease)
    assert (await connection.range(RangeRead(b"leased"))).items == ()
    assert await connection.lease_keepalive(lease) == 0
    with pytest.raises(NoQuorum, match="lease not found"):
        await connection.put(b"leased", b"again", lease)


async def test_statuses_name_one_leader_and_the_dead(cluster: EtcdCluster, connection: EtcdConnection) -> None:
    statuses = await connection.statuses()
    assert [status.zone for status in statuses] == ["z1", "z2", "z3"]
    assert sum(status.leads for status in statuses) == 1
    assert all(status.version.startswith("3.") and status.db_size_bytes > 0 for status in statuses)
    cluster.kill(2)
    assert (await connection.statuses())[2].error


async def test_a_compacted_revision_is_told(connection: EtcdConnection) -> None:
    revision = await connection.put(b"c", b"1")
    await connection.put(b"c", b"2")
    await connection.write("KV", "Compact", protos.rpc.CompactionRequest(revision=revision + 1))
    with pytest.raises(RevisionCompacted):
        await connection.range(RangeRead(b"c", revision=revision))


async def test_what_is_too_large_is_the_callers_fault(connection: EtcdConnection) -> None:
    for size_bytes in (1_800_000, 3_000_000):  # over what etcd takes, over what its gRPC reads
        with pytest.raises(LimitExceeded):
            await connection.put(b"big", b"x" * size_bytes)


async def test_a_read_goes_to_another_member_at_once(cluster: EtcdCluster, connection: EtcdConnection) -> None:
    await connection.put(b"k", b"v")
    if cluster.leader() == 0:
        cluster.restart(0)
        await asyncio.to_thread(cluster.leader)
    cluster.kill(0)
    began_s = time.monotonic()
    assert (await connection.range(RangeRead(b"k"))).items[0].value == b"v"
    assert time.monotonic() - began_s < PATIENCE_S


async def test_reads_outlive_the_leader(cluster: EtcdCluster, connection: EtcdConnection) -> None:
    await connection.put(b"k", b"v")
    cluster.kill(cluster.leader())
    began_s = time.monotonic()
    assert (await connection.range(RangeRead(b"k"))).items[0].value == b"v"
    assert time.monotonic() - began_s < PATIENCE_S


async def test_without_quorum_reads_fail_in_time_and_writes_are_unknown(
    cluster: EtcdCluster, connection: EtcdConnection
) -> None:
    await connection.put(b"k", b"v")
    cluster.kill(1)
    cluster.kill(2)
    began_s = time.monotonic()
    outcome = await connection.txn([], [Put(b"k", b"w")])
    assert isinstance(outcome, TxnUnknown)
    assert time.monotonic() - began_s < PATIENCE_S
    with pytest.raises(NoQuorum, match="KV/Range"):
        await connection.range(RangeRead(b"k"))
    assert time.monotonic() - began_s < PATIENCE_S


async def test_a_write_to_a_stopped_member_is_sent_once_and_unknown(
    cluster: EtcdCluster, connection: EtcdConnection
) -> None:
    await connection.put(b"once", b"before")
    before = (await connection.range(RangeRead(b"once"))).items[0]
    cluster.pause(0)
    try:
        with pytest.raises(OutcomeUnknown):
            await connection.put(b"once", b"after")
    finally:
        cluster.resume(0)
    again = (await connection.range(RangeRead(b"once"))).items[0]
    assert again.version - before.version in (0, 1)


async def test_a_member_of_another_cluster_stops_the_process(cluster: EtcdCluster, tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, size=1) as other:
        mixed = connect([("z1", other.endpoints[0][1]), ("z2", cluster.endpoints[1][1])])
        await mixed.range(RangeRead(b"k"))
        other.kill(0)
        with pytest.raises(TimelineMoved, match="began with cluster"):
            await mixed.range(RangeRead(b"k"))
        mixed.close()


async def test_nobody_there_is_no_quorum_within_the_deadline() -> None:
    nobody = connect([("z1", f"127.0.0.1:{free_port()}")])
    began_s = time.monotonic()
    with pytest.raises(NoQuorum):
        await nobody.range(RangeRead(b"k"))
    assert time.monotonic() - began_s < PATIENCE_S
    nobody.close()
    with pytest.raises(NoQuorum, match="closed"):
        await nobody.range(RangeRead(b"k"))


def test_no_member_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        connect([])


def _certificate(
    folder: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False).add_extension(usages, False)
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    root = _certificate(tmp_path, "ca", None)
    for name in ("server", "client"):
        _certificate(tmp_path, name, root)
    tls = EtcdTls(tmp_path / "ca.crt", tmp_path / "server.crt", tmp_path / "server.key")
    with EtcdCluster(tmp_path / "etcd", size=1, tls=tls) as secured:
        files = TlsFiles(tmp_path / "ca.crt", tmp_path / "client.crt", tmp_path / "client.key")
        opened = connect(secured.endpoints, files)
        await opened.put(b"k", b"v")
        assert (await opened.range(RangeRead(b"k"))).items[0].value == b"v"
        opened.close()
        plain = connect(secured.endpoints)
        with pytest.raises(NoQuorum):
            await plain.range(RangeRead(b"k"))
        plain.close()
        missing = connect(secured.endpoints, files._replace(key=tmp_path / "none"))
        with pytest.raises(SettingsError, match="none"):
            await missing.range(RangeRead(b"k"))
