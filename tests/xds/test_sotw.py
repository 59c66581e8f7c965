"""State of the world, as conversations. Numbers are rules of the xDS protocol as this server keeps them."""

from __future__ import annotations

import pytest

from tests.xds.transcripts import SotwClient
from xds.freshness import NodeMemory

WORLD = "feed 10 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1"

CONNECTED = f"""
    >> cds
    {WORLD}
    confirm 10
    << cds A=1 B=1
    >> eds A
    << eds A=1
    >> cds ack
    >> eds ack
    >> lds
    << lds L=1
    >> rds R
    << rds R=1
    >> lds ack
    >> rds ack
    !! settled 10
"""


def connected(memory: NodeMemory | None = None) -> SotwClient:
    client = SotwClient(memory)
    client.play(CONNECTED)
    return client


def test_a_stream_is_answered_in_make_before_break_order_and_an_ack_gets_no_answer() -> None:
    connected().play("<< nothing")


def test_a_change_of_one_type_sends_that_type_only() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2
        << rds R=2
        >> rds ack
        !! acked rds 11
        !! settled 11
    """)


def test_clusters_are_a_full_set_and_routes_only_what_changed() -> None:
    client = connected()
    client.play("""
        feed 11 | cds A=1 B=1 C=1 | eds A=1 | lds L=1 | rds R=1 S=1
        << cds A=1 B=1 C=1
        >> cds ack
        >> rds ack R S
        << rds S=1
        >> rds ack
        feed 12 | cds A=1 B=1 C=1 | eds A=1 | lds L=1 | rds R=1 S=2
        << rds S=2
    """)


def test_what_old_routes_use_stays_until_new_ones_are_accepted() -> None:
    client = connected()
    client.play("""
        feed 11 | cds B=1 C=1 | lds L=1 | rds R=2
        << cds A=1 B=1 C=1
        << nothing
        >> cds ack
        << rds R=2
        << nothing
        >> rds ack
        << cds B=1 C=1
        >> cds ack
        !! settled 11
    """)
    transitional, final = (send.response.version_info for send in client.raw[-3:] if send.type_url.endswith("Cluster"))
    assert transitional != final
    assert final == client.views["11"].version(client.raw[-1].type_url)


def test_a_removed_listener_goes_before_its_clusters() -> None:
    connected().play("""
        feed 11 | cds B=1 | rds R=1
        << lds
        << nothing
        >> lds ack
        << cds B=1
        >> cds ack
        !! settled 11
    """)


def test_endpoints_are_sent_again_after_their_cluster_changed() -> None:
    connected().play("""
        feed 11 | cds A=2 B=1 | eds A=1 | lds L=1 | rds R=1
        << cds A=2 B=1
        << eds A=1          # although the client holds them, and before it accepts the cluster
        >> eds ack
        >> cds ack
        !! settled 11
    """)


def test_endpoints_never_wait_for_a_client_that_holds_back_its_ack_of_clusters() -> None:
    connected().play("""
        feed 11 | cds A=2 B=1 | eds A=1 | lds L=1 | rds R=2
        << cds A=2 B=1
        << eds A=1
        >> eds ack
        feed 12 | cds A=2 B=1 | eds A=2 | lds L=1 | rds R=2
        << eds A=2
        << nothing          # routes wait
        >> eds ack
        >> cds ack
        << rds R=2
    """)


def test_routes_are_not_starved_by_endpoints_that_change_all_the_time() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 C=1 | eds A=2 | lds L=1 | rds R=2
        << cds A=1 B=1 C=1
        << eds A=2
        feed 12 | cds A=1 B=1 C=1 | eds A=3 | lds L=1 | rds R=2
        >> cds ack
        >> eds ack
        << eds A=3
        << rds R=2
    """)


def test_only_the_newest_of_many_changes_is_sent() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2
        << rds R=2
        feed 12 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=3
        feed 13 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=4
        << nothing
        >> rds ack
        << rds R=4
    """)


def test_a_stale_nonce_is_no_ack_and_no_subscription() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2 S=1
        << rds R=2
        >> rds R S nonce=stale
        << nothing
        >> rds ack R S
        !! acked rds 11
        << rds S=1
    """)


def test_a_new_stream_may_carry_nonce_version_and_error_of_another() -> None:
    SotwClient().play(f"""
        {WORLD}
        >> eds A nonce=foreign version=foreign
        confirm 10
        << eds A=1
        >> eds ack
        !! acked eds 10
    """)


def test_a_refusal_is_known_by_its_error_and_nothing_else() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=2
        << rds R=2
        >> rds ack version=what-it-had-before
        !! acked rds 11
    """)


def test_what_was_refused_is_not_pushed_again_and_the_next_good_one_is() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=bad
        << rds R=bad
        >> rds nack R: no such thing
        !! nacked rds 11 R
        << nothing
        feed 12 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=bad
        << nothing
        feed 13 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=3
        << rds R=3
        >> rds ack
        !! settled 13
    """)


def test_after_a_refusal_the_old_content_is_pushed_since_parts_of_the_refused_may_be_in_force() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=bad
        << rds R=bad
        >> rds nack R is bad
        feed 12 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1
        << rds R=1
        >> rds ack
        !! settled 12
    """)


def test_a_refused_cluster_is_left_out_the_others_go_on_and_routes_wait() -> None:
    connected().play("""
        feed 11 | cds A=1 B=bad C=1 | eds A=1 | lds L=1 | rds R=2
        << cds A=1 B=bad C=1
        >> cds nack Error adding/updating cluster(s) B: bad
        !! nacked cds 11 B
        << cds A=1 B=1 C=1       # without the bad bytes, so that C is surely there
        >> cds ack
        << nothing               # R=2 may need the new B
        feed 12 | cds A=1 B=3 C=1 | eds A=1 | lds L=1 | rds R=2
        << cds A=1 B=3 C=1
        >> cds ack
        << rds R=2
        >> rds ack
        !! settled 12
    """)


def test_clusters_that_refused_routes_would_drop_stay() -> None:
    connected().play("""
        feed 11 | cds B=1 | lds L=1 | rds R=bad
        << rds R=bad
        >> rds nack R is bad
        << nothing
    """)


def test_names_that_come_anew_are_answered_even_if_pushed_before() -> None:
    connected().play("""
        >> rds ack none
        << nothing
        >> rds ack R
        << rds R=1
    """)


def test_a_name_that_does_not_exist_is_remembered() -> None:
    connected().play("""
        >> rds ack R T
        << nothing
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 T=1
        << rds T=1
    """)


@pytest.mark.parametrize(
    ("requests", "answer"),
    [
        (">> lds", "<< lds L=1 M=1"),
        (">> lds *", "<< lds L=1 M=1"),
        (">> lds * L", "<< lds L=1 M=1"),
        (">> lds M", "<< lds M=1"),
        (">> lds Nope", "<< lds"),
        (">> rds", "<< nothing"),
        (">> rds Nope", "<< nothing"),
    ],
)
def test_what_names_ask_for(requests: str, answer: str) -> None:
    SotwClient().play(f"feed 10 | lds L=1 M=1 | rds R=1\n{requests}\nconfirm 10\n{answer}")


def test_the_wildcard_ends_when_a_name_comes_and_an_empty_list_is_then_nothing() -> None:
    SotwClient().play("""
        feed 10 | lds L=1 M=1
        >> lds
        confirm 10
        << lds L=1 M=1
        >> lds ack L M
        << lds L=1 M=1
        >> lds ack none
        feed 11 | lds L=2 M=2
        << nothing
        >> lds ack *
        << lds L=2 M=2
    """)


def test_an_empty_state_is_told_to_an_empty_proxy_once_it_is_known_to_be_empty() -> None:
    SotwClient().play("""
        >> cds
        >> lds
        << nothing
        feed 10
        << nothing
        confirm 10
        << cds
        >> cds ack
        << lds
    """)


# --- reconnecting


def test_an_unchanged_wildcard_set_is_not_sent_again_but_names_are_answered() -> None:
    old = connected()
    again = SotwClient(old.session.memory, prefix="t")
    again.views = old.views
    again.play(f"""
        >> cds version=@10
        >> eds A version=@10
        >> lds version=@10
        >> rds R version=@10
        {WORLD}
        confirm 10
        << eds A=1
        >> eds ack
        << rds R=1
        >> rds ack
        !! settled 10
    """)


def test_another_frontend_knows_an_unchanged_set_by_its_version_too() -> None:
    again = SotwClient(NodeMemory())
    again.views = connected().views
    again.play(f">> cds version=@10\n{WORLD}\nconfirm 10\n<< nothing")


def test_removals_wait_for_routes_on_a_new_stream_too() -> None:
    memory = NodeMemory()
    old = connected(memory)
    again = SotwClient(memory, prefix="t")
    again.views = old.views
    again.play("""
        feed 11 | cds B=1 C=1 | lds L=1 | rds R=2
        >> cds version=@10
        >> lds version=@10
        confirm 11
        << cds A=1 B=1 C=1
        >> rds R version=@10
        << nothing
        >> cds ack
        << rds R=2
        >> rds ack
        << cds B=1 C=1
    """)


def test_removals_wait_for_listeners_and_routes_to_be_asked_for_but_not_for_ever() -> None:
    memory = NodeMemory()
    old = connected(memory)
    again = SotwClient(memory, prefix="t")
    again.views = old.views
    again.play("""
        feed 11 | cds B=1 | lds L=1 | rds R=1
        >> cds version=@10
        confirm 11
        << nothing
        grace
        << cds B=1
    """)


def test_a_version_that_hides_a_refusal_is_not_believed() -> None:
    memory = NodeMemory()
    old = connected(memory)
    old.play("""
        feed 11 | cds A=2 B=bad | eds A=1 | lds L=1 | rds R=1
        << cds A=2 B=bad
        << eds A=1
        >> cds nack something is bad     # A=2 may be in force all the same
    """)
    again = SotwClient(memory, prefix="t")
    again.views = old.views
    again.play(f"""
        >> cds version=@10
        {WORLD.replace("feed 10", "feed 12")}
        confirm 12
        << cds A=1 B=1
    """)


def test_a_secret_that_changed_is_sent_alone_and_one_that_is_new_when_it_is_asked_for() -> None:
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 | sds S=1
        >> sds S
        << sds S=1
        >> sds ack
        feed 12 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 | sds S=2 T=1
        << sds S=2
        >> sds ack
        feed 13 | cds A=1 B=1 | eds A=1 | lds L=2 | rds R=1 | sds S=2 T=1
        << lds L=2
        >> sds S T ack      # the listener that warms names it
        << sds T=1
        >> sds ack
        >> lds ack
    """)


def test_a_secret_that_the_node_does_not_have_is_never_told_whoever_has_it() -> None:
    """Another node's certificate, or a customer's own secret, for which proxies ask elsewhere."""
    connected().play("""
        feed 11 | cds A=1 B=1 | eds A=1 | lds L=1 | rds R=1 | sds S=1
        >> sds S Other
        << sds S=1
        << nothing
        >> sds ack
        << nothing
    """)
