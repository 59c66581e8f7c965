"""Each field of each spec has its effect on real traffic through real Envoys."""

from __future__ import annotations

import pytest

from tests.traffic.fields import PROOFS, Proof
from tests.traffic.proofs import every  # noqa: F401
from tests.traffic.world import World, available

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_a_field_has_its_effect_on_traffic(world: World, proof: Proof) -> None:
    proof.run(world)
