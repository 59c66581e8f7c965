"""Incremental xDS, as conversations."""

from __future__ import annotations

import pytest

from runtime.limits import XDS_RESPONSE_BYTES
from tests.xds.transcripts import DeltaClient
from xds.freshness import NodeMemory
from xds.view import ROUTE

WORLD = "feed 10 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1"

CONNECTED = f"""
    >> cds
    {WORLD}
    confirm 10
    << cds A=1 B=1
    >> eds +A
    << eds A=1
    >> cds ack
    >> eds ack
    >> lds
    << lds L=1
    >> rds +R
    << rds R=1
    >> lds ack
    >> rds ack
    !! settled 10
"""


def connected(memory: NodeMemory | None = None) -> DeltaClient:
    client = DeltaClient(memory)
    client.play(CONNECTED)
    return client


def test_only_what_changed_is_sent() -> None:
    connected().play("""
        feed 11 | cds A=1 B=2 C=1 | eds A=1 | lds L=1 | rds R=2
        << cds B=2 C=1
        << nothing
        >> cds ack
        << rds R=2
        >> rds ack
        !! settled 11
    """)


def test_removals_follow_the_acceptance_of_listeners_and_routes() -> None:
    connected().play("""
        feed 11 | cds B=1 C=1 | lds M=1 | rds S=1
        << cds C=1
        >> cds ack
        << lds M=1 -L
        << nothing
        >> rds +S -R
        << rds S=1
        >> lds ack
        << nothing
        >> rds ack
        << cds -A
        << nothing
        >> cds ack
        << eds -A
        >> eds ack
        !! settled 11
    """)


def test_a_subscription_counts_even_under_a_stale_nonce() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2 S=1
        << rds R=2
        >> rds +S nonce=long-ago
        << nothing          # one response at a time
        >> rds ack
        << rds S=1
        >> rds ack
        !! settled 11
    """)


def test_every_subscribed_name_is_answered_even_if_it_is_held() -> None:
    connected().play(">> rds +R\n<< rds R=1")


def test_a_missing_name_is_answered_as_removed_and_pushed_when_it_appears() -> None:
    connected().play("""
        >> rds +T
        << rds -T
        >> rds ack
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 T=1
        << rds T=1
        >> rds ack
        feed 12 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1
        << rds -T
        >> rds ack
        feed 13 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 T=2
        << rds T=2
    """)


def test_an_unsubscribed_name_is_forgotten_without_an_answer_and_unknown_ones_are_tolerated() -> None:
    connected().play("""
        >> rds -R -Phantom
        << nothing
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2
        << nothing
        >> rds +R
        << rds R=2
    """)


def test_an_unsubscribed_name_that_the_wildcard_covers_is_answered() -> None:
    connected().play("""
        >> cds -A -Nope
        << cds A=1 -Nope
        << eds A=1          # if it had dropped the cluster, it warms anew
    """)


def test_the_legacy_wildcard_stays_when_names_come_until_it_is_unsubscribed() -> None:
    connected().play("""
        >> cds +A
        << cds A=1
        << eds A=1
        >> eds ack
        >> cds ack
        feed 11 | cds A=1 B=2 | eds A=1 | lds L=1 | rds R=1
        << cds B=2
        >> cds ack
        >> cds -*
        << nothing
        feed 12 | cds A=2 B=3 | eds A=1 | lds L=1 | rds R=1
        << cds A=2
        << eds A=1
        >> eds ack
        >> cds ack
        >> cds -A
        feed 13 | cds A=3 B=4 | eds A=1 | lds L=1 | rds R=1
        << nothing
        >> cds +*
        << cds A=3 B=4
        << eds A=1
    """)


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        (">> lds", "<< lds L=1 M=1"),
        (">> lds +*", "<< lds L=1 M=1"),
        (">> lds +M", "<< lds M=1"),
        (">> lds +* +L", "<< lds L=1 M=1"),
        (">> lds +Nope", "<< lds -Nope"),
        (">> rds", "<< nothing"),
    ],
)
def test_what_the_first_request_asks_for(request_line: str, answer: str) -> None:
    DeltaClient().play(f"feed 10 | lds L=1 M=1 | rds R=1\n{request_line}\nconfirm 10\n{answer}")


def test_an_empty_state_is_told_to_an_empty_proxy_once_it_is_known_to_be_empty() -> None:
    DeltaClient().play(">> cds\n<< nothing\nfeed 10\n<< nothing\nconfirm 10\n<< cds")


def test_endpoints_are_sent_again_after_their_cluster_changed() -> None:
    connected().play("""
        feed 11 | cds A=2 B=1 | eds A=1 | lds L=1 | rds R=1
        << cds A=2
        << eds A=1
        >> eds ack
        >> cds ack
        !! settled 11
    """)


def test_a_cluster_under_way_gets_its_endpoints_though_the_world_has_moved_on() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 C=1 | eds A=1 C=1 | lds L=1 | rds R=2
        << cds C=1
        feed 12 | cds A=1 B=1 D=1 | eds A=1 D=1 | lds L=1 | rds R=3
        >> eds +C
        << eds C=1          # not "removed": it would be accepted without endpoints, and routes would follow
        >> eds ack
        >> cds ack
        << cds D=1
        << rds R=2
        >> eds +D
        << eds D=1
        >> eds ack
        >> cds ack
        >> rds ack
        << rds R=3
        >> rds ack
        << cds -C
        >> cds ack
        << eds -C
        >> eds ack
        !! settled 12
    """)


def test_refused_endpoints_of_a_cluster_that_is_gone_hold_nothing_up() -> None:
    DeltaClient().play("""
        feed 10 | cds A=1 | eds A=bad | lds L=1
        >> cds
        confirm 10
        << cds A=1
        >> cds ack
        >> lds
        << lds L=1
        >> lds ack
        >> eds +A
        << eds A=bad
        >> eds nack A is bad
        feed 11 | cds A=2 | eds A=bad | lds L=2
        << cds A=2
        << eds A=bad        # asked for, in a way: the cluster warms anew
        >> eds nack A is bad
        >> cds ack
        << nothing          # A may be of no use
        feed 12 | cds B=1 | lds L=3
        << cds B=1
        >> cds ack
        << lds L=3
        >> lds ack
        << cds -A
        >> cds ack
        << eds -A
        >> eds ack
        !! settled 12
    """)


def test_secrets_go_at_once_and_are_removed_last() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 | sds S=1
        >> sds +S
        << sds S=1
        >> sds ack
        feed 12 | cds A=2 | eds A=1 | lds L=1 | rds R=1 | sds S=2
        << cds A=2
        << eds A=1
        << sds S=2          # a warming cluster may wait for it
        >> sds ack
        >> eds ack
        >> cds ack
        << cds -B
        >> cds ack
        feed 13 | cds A=2 | eds A=1 | lds L=2 | rds R=1
        << lds L=2
        << nothing
        >> lds ack
        << sds -S
        >> sds ack
        !! settled 13
    """)


def test_what_was_refused_is_not_pushed_again_and_the_next_good_one_is() -> None:
    connected().play("""
        feed 11 | cds A=bad B=2 | eds A=1 | lds L=1 | rds R=2
        << cds A=bad B=2
        << eds A=1
        >> eds ack
        >> cds nack Error adding/updating cluster(s) A: bad
        !! nacked cds 11 A
        << cds B=2             # it may or may not have it: sent without the bad one
        >> cds ack
        << nothing             # R=2 may need the new A
        feed 12 | cds A=3 B=2 | eds A=1 | lds L=1 | rds R=2
        << cds A=3
        << eds A=1
        >> eds ack
        >> cds ack
        << rds R=2
        >> rds ack
        !! settled 12
    """)


def test_an_empty_proxy_gets_what_is_left_when_it_refuses_a_cluster() -> None:
    DeltaClient().play("""
        feed 10 | cds A=bad B=1 | lds L=1 | rds R=1
        >> cds
        >> lds
        confirm 10
        << cds A=bad B=1
        >> cds nack A is bad
        << cds B=1
        >> cds ack
        << lds L=1
    """)


def test_a_proxy_that_works_keeps_its_routes_when_it_refuses_a_cluster_after_a_reconnect() -> None:
    DeltaClient().play("""
        feed 10 | cds A=bad B=1 | lds L=1 | rds R=2
        >> cds has=A:1,B:1
        >> lds has=L:1
        >> rds +R has=R:1
        confirm 10
        << cds A=bad
        >> cds nack A is bad
        << nothing
    """)


def test_listeners_wait_for_clusters_that_are_asked_for_after_something_else() -> None:
    DeltaClient().play("""
        feed 10 | cds A=1 | lds L=1 | rds R=1
        >> rds +R
        confirm 10
        << rds R=1          # nobody asked for clusters so far
        >> rds ack
        >> cds
        << cds A=1
        >> lds
        << nothing
        >> cds ack
        << lds L=1
    """)


# --- reconnecting


def test_what_is_held_in_the_same_version_is_not_sent_but_names_are_answered() -> None:
    DeltaClient().play(f"""
        >> cds has=A:1,B:1
        >> eds +A has=A:1
        >> lds has=L:1
        >> rds +R has=R:1
        {WORLD}
        confirm 10
        << eds A=1
        >> eds ack
        << rds R=1
        >> rds ack
        !! settled 10
    """)


def test_what_is_held_and_gone_is_removed_after_listeners_and_routes() -> None:
    DeltaClient(NodeMemory()).play("""
        feed 11 | cds B=1 C=1 | lds M=1 | rds S=1
        >> cds has=A:1,B:1
        >> eds +A has=A:1
        >> lds has=L:1
        >> rds +R has=R:1
        confirm 11
        << cds C=1
        << nothing
        >> cds ack
        << lds M=1 -L
        >> rds +S -R
        << rds S=1
        >> rds ack
        >> lds ack
        << cds -A
        >> cds ack
        << eds -A
    """)


def test_held_names_that_were_not_asked_for_are_removed_when_gone() -> None:
    DeltaClient().play("""
        feed 11 | rds R=1
        >> rds +R has=R:1,Gone:1
        confirm 11
        << rds R=1 -Gone
    """)


def test_a_large_answer_is_cut_and_no_listener_goes_before_the_last_part() -> None:
    client = DeltaClient()
    half = "x" * (XDS_RESPONSE_BYTES // 2)
    client.play(f"""
        feed 10 | cds A={half} B={half} C={half} | lds L=1
        >> cds
        >> lds
        confirm 10
        << cds A={half}
        >> cds ack
        << cds B={half}
        >> cds ack
        << cds C={half}
        << nothing
        >> cds ack
        << lds L=1
    """)
    assert all(send.response.ByteSize() <= XDS_RESPONSE_BYTES + 1024 for send in client.raw)
    assert ROUTE not in {send.type_url for send in client.raw}


def test_a_secret_that_the_node_does_not_have_is_not_there_whoever_has_it() -> None:
    """Another node's certificate, or a customer's own secret, for which proxies ask elsewhere."""
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 | sds S=1
        >> sds +S +Other
        << sds S=1 -Other
        >> sds ack
        << nothing
    """)
