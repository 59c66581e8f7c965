"""The first compilation is paid for before a proxy asks."""

from __future__ import annotations

from projector.envoy.compiler import Compiler
from projector.envoy.warm import warm_up
from tests.projector.envoy.meshes import canary, gateway_id


def test_the_sample_makes_every_type_of_resource_and_leaves_nothing_behind() -> None:
    compiler = Compiler()
    assert warm_up(compiler) >= 9
    assert compiler.compile(canary().state, gateway_id()) == Compiler().compile(canary().state, gateway_id())
