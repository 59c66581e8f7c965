"""A proof that cannot fail proves nothing: with a compiler that does not see a field, the field's proofs go red.

`make test-mutations` runs this whole.
"""

from __future__ import annotations

import pytest

from tests.traffic.fields import PROOFS, Proof, blind_to
from tests.traffic.proofs import every  # noqa: F401
from tests.traffic.world import World, available

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not available(), reason="needs root, `ip`, `iptables` and `setpriv` for pods"),
]

PATIENCE_S = 8.0
"""How long a proof that is to fail waits for what will not come."""
MUTANTS = [(field, proof) for proof in PROOFS for field in proof.fields]


@pytest.mark.parametrize(("field", "proof"), MUTANTS, ids=[f"{field}-{proof.name}" for field, proof in MUTANTS])
def test_a_compiler_blind_to_a_field_is_found_out(world: World, field: str, proof: Proof) -> None:
    survived = False
    with world.mutated(blind_to(field), proof.patience_s or PATIENCE_S):
        try:
            proof.run(world)
            survived = True
        except (AssertionError, OSError, KeyError):
            assert not world.broken(), "the mutant does not compile, so its failure says nothing of the field"
    assert not survived, f"nothing fails when {field} is ignored"
