"""`meshlog mesh` and `meshlog account` against a real API server; other accounts' meshes as `NAME@ACCOUNT`."""

from __future__ import annotations

import pytest

from cli.options import split_mesh
from mesh.errors import SettingsError


def test_a_mesh_is_named_with_its_owner_as_in_a_node_id() -> None:
    assert split_mesh("shop") == ("shop", {})
    assert split_mesh("shop@123456789012") == ("shop", {"account": "123456789012"})
    assert split_mesh("") == ("", {})


@pytest.mark.parametrize("wrong", ["shop@", "shop@12", "shop@me", "shop@1234567890123", "shop@１２３４５６７８９０１２"])
def test_an_owner_is_twelve_digits(wrong: str) -> None:
    with pytest.raises(SettingsError, match="twelve digits"):
        split_mesh(wrong)
