"""The relays of tests/netns.py carry traffic into a namespace and out of it, and nothing else gets there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chaos.traffic import ask_many
from chaos.upstream import UpstreamProcess
from tests import netns

pytestmark = [pytest.mark.netns, pytest.mark.skipif(not netns.available(), reason="needs root and `ip netns`")]

ASK = "import urllib.request,sys; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


def test_a_carried_port_is_reached_from_inside_and_an_exposed_one_from_outside() -> None:
    with netns.Namespace("mlt-relay") as inside, UpstreamProcess("outside") as upstream:
        inside.carry(upstream.port)
        url = f"http://127.0.0.1:{upstream.port}/"
        answer = subprocess.run(
            [*inside.prefix, sys.executable, "-c", ASK, url], capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == "outside"
        assert not ask_many("127.0.0.1", inside.expose(upstream.port), 20).failed


def test_a_port_that_was_not_carried_is_not_reached() -> None:
    with netns.Namespace("mlt-closed") as inside, UpstreamProcess("outside") as upstream:
        url = f"http://127.0.0.1:{upstream.port}/"
        answer = subprocess.run(
            [*inside.prefix, sys.executable, "-c", ASK, url], capture_output=True, text=True, check=False
        )
        assert answer.returncode != 0
