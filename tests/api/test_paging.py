"""Pages add up to the list, whatever the limit; tokens belong to their list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.paging import page
from mesh.errors import BadRequest

SCOPE = ("123456789012", "m", "virtualNode", "", "")


def name(item: str) -> str:
    return item


@given(st.sets(st.text(max_size=6), max_size=30).map(sorted), st.integers(1, 7))
def test_pages_add_up_to_the_list(items: list[str], limit: int) -> None:
    seen: list[str] = []
    token: str | None = None
    while True:
        cut, token = page(items, name, SCOPE, limit, token)
        seen += cut
        assert len(cut) <= limit
        if token is None:
            break
        assert len(cut) == limit
    assert seen == items


@given(st.sets(st.text(max_size=3), min_size=3).map(sorted), st.data())
def test_what_stays_is_seen_once_whatever_comes_and_goes(items: list[str], data: st.DataObject) -> None:
    cut, token = page(items, name, SCOPE, 2, None)
    gone = data.draw(st.sets(st.sampled_from(items)))
    come = data.draw(st.sets(st.text(max_size=3)))
    later = sorted((set(items) - gone) | come)
    if token is None:
        return
    rest, _ = page(later, name, SCOPE, 1000, token)
    assert not set(rest) & set(cut)
    assert (set(items) - gone) <= set(rest) | set(cut)


@pytest.mark.parametrize("token", ["", "x", "W10=", "bnVsbA==", "[]", "\u00fc", "e30=", "W1tdLCAxXQ=="])
def test_a_token_of_nothing_is_refused(token: str) -> None:
    with pytest.raises(BadRequest, match="nextToken"):
        page(["a"], name, SCOPE, 1, token)


def test_a_token_of_another_list_is_refused() -> None:
    _, token = page(["a", "b"], name, SCOPE, 1, None)
    with pytest.raises(BadRequest, match="nextToken"):
        page(["a", "b"], name, ("other",), 1, token)
