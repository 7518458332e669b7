"""/v1/embeddings over functions from a text to a vector."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.access import Limits
from gateway.access.keys import changing
from gateway.app import App
from gateway.http.openai import embeddings
from tests.integration.function_peer import gateway, nats_and_functions
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import Answer, call, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_functions(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


async def embed(app: App, given: Any, model: str = "bag", **fields: Any) -> Answer:
    return await call(app, "POST", PATH, {"model": model, "input": given, **fields})


@pytest.mark.parametrize("model", ["bag", "bag@1"])
async def test_one_text(app: App, model: str) -> None:
    answer = await embed(app, "abba", model)
    assert answer.status == 200
    assert answer.json == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [2, 2, 0, 0]}],
        "model": model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


async def test_many_texts_keep_their_order(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "AT_ONCE", 50)
    texts = ["a" * (n % 97) for n in range(300)]
    data = (await embed(app, texts)).json["data"]
    assert [one["index"] for one in data] == list(range(300))
    assert [one["embedding"][0] for one in data] == [len(text) for text in texts]
    assert not app.link.router.sessions


async def test_base64(app: App) -> None:
    answer = await embed(app, ["a", "dd"], encoding_format="base64")
    data = [base64.b64decode(one["embedding"]) for one in answer.json["data"]]
    assert data == [struct.pack("<4f", 1, 0, 0, 0), struct.pack("<4f", 0, 0, 0, 2)]


async def test_dimensions(app: App) -> None:
    assert (await embed(app, "a", dimensions=4)).status == 200
    answer = await embed(app, "a", dimensions=3)
    assert (answer.status, answer.error["param"]) == (400, "dimensions")
    data = (await embed(app, "aaa", "sized", dimensions=5)).json["data"]
    assert data[0]["embedding"] == [3] * 5


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ["a"] * 2049}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": [[1], [2]]}, 400, "input"),
        ({"input": "a", "model": "echo"}, 400, "model"),
        ({"input": "a", "model": "count"}, 400, "model"),
        ({"input": "a", "model": "sim"}, 400, "model"),
        ({"input": "a", "model": "none"}, 404, "model"),
        ({"input": "a", "encoding_format": "x"}, 400, "encoding_format"),
        ({"input": "a", "dimensions": 0}, 400, "dimensions"),
        ({"input": "\ud800"}, 400, "input"),
        ({}, 400, "input"),
    ],
)
async def test_what_is_refused(app: App, body: dict[str, Any], status: int, field: str) -> None:
    answer = await call(app, "POST", PATH, {"model": "bag", **body})
    assert answer.status == status
    assert answer.error["param"].partition(".")[0] == field


async def test_leaving_ends_all_calls(app: App) -> None:
    app.link.publish, publish = lambda request, done: None, app.link.publish
    try:
        http = await connect(app)
        await http.send("POST", PATH, {"model": "bag", "input": ["a", "b", "c"]})
        await eventually(lambda: len(app.link.router.sessions) == 3)
        http.abort()
        await eventually(lambda: not app.link.router.sessions)
    finally:
        app.link.publish = publish


async def test_a_limit_on_calls_makes_texts_wait(nats: str, tmp_path: Path) -> None:
    with changing(tmp_path / "keys.json") as book:
        book.tenants["some"] = Limits(streams=2)
        key = {"authorization": f"Bearer {book.create('some')}"}
    async with gateway(nats, api_keys=tmp_path / "keys.json") as app:
        body = {"model": "bag", "input": ["a" * n for n in range(20)]}
        answer = await call(app, "POST", PATH, body, key)
    assert [one["embedding"][0] for one in answer.json["data"]] == list(range(20))


async def test_models_are_listed(app: App) -> None:
    listed = [model["id"] for model in (await call(app, "GET", "/v1/models")).json["data"]]
    assert listed == ["bag@1", "sim", "sized@1"]
    assert (await call(app, "GET", "/v1/models/bag")).json["id"] == "bag@1"
