"""A stream's pace over HTTP: tokens come no faster than was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.app import App
from tests.integration.http_peer import call, connect, gateway, nats_and_workers

TURNS = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"
TOKENS = 11
PACE = 20.0


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, {"messages": TURNS, "max_tokens": TOKENS, "pace": PACE, "stream": True}),
        ("GET", f"/v1/models/fast/generate?prompt=hi&max_tokens={TOKENS}&pace={PACE}", None),
        (
            "POST",
            "/generate_stream",
            {"inputs": "hi", "parameters": {"max_new_tokens": TOKENS, "pace": PACE}},
        ),
    ],
    ids=["openai", "event source", "tgi"],
)
async def test_a_stream_is_released_at_its_pace(
    app: App, method: str, path: str, body: dict[str, Any] | None
) -> None:
    loop = asyncio.get_running_loop()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(1 / PACE)
            ticks += 1

    began = loop.time()
    http = await connect(app)
    await http.send(method, path, body and {**body, "model": "fast"})
    head = await http.head()
    ticking = asyncio.create_task(tick())
    events = [event async for event in http.events(head)]
    ticking.cancel()
    http.abort()
    assert loop.time() - began >= (TOKENS - 1) / PACE
    # The engine is through at once and says much at a time, but each token has an event; unless
    # the loop was late, as this clock of the same pace was then.
    assert len(events) >= min(TOKENS, ticks)


async def test_an_answer_in_one_piece_has_no_pace(app: App) -> None:
    asked = {"model": "fast", "messages": TURNS, "max_tokens": 100, "pace": 1}
    async with asyncio.timeout(60):
        answer = await call(app, "POST", CHAT, asked)
    assert answer.json["usage"]["completion_tokens"] == 100


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        (CHAT, {"messages": TURNS, "pace": 0}, 400, "pace is 0"),
        ("/v1/models/fast/generate", {"prompt": "x", "pace": -1}, 400, "pace is -1"),
        ("/generate", {"inputs": "x", "parameters": {"pace": 0}}, 422, "pace is 0"),
    ],
)
async def test_a_pace_that_is_none_is_refused(
    app: App, path: str, body: dict[str, Any], status: int, named: str
) -> None:
    given = body if "models" in path else {**body, "model": "fast"}
    answer = await call(app, "POST", path, given)
    assert answer.status == status
    assert named in answer.body.decode()
