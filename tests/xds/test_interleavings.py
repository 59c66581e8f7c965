"""Whatever the order of requests, responses, writes, confirmations, changes and reconnects: the proxy never uses what
it lacks, and in the end it has exactly the last state."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.position import Position
from projector.feed.port import NodeUpdate
from projector.snapshot import NodeSnapshot
from tests.xds.model_proxy import ModelProxy
from tests.xds.transcripts import NODE, SHORT, snapshot
from xds.actions import Close, Confirm, Confirmed, GraceOver, NotConfirmed, Received, Send, Settled, Updated, Written
from xds.delta import DeltaSession
from xds.freshness import NodeMemory
from xds.sotw import SotwSession

EXAMPLES = int(os.environ.get("MESHLOG_XDS_EXAMPLES", "40"))
CLUSTERS, ROUTES, LISTENERS = "ABCD", "RS", "LM"


@st.composite
def worlds(draw: st.DrawFn, bad: bool = True) -> str:
    """A closed snapshot as text: routes name clusters that exist, listeners routes that exist."""
    clusters = draw(st.lists(st.sampled_from(CLUSTERS), unique=True, min_size=1))
    version = st.sampled_from("12!" if bad else "12")
    text = []
    for name in clusters:
        kind = draw(st.sampled_from("es"))
        text.append(f"cds {name}={kind}{draw(version)}")
        if kind == "e":
            text.append(f"eds {name}={draw(version)}")
    routes = draw(st.lists(st.sampled_from(ROUTES), unique=True))
    for name in routes:
        targets = draw(st.lists(st.sampled_from(sorted(clusters)), unique=True))
        text.append(f"rds {name}={draw(version)}:{','.join(targets)}")
    if routes:
        for name in draw(st.lists(st.sampled_from(LISTENERS), unique=True)):
            text.append(f"lds {name}={draw(version)}:{draw(st.sampled_from(sorted(routes)))}")
    return "|".join(text)


def contents(known: NodeSnapshot) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {kind: {} for kind in ("cds", "eds", "lds", "rds")}
    for (type_url, name), made in known.resources.items():
        found[SHORT[type_url]][name] = made.body.decode().partition("=")[2]
    return found


class Network:
    """One proxy, the frontend it is connected to, and what is on its way between them."""

    def __init__(self, mode: str, worlds_to_come: list[str]) -> None:
        self.mode = mode
        self.to_come = deque(worlds_to_come)
        self.memory = NodeMemory()
        self.proxy = ModelProxy(mode)
        self.position = 0
        self.newest: NodeSnapshot | None = None
        self.streams = 0
        self.advance_world()
        self.open_stream()

    def open_stream(self) -> None:
        self.streams += 1
        kind = SotwSession if self.mode == "sotw" else DeltaSession
        self.session: Any = kind(NODE, self.memory, f"s{self.streams}")
        self.down: deque[Any] = deque()
        self.writing = False
        self.confirm_wanted = False
        self.settled: Position | None = None
        self.told = 0
        self.grace_given = False

    def do(self, event: Any) -> None:
        for action in self.session.handle(event):
            match action:
                case Send(response):
                    assert not self.writing, "two writes at once"
                    self.writing = True
                    self.down.append(response)
                case Confirm():
                    self.confirm_wanted = True
                case Settled(position):
                    self.settled = position
                case Close():
                    raise AssertionError(action)

    # --- steps that hypothesis chooses among

    def steps(self) -> list[Any]:
        return [
            step
            for step, possible in (
                (self.deliver_down, self.down),
                (self.deliver_up, self.proxy.outbox),
                (self.written, self.writing),
                (self.tell, self.told < self.position),
                (self.confirm, self.confirm_wanted and self.told == self.position),
                (self.fail_to_confirm, self.confirm_wanted),
                (self.advance_world, self.to_come),
                (self.proxy.answer_cds, self.proxy.held_back is not None),
                (self.grace, not self.grace_given),
                (self.reconnect, True),
            )
            if possible
        ]

    def deliver_down(self) -> None:
        self.proxy.receive(self.down.popleft())

    def deliver_up(self) -> None:
        self.do(Received(self.proxy.outbox.popleft()))

    def written(self) -> None:
        self.writing = False
        self.do(Written())

    def advance_world(self) -> None:
        self.position += 1
        self.newest = snapshot(self.position, self.to_come.popleft())

    def tell(self) -> None:
        self.told = self.position
        self.do(Updated(NodeUpdate(NODE, Position(1, self.position), self.newest)))

    def confirm(self) -> None:
        self.confirm_wanted = False
        self.do(Confirmed(Position(1, self.position)))

    def fail_to_confirm(self) -> None:
        self.confirm_wanted = False
        self.do(NotConfirmed())

    def grace(self) -> None:
        # 15 s are enough for the requests of a new stream to arrive.
        if not any(request.node.id or not request.response_nonce for request in self.proxy.outbox):
            self.grace_given = True
            self.do(GraceOver())

    def reconnect(self) -> None:
        if self.mode == "delta" and self.streams % 2:
            self.memory = NodeMemory()  # another frontend, which knows nothing of this proxy
        self.proxy.connect()
        self.open_stream()

    def settle(self) -> None:
        """Let everything happen that is under way, and nothing new."""
        for _ in range(1000):
            quiet = [
                step for step in self.steps() if step not in (self.reconnect, self.fail_to_confirm, self.advance_world)
            ]
            if not quiet:
                return
            quiet[0]()
        raise AssertionError("it never ends")


def play(mode: str, worlds_to_come: list[str], choices: list[int]) -> Network:
    network = Network(mode, worlds_to_come)
    for choice in choices:
        steps = network.steps()
        if steps[choice % len(steps)] == network.reconnect and choice < 200:
            continue  # rarely
        steps[choice % len(steps)]()
    return network


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@settings(max_examples=EXAMPLES)
@given(st.lists(worlds(), min_size=1, max_size=5), worlds(bad=False), st.lists(st.integers(0, 255), max_size=150))
def test_the_proxy_ends_with_the_last_state_and_never_lacks_what_it_uses(
    mode: str, worlds_to_come: list[str], last: str, choices: list[int]
) -> None:
    network = play(mode, [*worlds_to_come, last], choices)
    while network.to_come:
        network.advance_world()
    network.settle()
    assert network.newest is not None
    expected = contents(network.newest)
    wanted_routes = {content.split(":")[1] for content in expected["lds"].values()}
    expected["rds"] = {name: content for name, content in expected["rds"].items() if name in wanted_routes}
    for kind, name in network.proxy.leaked:
        for side in (expected, network.proxy.state):
            side[kind].pop(name, None)
    assert network.proxy.state == expected
    assert network.settled == Position(1, network.position)
