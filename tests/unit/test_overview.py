from __future__ import annotations

import pytest
from rich.console import Console

from millstream.overview import Overview
from millstream.top import render
from shared import subjects, wire


def beat(worker: str, tokens: int = 0, **changes: object) -> wire.Heartbeat:
    fields = {"seq": 0, "model": "m", "state": "ready", "steps": 1, "running": 2, "limit": 8}
    return wire.Heartbeat(worker, tokens=tokens, **(fields | changes))  # type: ignore[arg-type]


def card(engine: str) -> wire.ModelCard:
    return wire.ModelCard("m", engine, 1024, 100, "float32", "f")


def test_a_worker_is_shown_with_its_rate() -> None:
    overview = Overview()
    overview.hear(wire.Announce("w", 1, "w", "ready", "m", card("sim")), 0.0)
    for second in range(4):
        overview.hear(beat("w", tokens=100 * second), float(second))
    (worker,) = overview.picture(3.0).workers
    assert worker.tokens_per_second == 100.0
    assert (worker.engine, worker.running, worker.limit) == ("sim", 2, 8)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    overview = Overview()
    for second in range(20):
        overview.hear(beat("w", tokens=1000 if second > 5 else 0), float(second))
    assert overview.picture(19.0).workers[0].tokens_per_second == 0.0


def test_a_silent_worker_is_lost_and_then_forgotten() -> None:
    overview = Overview()
    overview.hear(beat("w"), 0.0)
    assert overview.picture(1.0).workers[0].state == "ready"
    assert overview.picture(3.0).workers[0].state == "lost"
    assert overview.picture(3.0).models[0].workers == 0
    assert not overview.picture(40.0).workers


def test_one_that_says_good_bye_is_gone_at_once() -> None:
    overview = Overview()
    overview.hear(beat("w"), 0.0)
    overview.hear(wire.Announce("w", 1, "w", "gone", "m"), 0.1)
    overview.hear(wire.GatewayBeat("g"), 0.0)
    overview.hear(wire.GatewayBeat("h"), 0.0)
    overview.hear(wire.GatewayBeat("g", gone=True), 0.1)
    picture = overview.picture(0.2)
    assert picture.workers == ()
    assert picture.gateways == ("h",)


@pytest.mark.parametrize("model", ["m", "org/model-7B", "Modèle", "a" * 200])
def test_queues_are_told_by_the_models_name(model: str) -> None:
    overview = Overview()
    overview.queues({subjects.request(model, 2): 5, subjects.request(model, 3): 1})
    (row,) = overview.picture(0.0).models
    assert row.queued == {"resume": 0, "interactive": 0, "standard": 5, "batch": 1}
    assert row.model == model or len(model) > 96


def test_failovers_of_the_last_minute() -> None:
    overview = Overview()
    for now, total in ((0.0, 7), (10.0, 9), (20.0, 9), (100.0, 10)):
        overview.resumes(total, now)
    assert overview.picture(100.0).failovers == 10
    assert overview.picture(100.0).recent_failovers == 1
    overview.resumes(0, 101.0)
    assert overview.picture(101.0).recent_failovers == 0


def test_it_is_drawn() -> None:
    overview = Overview()
    overview.hear(beat("worker-1"), 0.0)
    overview.hear(wire.GatewayBeat("gateway-1"), 0.0)
    overview.problems["MS_REQ"] = "TimeoutError()"
    console = Console(width=120, record=True)
    console.print(render(overview.picture(0.0)))
    text = console.export_text()
    for part in ("gateway-1", "worker-1", "ready", "2/8", "MS_REQ: TimeoutError()"):
        assert part in text
