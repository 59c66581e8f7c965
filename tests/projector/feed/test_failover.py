"""Which projector a frontend listens to, as transcripts of what happens and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.feed.failover import Dial, Drop, Failover, FailoverAction, Prepare, Promote
from runtime.limits import (
    FEED_BACKOFF_MAX_S,
    FEED_DIAL_TIMEOUT_S,
    FEED_HEARTBEAT_S,
    FEED_HOME_STEADY_S,
    FEED_PROBE_PAUSE_S,
    FEED_PROBE_S,
    FEED_SILENCE_S,
    FEED_STALE_S,
)

HOME, EAST, WEST = ("home", "h:1"), ("east", "e:1"), ("west", "w:1")
TICK_S = 0.1


@dataclass
class Sky:
    """Projectors that live, lag and die, and a frontend that follows the machine's advice, in steps of a tick."""

    failover: Failover = field(default_factory=lambda: Failover("home", (HOME, EAST, WEST), lambda: 0.5))
    now_s: float = 100.0
    up: dict[str, bool] = field(default_factory=lambda: {"h:1": True, "e:1": True, "w:1": True})
    age_s: dict[str, float] = field(default_factory=lambda: {"h:1": 0.1, "e:1": 0.1, "w:1": 0.1})
    deaf: set[str] = field(default_factory=set)
    links: dict[int, str] = field(default_factory=dict)
    greeted: set[int] = field(default_factory=set)
    preparing: set[int] = field(default_factory=set)
    journal: list[str] = field(default_factory=list)
    current: int | None = None

    def apply(self, actions: list[FailoverAction]) -> None:
        for action in actions:
            match action:
                case Dial(link, _, address, probe):
                    self.links[link] = address
                    self.journal.append(f"{'probe' if probe else 'dial'} {address}")
                case Prepare(link):
                    self.preparing.add(link)
                    self.journal.append(f"prepare {self.links[link]}")
                case Promote(link):
                    self.current = link
                    self.journal.append(f"promote {self.links[link]}")
                case Drop(link):
                    self.journal.append(f"drop {self.links.pop(link)}")
                    if self.current == link:
                        self.current = None

    def lose(self, link: int) -> None:
        self.links.pop(link)
        if self.current == link:
            self.current = None
        self.apply(self.failover.lost(link, self.now_s))

    def tick(self) -> None:
        self.now_s += TICK_S
        for link, address in list(self.links.items()):
            if link not in self.links or address in self.deaf:
                continue
            if not self.up.get(address, False):
                self.lose(link)
                continue
            if link not in self.greeted:
                self.greeted.add(link)
                self.apply(self.failover.greeted(link, (HOME, EAST, WEST), self.now_s))
            if link in self.links:
                self.apply(self.failover.heard(link, self.age_s[address], self.now_s))
            if link in self.links and link in self.preparing:
                self.apply(self.failover.prepared(link, self.now_s))
        self.apply(self.failover.tick(self.now_s))
        assert len(self.links) <= 2
        assert self.failover.current == self.current

    def run(self, seconds: float) -> list[str]:
        """What was done meanwhile."""
        before = len(self.journal)
        for _ in range(round(seconds / TICK_S)):
            self.tick()
        return self.journal[before:]

    @property
    def listening(self) -> str | None:
        return self.links[self.current] if self.current is not None else None


@pytest.fixture
def sky() -> Sky:
    return Sky()


def test_the_own_zone_is_first_and_nothing_else_is_touched_while_it_is_well(sky: Sky) -> None:
    assert sky.run(60.0) == ["dial h:1", "promote h:1"]


def test_a_broken_connection_goes_to_another_zone_at_once(sky: Sky) -> None:
    sky.run(1.0)
    sky.up["h:1"] = False
    actions = sky.run(2 * TICK_S)
    assert actions[0].startswith("dial ")
    assert actions[1].startswith("promote ")
    assert sky.listening in ("e:1", "w:1")


def test_a_frontend_goes_home_when_home_has_been_well_for_a_while_and_without_a_gap(sky: Sky) -> None:
    sky.run(1.0)
    sky.up["h:1"] = False
    sky.run(10.0)
    away = sky.listening
    sky.up["h:1"] = True
    done = sky.run(FEED_BACKOFF_MAX_S + 2 * FEED_PROBE_PAUSE_S + FEED_HOME_STEADY_S + 2.0)
    assert done[-4:] == ["probe h:1", "prepare h:1", "promote h:1", f"drop {away}"]
    assert sky.run(60.0) == []


def test_a_home_that_comes_and_goes_is_not_gone_back_to(sky: Sky) -> None:
    sky.run(1.0)
    sky.up["h:1"] = False
    sky.run(5.0)
    for _ in range(20):
        sky.up["h:1"] = not sky.up["h:1"]
        sky.run(FEED_HOME_STEADY_S / 2)
    assert sky.journal.count("promote h:1") == 1


def test_attempts_at_a_dead_projector_back_off(sky: Sky) -> None:
    sky.up.update({"h:1": False, "e:1": False, "w:1": False})
    done = sky.run(60.0)
    dials = [action for action in done if action.startswith("dial ")]
    assert 3 * 60 / FEED_BACKOFF_MAX_S <= len(dials) <= 3 * (6 + 60 / (FEED_BACKOFF_MAX_S / 2))
    sky.up["w:1"] = True
    sky.run(FEED_BACKOFF_MAX_S + 2 * TICK_S)
    assert sky.listening == "w:1"


def test_a_dial_that_nobody_answers_is_given_up(sky: Sky) -> None:
    sky.deaf.add("h:1")
    sky.run(FEED_DIAL_TIMEOUT_S + 3 * TICK_S)
    assert sky.journal[:2] == ["dial h:1", "drop h:1"]
    assert sky.listening in ("e:1", "w:1")


def test_a_projector_that_falls_silent_is_left(sky: Sky) -> None:
    sky.run(5.0)
    sky.deaf.add("h:1")
    done = sky.run(FEED_SILENCE_S + 3 * TICK_S)
    assert "drop h:1" in done
    assert sky.listening in ("e:1", "w:1")


def test_what_a_frontend_slept_through_is_not_its_projectors_silence(sky: Sky) -> None:
    sky.run(5.0)
    sky.now_s += 30.0
    sky.apply(sky.failover.tick(sky.now_s))
    assert "drop h:1" not in sky.journal
    sky.run(5.0)
    assert sky.listening == "h:1"
    sky.up["h:1"] = False
    sky.up["e:1"] = sky.up["w:1"] = False
    sky.now_s += 30.0
    sky.run(1.0)
    assert sky.listening is None


def test_a_stale_projector_is_left_for_a_fresher_one_that_was_prepared_before(sky: Sky) -> None:
    sky.run(5.0)
    sky.age_s["h:1"] = FEED_STALE_S + 5.0
    done = sky.run(1.0)
    assert [action.split()[0] for action in done] == ["probe", "prepare", "promote", "drop"]
    assert done[-1] == "drop h:1"


def test_a_frontend_stays_when_all_are_equally_stale(sky: Sky) -> None:
    sky.run(5.0)
    sky.age_s = dict.fromkeys(sky.age_s, 30.0)
    done = sky.run(30.0)
    assert sky.listening == "h:1"
    assert not [action for action in done if action.startswith(("prepare", "promote"))]
    probes = [action for action in done if action.startswith("probe")]
    assert {"probe e:1", "probe w:1"} <= set(probes)
    assert len(probes) <= 30.0 / FEED_PROBE_S


def test_a_stale_home_is_not_gone_back_to(sky: Sky) -> None:
    sky.run(1.0)
    sky.up["h:1"] = False
    sky.run(5.0)
    sky.up["h:1"], sky.age_s["h:1"] = True, 60.0
    sky.run(30.0)
    assert sky.listening in ("e:1", "w:1")


def test_a_candidate_takes_over_at_once_when_the_current_one_dies(sky: Sky) -> None:
    sky.run(5.0)
    sky.age_s["h:1"] = FEED_STALE_S + 0.5  # stale, and the others no fresher: a probe that stays a probe
    sky.age_s["e:1"] = sky.age_s["w:1"] = FEED_STALE_S + 0.4
    while not any(link in sky.greeted and link != sky.current for link in sky.links):
        sky.tick()
    probed = next(address for link, address in sky.links.items() if link != sky.current)
    sky.up["h:1"] = False
    assert sky.run(TICK_S) == [f"promote {probed}"]


def test_a_lost_candidate_changes_nothing(sky: Sky) -> None:
    sky.run(5.0)
    sky.age_s["h:1"] = FEED_STALE_S + 5.0
    sky.up["e:1"] = sky.up["w:1"] = False
    sky.run(20.0)
    assert sky.listening == "h:1"


def test_projectors_are_learned_and_the_static_ones_stay() -> None:
    failover = Failover("home", (HOME,), lambda: 0.5)
    (dial,) = failover.tick(0.0)
    assert isinstance(dial, Dial)
    failover.greeted(dial.link, (EAST, ("west", "w:2")), 0.1)
    assert failover.projectors == {"h:1": "home", "e:1": "east", "w:2": "west"}
    failover.greeted(dial.link, (EAST,), 0.2)
    assert failover.projectors == {"h:1": "home", "e:1": "east"}
    failover.greeted(dial.link, (), 0.3)
    assert failover.projectors == {"h:1": "home", "e:1": "east"}
    assert len(failover.projectors) == 2


def test_a_flood_of_projectors_is_cut() -> None:
    failover = Failover("home", (HOME,), lambda: 0.5)
    (dial,) = failover.tick(0.0)
    assert isinstance(dial, Dial)
    failover.greeted(dial.link, [("east", f"e:{number}") for number in range(10_000)], 0.1)
    assert len(failover.projectors) <= 64
    assert "h:1" in failover.projectors


def test_what_is_said_of_a_link_that_is_gone_is_not_heard() -> None:
    failover = Failover("home", (HOME,), lambda: 0.5)
    failover.tick(0.0)
    for told in (failover.greeted(9, (), 0.0), failover.heard(9, 0.0, 0.0), failover.prepared(9, 0.0)):
        assert told == []
    assert failover.lost(9, 0.0) == []


EVENTS = st.sampled_from(["kill", "start", "deafen", "hear", "age", "freshen", "wait"])


@given(st.lists(st.tuples(EVENTS, st.sampled_from(["h:1", "e:1", "w:1"])), max_size=25))
def test_as_soon_as_one_projector_is_well_it_is_found(events: list[tuple[str, str]]) -> None:
    sky = Sky()
    for event, address in events:
        match event:
            case "kill":
                sky.up[address] = False
            case "start":
                sky.up[address] = True
            case "deafen":
                sky.deaf.add(address)
            case "hear":
                sky.deaf.discard(address)
            case "age":
                sky.age_s[address] = 60.0
            case "freshen":
                sky.age_s[address] = 0.1
        sky.run(0.7)
    sky.up["w:1"], sky.age_s["w:1"] = True, 0.1
    sky.deaf.discard("w:1")
    sky.run(3 * (FEED_BACKOFF_MAX_S + FEED_DIAL_TIMEOUT_S + FEED_PROBE_S + 2 * FEED_PROBE_PAUSE_S))
    assert sky.listening is not None
    assert sky.age_s[sky.listening] <= FEED_STALE_S + FEED_HEARTBEAT_S
