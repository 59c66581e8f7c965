"""Who a stream is for, when it may be answered, and that nothing goes backwards. In both protocols."""

from __future__ import annotations

import pytest

from identity.node_id import NodeId
from mesh.position import Position
from projector.feed.port import NodeUpdate
from tests.xds.transcripts import NODE, DeltaClient, SotwClient, snapshot
from xds.freshness import NodeMemory

BOTH = pytest.mark.parametrize("kind", [SotwClient, DeltaClient])
HOLDING = {SotwClient: "version=something", DeltaClient: "has=A:1"}

Kind = type[SotwClient] | type[DeltaClient]


# --- binding


@BOTH
def test_the_first_request_must_name_the_node(kind: Kind) -> None:
    kind().play(">> cds node=\n!! close 3 the first request of a stream must carry node.id")


@BOTH
@pytest.mark.parametrize(
    "spelling",
    [
        "mesh/m/virtualNode/n",
        "mesh/m@123456789012/virtualNode/n",
        "arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/n",
    ],
)
def test_every_spelling_of_the_certificates_node_is_taken(kind: Kind, spelling: str) -> None:
    kind().play(f"feed 10 | cds A=1\n>> cds node={spelling}\nconfirm 10\n<< cds A=1")


@BOTH
@pytest.mark.parametrize(
    "other",
    [
        "mesh/m/virtualNode/other",
        "mesh/x/virtualNode/n",
        "mesh/m/virtualGateway/n",
        "mesh/m@210987654321/virtualNode/n",
    ],
)
def test_another_node_than_the_certificates_is_refused(kind: Kind, other: str) -> None:
    kind().play(f"feed 10 | cds A=1\n>> cds node={other}\n!! close 7 mesh/m@123456789012/virtualNode/n, not for node")


@BOTH
def test_a_node_id_that_names_nothing_is_refused_with_the_spellings(kind: Kind) -> None:
    kind().play(">> cds node=envoy-1\n!! close 3 write mesh/<mesh>/virtualNode/<name>")


@BOTH
def test_the_node_may_be_repeated_but_not_changed(kind: Kind) -> None:
    kind().play("""
        >> cds
        >> lds node=mesh/m/virtualNode/n
        >> rds node=mesh/m/virtualNode/other
        !! close 3 cannot change
    """)


@BOTH
@pytest.mark.parametrize("type_url", ["type.googleapis.com/envoy.service.runtime.v3.Runtime", "nonsense"])
def test_an_unknown_type_closes_the_stream(kind: Kind, type_url: str) -> None:
    kind().play(f">> cds\n>> {type_url}\n!! close 3 {type_url}")


@BOTH
def test_a_node_that_the_mesh_does_not_have_is_refused_by_name_once_that_is_confirmed(kind: Kind) -> None:
    kind().play("""
        >> cds
        feed 10 unknown
        << nothing
        unconfirmed
        << nothing
        confirm 10
        !! close 3 virtualNode 'n' does not exist in mesh 'm'
    """)


@BOTH
def test_a_node_that_is_deleted_keeps_its_config_and_loses_its_stream(kind: Kind) -> None:
    kind().play("""
        feed 10 | cds A=1
        >> cds
        confirm 10
        << cds A=1
        feed 11 unknown
        !! close 3 does not exist
        << nothing
        feed 12 | cds A=2
        << nothing
    """)


# --- freshness


@BOTH
def test_nothing_is_answered_before_the_head_is_confirmed(kind: Kind) -> None:
    kind().play("""
        >> cds
        !! confirm
        feed 10 | cds A=1
        << nothing
        confirm 10
        << cds A=1
    """)


@BOTH
def test_with_etcd_down_an_empty_proxy_gets_the_last_good_state(kind: Kind) -> None:
    kind().play("""
        feed 10 | cds A=1 | lds L=1
        >> cds
        unconfirmed
        << cds A=1
        !! confirm
        >> cds ack
        >> lds
        << lds L=1
        confirm 10
        << nothing
    """)


@BOTH
def test_with_etcd_down_a_proxy_that_holds_config_is_sent_nothing_until_it_is_back(kind: Kind) -> None:
    kind().play(f"""
        feed 10 | cds A=1 B=1
        >> cds {HOLDING[kind]}
        !! confirm
        unconfirmed
        !! confirm
        feed 11 | cds A=2 B=1
        unconfirmed
        << nothing
        confirm 11
        << cds {"A=2 B=1"}
    """)


@BOTH
def test_a_proxy_is_not_empty_if_any_type_says_so(kind: Kind) -> None:
    kind().play(f"""
        feed 10 | cds A=1 | lds L=1
        >> lds {HOLDING[kind].replace("A", "L")}
        >> cds
        unconfirmed
        << nothing
    """)


@BOTH
def test_an_empty_proxy_waits_when_there_is_no_good_state_at_all(kind: Kind) -> None:
    kind().play(">> cds\nunconfirmed\n<< nothing\nfeed 10 | cds A=1\n<< cds A=1")


@BOTH
def test_what_is_older_than_was_served_is_not_taken_until_it_is_confirmed(kind: Kind) -> None:
    kind().play("""
        feed 10 | cds A=1
        >> cds
        confirm 10
        << cds A=1
        >> cds ack
        feed 8 | cds A=0       # a projector that lags behind
        << nothing
        !! confirm
        unconfirmed
        << nothing
        feed 12 | cds A=2
        << cds A=2
    """)


@BOTH
def test_the_same_content_under_an_earlier_position_is_taken(kind: Kind) -> None:
    memory = NodeMemory()
    kind(memory).play("feed 10 | cds A=1\n>> cds\nconfirm 10\n<< cds A=1")
    kind(memory, prefix="t").play("feed 8 | cds A=1\n>> cds\nunconfirmed\n<< cds A=1")
    kind(memory, prefix="u").play("feed 8 | cds A=0\n>> cds\nunconfirmed\n<< nothing")


@BOTH
def test_a_confirmed_head_below_what_was_served_is_another_log_and_is_not_believed(kind: Kind) -> None:
    memory = NodeMemory()
    kind(memory).play("feed 10 | cds A=1\n>> cds\nconfirm 10\n<< cds A=1")
    kind(memory, prefix="t").play("feed 8 | cds A=0\n>> cds\n!! confirm\nconfirm 8\n<< nothing\n!! confirm")


@BOTH
def test_two_proxies_of_two_nodes_get_each_its_own(kind: Kind) -> None:
    memory, other = NodeMemory(), NodeId(NODE.account, "m", "virtualNode", "other")
    kind(memory).play("feed 10 | cds A=1\n>> cds\nconfirm 10\n<< cds A=1")
    kind(memory, identity=other).play("feed 5 | cds B=1\n>> cds node=mesh/m/virtualNode/other\nconfirm 5\n<< cds B=1")


def test_the_memory_is_bounded_and_forgets_the_node_that_was_longest_unused() -> None:
    memory = NodeMemory(nodes_max=2)
    nodes = [NodeId(NODE.account, "m", "virtualNode", name) for name in "abc"]
    for node in (*nodes[:2], nodes[0], nodes[2]):
        memory.served(NodeUpdate(node, Position(1, 7), snapshot(7, "cds A=1", node)))
    assert [memory.high_water(node).mesh.position for node in nodes] == [7, 0, 7]
    assert len(memory) == 2
