from __future__ import annotations

import pytest

from gateway.fleet import (
    FORGET_AFTER,
    GRACE_AFTER_CONNECT,
    HUNG_REST,
    LAG_MEMORY,
    Fleet,
    Verdict,
)
from gateway.worker import SILENCE_MOST, WARM_STEPS, WARM_UP
from shared import wire

CARD = wire.ModelCard("m", "sim", 99, 99, "none", "print", ("resume",), 4)
PERIOD = 0.02


class Case:
    """A fleet whose broker echoes at once, and workers that beat while told to."""

    def __init__(self, *workers: str, beat_every: float = 0.1) -> None:
        self.fleet, self.now = Fleet(), 50.0
        self.beat_every = beat_every
        self.beating = set(workers)
        self.answering = set(workers)
        self.steps = dict.fromkeys(workers, WARM_STEPS)
        self.stepping = set(workers)
        self.running = 1
        self.echoing = True
        self.verdicts: list[Verdict] = []
        self._due = 0.0
        for number, worker in enumerate(workers):
            self.fleet.announce(wire.Announce(worker, number, worker, "ready", "m", CARD), self.now)

    def run(self, seconds: float, period: float = PERIOD) -> list[Verdict]:
        until, before = self.now + seconds, len(self.verdicts)
        while self.now < until:
            self.now += period
            if self.now >= self._due:
                self._due = self.now + self.beat_every
                self.beat()
            for item in self.fleet.check(self.now):
                if isinstance(item, Verdict):
                    self.verdicts.append(item)
                elif isinstance(item, int):
                    if self.echoing:
                        self.fleet.echo(item, self.now)
                elif item[0] in self.answering:
                    self.fleet.heard(item[0], self.now)
            self.fleet.plan(self.now, self.now + PERIOD)
        return self.verdicts[before:]

    def beat(self) -> None:
        for worker in self.beating:
            self.steps[worker] += worker in self.stepping
            beat = wire.Heartbeat(worker, 0, "m", "ready", self.steps[worker], self.running, 4)
            self.fleet.heartbeat(beat, self.now)

    def silence(self, worker: str) -> None:
        self.beating.discard(worker)
        self.answering.discard(worker)


def test_a_silent_worker_is_lost_within_half_a_second() -> None:
    case = Case("a", "b")
    assert case.run(2.0) == []
    case.silence("a")
    begun = case.now
    while not case.verdicts:
        case.run(PERIOD)
    assert case.verdicts == [Verdict("a", "silent")]
    assert case.now - begun < 0.5
    assert not case.fleet.workers["a"].ready
    assert case.fleet.successor("a")


def test_a_worker_that_answers_a_probe_lives() -> None:
    case = Case("a")
    case.run(1.0)
    case.running = 0
    case.run(0.2)
    case.beating.clear()
    assert case.run(3.0) == []


def test_who_cannot_hear_itself_passes_no_verdict() -> None:
    case = Case("a")
    case.run(1.0)
    case.silence("a")
    case.echoing = False
    assert case.run(3.0) == []
    case.echoing = True
    assert case.run(0.5) == [Verdict("a", "silent")]


def test_a_gateway_that_stood_still_listens_first() -> None:
    case = Case("a", "b")
    case.run(1.0)
    case.now += 2.0
    assert case.run(LAG_MEMORY) == []
    case.silence("a")
    assert case.run(1.0) == [Verdict("a", "silent")]


def test_a_gateway_whose_loop_is_slow_passes_no_verdict() -> None:
    case = Case("a")
    case.run(1.0)
    case.silence("a")
    assert case.run(3.0, period=0.2) == []


def test_after_a_reconnect_everybody_gets_time() -> None:
    case = Case("a")
    case.run(1.0)
    case.silence("a")
    case.fleet.connected(case.now)
    assert case.run(GRACE_AFTER_CONNECT - 0.1) == []
    assert case.run(0.5) == [Verdict("a", "silent")]


def test_the_limit_follows_what_was_usual() -> None:
    case = Case("a")
    case.run(0.5)
    worker = case.fleet.workers["a"]
    case.answering.clear()
    case.beating.clear()
    case.run(0.25)
    case.beating.add("a")
    case.run(0.15)
    assert worker.silence_limit() > 0.8
    worker.longest_gap[0] = 5.0
    assert worker.silence_limit() == SILENCE_MOST, "a bad minute explains much, not all"


@pytest.mark.parametrize(("warm", "within"), [(True, 0.7), (False, WARM_UP + 0.5)])
def test_an_engine_that_stands_still_is_hung(warm: bool, within: float) -> None:
    case = Case("a")
    if not warm:
        case.steps["a"] = 0
    case.run(0.5)
    case.stepping.clear()
    case.run(within)
    assert [verdict.cause for verdict in case.verdicts] == ["hung"]
    case.fleet.heard("a", case.now)
    assert case.fleet.lost("a"), "its process lives, which proves nothing"
    case.stepping.add("a")
    case.run(0.3)
    assert not case.fleet.lost("a")


def test_a_hung_engine_without_work_is_tried_again() -> None:
    """What was taken from it in the middle of its step leaves no step to tell that it goes on."""
    case = Case("a")
    case.run(0.5)
    case.stepping.clear()
    case.run(5.0)
    assert [verdict.cause for verdict in case.verdicts] == ["hung"]
    case.running = 0
    case.run(HUNG_REST - 0.5)
    assert case.fleet.lost("a")
    case.run(1.0)
    assert not case.fleet.lost("a")
    case.running = 1
    case.run(5.0)
    assert [verdict.cause for verdict in case.verdicts] == ["hung", "hung"]


def test_a_worker_that_stood_still_as_a_whole_has_no_hung_engine() -> None:
    case = Case("a")
    case.run(2.0)
    case.silence("a")
    case.run(SILENCE_MOST + 0.2)
    assert [verdict.cause for verdict in case.verdicts] == ["silent"]
    case.stepping.clear()
    case.beating.add("a")
    case.answering.add("a")
    case.run(0.3)
    assert case.fleet.workers["a"].lost is None
    assert len(case.verdicts) == 1


@pytest.mark.parametrize("beat_every", [0.1, 0.5, 1.0])
def test_rare_heartbeats_do_not_excuse_a_hung_engine(beat_every: float) -> None:
    case = Case("a", beat_every=beat_every)
    case.run(20.0)
    case.stepping.clear()
    assert [verdict.cause for verdict in case.run(0.4 + 5 * beat_every)] == ["hung"]


def test_an_idle_engine_is_not_hung() -> None:
    case = Case("a")
    case.running = 0
    case.run(0.5)
    case.stepping.clear()
    assert case.run(20.0) == []
    case.running = 1
    assert case.run(0.3) == []


def test_the_end_of_an_old_connection_is_no_news() -> None:
    """A black hole: the worker dialled again long before the server found the old one stale."""
    case = Case("a")
    announce = wire.Announce("a", 0, "a", "ready", "m", CARD, "", "server/2")
    case.fleet.announce(announce, case.now)
    assert not list(case.fleet.disconnected("a", "server/1", case.now))
    verdicts = list(case.fleet.disconnected("a", "server/2", case.now))
    assert verdicts == [Verdict("a", "disconnect")]
    assert not list(case.fleet.disconnected("a", "server/2", case.now))
    assert not list(case.fleet.disconnected("nobody", "server/2", case.now))
    case.run(0.2)
    assert not case.fleet.lost("a"), "a blip and a death look the same; it beats"


def test_who_stays_away_is_forgotten() -> None:
    case = Case("a")
    case.run(1.0)
    case.silence("a")
    case.run(FORGET_AFTER + 2.0)
    assert case.fleet.workers == {}
    assert case.fleet.boots == {}


def test_another_model_is_no_successor() -> None:
    case = Case("a", "b")
    other = wire.ModelCard("m", "sim", 99, 99, "none", "another", (), 4)
    case.fleet.announce(wire.Announce("b", 1, "b", "ready", "m", other), case.now)
    assert not case.fleet.successor("a")
    assert case.fleet.serves("another")
    assert not case.fleet.serves("nothing")
