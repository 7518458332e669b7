"""Functions over HTTP: JSON, msgpack, events, lines and WebSockets, against a real worker."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect as websocket

from gateway.access import Limits
from gateway.access.keys import changing
from gateway.app import App
from tests.integration.function_app import png
from tests.integration.function_peer import gateway, nats_and_functions, seen
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import FEW, Answer, call, connect, stream, turns_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKED = {"content-type": "application/msgpack"}
HALF = "\ud83d"
"""Of a surrogate pair."""


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_functions(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


async def predict(
    app: App, name: str, headers: dict[str, str] | None = None, **inputs: Any
) -> Answer:
    return await call(app, "POST", f"/v1/models/{name}/predict", {"inputs": inputs}, headers)


@pytest.mark.parametrize(
    ("name", "said", "served"),
    [
        ("echo@1", "abab", "echo@1"),
        ("echo%401", "abab", "echo@1"),
        ("echo", "AB", "echo@2"),
        ("echo@2", "AB", "echo@2"),
    ],
)
async def test_one_answer(app: App, name: str, said: str, served: str) -> None:
    inputs = {"text": "ab", **({"times": 2} if served == "echo@1" else {})}
    answer = await predict(app, name, {"x-request-id": "mine"}, **inputs)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"model": served, "request_id": "mine", "result": said}
    assert answer.headers["x-request-id"] == "mine"


async def test_every_kind_of_parameter(app: App) -> None:
    tensor = {"dtype": "float32", "shape": [2], "data": [1, 2.5]}
    picture = {"type": "image/png", "data": base64.b64encode(png(0)).decode()}
    answer = await predict(
        app, "rich", text="ä", flag=True, number=1.5, data="AP8=", tags=["a", "b"], mood="wild",
        when="2026-01-02T03:04:05Z", point={"x": 1, "label": "p"}, vector=tensor, picture=picture,
        anything={"a": [1, None]},
    )  # fmt: skip
    assert answer.json["result"] == {
        "text": "ä", "flag": "True", "number": "1.5", "data": "00ff", "tags": "a,b",
        "mood": "wild", "when": "2026-01-02T03:04:05+00:00", "point": "1.0 p",
        "vector": "[1.0, 2.5]", "picture": f"image/png {len(png(0))}",
        "anything": "{'a': [1, None]}",
    }  # fmt: skip


async def test_bytes_arrays_and_times_are_natural_in_msgpack(app: App) -> None:
    inputs = {
        "text": "x", "data": b"\0\xff", "when": msgpack.Timestamp(1767323045),
        "vector": {"dtype": "float32", "shape": [1], "data": struct.pack("<f", 7)},
        "picture": {"type": "image/png", "data": png(0)},
    }  # fmt: skip
    body = msgpack.packb({"inputs": inputs})
    answer = await call(app, "POST", "/v1/models/rich/predict", body, PACKED)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/msgpack")
    result = msgpack.unpackb(answer.body)["result"]
    assert (result["data"], result["vector"]) == ("00ff", "[7.0]")
    assert result["when"] == "2026-01-02T03:04:05+00:00"
    vector = {"dtype": "float32", "shape": [2], "data": struct.pack("<2f", 1, 2)}
    body = msgpack.packb({"inputs": {"vector": vector}})
    answer = await call(app, "POST", "/v1/models/double/predict", body, PACKED)
    assert msgpack.unpackb(answer.body)["result"] == {
        **vector, "data": struct.pack("<2f", 2, 4),
    }  # fmt: skip
    answer = await call(
        app, "POST", "/v1/models/bytes/predict", {"inputs": {"data": "YWI="}},
        {"accept": "application/msgpack"},
    )  # fmt: skip
    assert msgpack.unpackb(answer.body)["result"] == b"ba"
    answer = await call(
        app, "POST", "/v1/models/bytes/predict", msgpack.packb({"inputs": {"data": b"ab"}}),
        {**PACKED, "accept": "application/json"},
    )  # fmt: skip
    assert answer.json["result"] == "YmE="


async def test_a_function_that_gives_nothing(app: App) -> None:
    assert (await call(app, "POST", "/v1/models/nothing/predict", {})).json["result"] is None


@pytest.mark.parametrize(
    ("query", "result"),
    [
        ("echo@1/predict?text=a&times=3", "aaa"),
        ("bytes/predict?data=YWI%3D", "YmE="),
        ("double/predict?vector={\"dtype\":\"float32\",\"data\":[1]}&by=3", None),
        ("rich/predict?text=a&flag=true&number=2&tags=x&tags=y&mood=wild&anything=[1]", None),
    ],
)  # fmt: skip
async def test_parameters_by_query(app: App, query: str, result: str | None) -> None:
    answer = await call(app, "GET", "/v1/models/" + query.replace('"', "%22"))
    assert answer.status == 200, answer.body
    said = answer.json["result"]
    if result is not None:
        assert said == result
    elif query.startswith("double"):
        assert base64.b64decode(said["data"]) == struct.pack("<f", 3)
    else:
        assert (said["flag"], said["tags"], said["anything"]) == ("True", "x,y", "[1]")
        assert (said["number"], said["mood"]) == ("2.0", "wild")


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "says"),
    [
        ("echo@1", {"inputs": {}}, 400, "text", "text"),
        ("echo@1", {"inputs": {"text": 1}}, 400, "text", "want text"),
        ("echo@1", {"inputs": {"text": "a", "no": 1}}, 400, "no", "want text, times"),
        ("echo@1", {"text": "a"}, 400, "text", "go into inputs"),
        ("echo@1", {"inputs": []}, 400, "inputs", "object"),
        ("echo@1", [], 400, None, "want an object"),
        ("echo@1", b"{", 400, None, "no JSON"),
        ("echo@1", b'{"inputs": {"text": "\xff"}}', 400, None, "no JSON"),
        ("echo@1", {"inputs": {"text": "a"}, "request_id": "a b"}, 400, "request_id", "a b"),
        ("echo@1", {"inputs": {"text": "a"}, "priority": "now"}, 400, "x-priority", "now"),
        ("echo@1", {"inputs": {"text": "a"}, "timeout": 0}, 400, "timeout", "above 0"),
        ("echo@1", {"inputs": {"text": "a"}, "labels": {"a": 1}}, 400, "labels", "texts"),
        ("echo@1", {"inputs": {"text": HALF}}, 400, "text", "half"),
        ("echo@1", {"inputs": {"text": "a", HALF: 1}}, 400, None, "a name in"),
        ("echo@1", {"inputs": HALF}, 400, "inputs", "half"),
        ("echo@1", {"inputs": {"text": "a"}, "labels": {"a": HALF}}, 400, "labels.a", "half"),
        ("echo@1", {"inputs": {"text": "a"}, "labels": {HALF: "a"}}, 400, "labels", "half"),
        ("echo@1", {HALF: 1}, 400, None, "half"),
        ("rich", {"inputs": {"text": "a", "data": "!"}}, 400, "data", "base64"),
        ("rich", {"inputs": {"text": "a", "mood": "odd"}}, 400, "mood", "calm, wild"),
        ("rich", {"inputs": {"text": "a", "point": {"x": "a"}}}, 400, "point.x", "number"),
        ("none", {}, 404, "model", "not served"),
        ("echo@9", {}, 404, "model", "not served"),
        ("sim", {}, 400, "model", "language model"),
        ("refuse", {}, 404, None, "no such user"),
        ("refuse", {"inputs": {"status": "ABORTED"}}, 409, None, "no such user"),
        ("refuse", {"inputs": {"status": "INVALID_ARGUMENT", "field": "x"}}, 400, "x", "user"),
        ("break", {"inputs": {"n": 0}}, 400, None, "on purpose"),
        ("wait", {"timeout": 0.05}, 504, None, "0.05 s"),
    ],
)  # fmt: skip
async def test_what_is_refused(
    app: App, path: str, body: Any, status: int, field: str | None, says: str
) -> None:
    answer = await call(app, "POST", f"/v1/models/{path}/predict", body)
    assert answer.status == status
    assert answer.error["param"] == field
    assert says in answer.error["message"]
    if path in ("refuse", "break"):
        codes = {404: "not_found", 409: "aborted"}
        codes[400] = "failed_precondition" if path == "break" else "invalid_argument"
        assert answer.error["code"] == codes[status]


@pytest.mark.parametrize(
    ("query", "field"),
    [("text=a&no=1", "no"), ("text=a&times=x", "times"), ("text=a&text=b", "text"), ("", "text")],
)
async def test_a_query_that_is_refused(app: App, query: str, field: str) -> None:
    answer = await call(app, "GET", f"/v1/models/echo@1/predict?{query}")
    assert (answer.status, answer.error["param"]) == (400, field)


async def test_half_a_surrogate_pair_in_a_query(app: App) -> None:
    query = "text=a&anything=" + quote('{"a": {"\\ud83d": 1}}')
    answer = await call(app, "GET", f"/v1/models/rich/predict?{query}")
    assert (answer.status, answer.error["param"]) == (400, "anything.a")


async def test_a_timeout_by_header(app: App) -> None:
    path = "/v1/models/wait/predict"
    answer = await call(app, "POST", path, {}, {"x-request-timeout": "0.05"})
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
    answer = await call(app, "GET", path, None, {"x-request-timeout": "-1"})
    assert (answer.status, answer.error["param"]) == (400, "x-request-timeout")
    answer = await call(app, "POST", path, {"timeout": 0.06}, {"x-request-timeout": "60"})
    assert "0.06 s" in answer.error["message"]


async def test_broken_msgpack_is_refused(app: App) -> None:
    for body in (
        b"\xc1",
        b"\x81",
        msgpack.packb([1]),
        msgpack.packb({"inputs": {"text": b"\xff"}}),
    ):
        answer = await call(app, "POST", "/v1/models/echo@1/predict", body, PACKED)
        assert answer.status == 400


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_events(app: App, method: str) -> None:
    if method == "POST":
        path, body = "/v1/models/count/predict", {"inputs": {"n": 3}}
        events = await stream(app, "POST", path, body)
    else:
        events = await stream(app, "GET", "/v1/models/count/predict?n=3")
    assert [(event.name, event.id, event.data) for event in events] == [
        *(("", str(n), {"index": n, "result": str(n)}) for n in range(3)),
        ("finished", "end", {"items": 3}),
    ]


async def test_one_answer_as_an_event(app: App) -> None:
    accept = {"accept": "text/event-stream"}
    events = await stream(
        app, "GET", "/v1/models/echo?text=a".replace("?", "/predict?"), None, accept
    )
    assert [event.data for event in events] == [{"index": 0, "result": "A"}, {"items": 1}]


async def test_lines_and_packed_streams(app: App) -> None:
    answer = await predict(app, "count", {"accept": "application/x-ndjson"}, n=3)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == [
        {"index": n, "result": str(n)} for n in range(3)
    ]
    answer = await predict(app, "vectors", {"accept": "application/msgpack"}, n=2)
    unpacker = msgpack.Unpacker()
    unpacker.feed(answer.body)
    assert [(one["index"], one["result"]["data"]) for one in unpacker] == [
        (n, struct.pack("<3f", n, n, n)) for n in range(2)
    ]
    assert (await predict(app, "count", {"accept": "application/x-ndjson"}, n=0)).body == b""


async def test_a_failure_inside_a_stream(app: App) -> None:
    *items, last = await stream(app, "GET", "/v1/models/break/predict?n=2")
    assert [event.data["result"] for event in items] == [0, 1]
    assert (last.name, last.id) == ("failed", "end")
    assert last.data["error"]["message"] == "broken on purpose"
    assert last.data["error"]["code"] == "failed_precondition"
    lines = (await predict(app, "break", {"accept": "application/jsonl"}, n=1)).body.splitlines()
    assert json.loads(lines[1])["error"]["code"] == "failed_precondition"


async def test_an_event_source_that_comes_back(app: App) -> None:
    path = "/v1/models/count/predict?n=5"
    events = await stream(app, "GET", path, None, {"last-event-id": "2"})
    assert [event.id for event in events] == ["3", "4", "end"]
    answer = await call(app, "GET", path, None, {"last-event-id": "end"})
    assert answer.status == 204
    answer = await call(app, "GET", "/v1/models/once/predict?n=3", None, {"last-event-id": "1"})
    assert (answer.status, answer.error["param"]) == (400, "last-event-id")
    assert "idempotent" in answer.error["message"]


async def test_headers_reach_the_functions_context(app: App) -> None:
    asked = {"x-color": "red", "authorization": "Bearer x", "cookie": "a"}
    assert (await predict(app, "told", asked, header="x-color")).json["result"] == "red"
    for private in ("authorization", "cookie", "accept"):
        assert (await predict(app, "told", asked, header=private)).json["result"] == ""


@pytest.mark.parametrize("name", ["hold", "wait"])
async def test_leaving_cancels_at_once(app: App, name: str) -> None:
    await _holding(app, 0)  # Calls of other tests have ended.
    http = await connect(app)
    await http.send("POST", f"/v1/models/{name}/predict", {})
    await _holding(app, 1)
    await eventually(lambda: len(app.link.router.sessions) == 1)
    http.abort()
    turns = await turns_until(lambda: not app.link.router.sessions)
    assert turns < FEW
    await _holding(app, 0)


async def _holding(app: App, count: int) -> None:
    """Wait until the worker runs so many calls."""
    async with asyncio.timeout(30):
        for pause in itertools.repeat(0.01):
            if await seen(app, "holding") == count:
                return
            await asyncio.sleep(pause)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/msgpack"])
async def test_a_reader_that_stalls_pauses_the_function(app: App, accept: str) -> None:
    before = await seen(app, "yielded")
    http = await connect(app)
    body = {"inputs": {"n": 400, "size": 100_000}}
    await http.send("POST", "/v1/models/count/predict", body, {"accept": accept})
    head = await http.head()
    made = 0
    async with asyncio.timeout(60):
        while (now := await seen(app, "yielded") - before) != made or now <= 10:
            made = now
            await asyncio.sleep(0.5)
    assert made < 200
    whole = b"".join([part async for part in http.body(head)])
    http.abort()
    assert len(whole) > 400 * 100_000
    assert await seen(app, "yielded") - before == 400


async def test_a_silent_stream_gets_comments(nats: str) -> None:
    async with gateway(nats, http_ping_seconds=0.1) as app:
        http = await connect(app)
        await http.send("GET", "/v1/models/count/predict?n=1&pause=0.6")
        events = [event async for event in http.events(await http.head())]
        assert [event.data for event in events if not event.comment] == [
            {"index": 0, "result": "0"}, {"items": 1},
        ]  # fmt: skip
        await http.send("POST", "/v1/models/hold/predict", {})  # It is silent for good.
        holding = http.events(await http.head())
        assert [(await anext(holding)).comment for _ in range(3)] == ["", "ping", "ping"]
        http.abort()


async def test_a_drain_lets_a_stream_finish_and_then_ends_it(nats: str) -> None:
    async with gateway(nats, drain_grace=0.2) as app:
        http = await connect(app)
        await http.send("POST", "/v1/models/hold/predict", {})
        events = http.events(await http.head())
        assert (await anext(events)).data["index"] == 0
        app.stop()
        last = await anext(events)
        http.abort()
    assert (last.name, last.data["error"]["code"]) == ("failed", "unavailable")
    assert last.id == ""


async def test_a_body_over_the_limit_is_refused(nats: str) -> None:
    async with gateway(nats, http_max_body_bytes=2048) as app:
        assert (await predict(app, "echo", text="x" * 4000)).status == 413


async def test_keys_and_limits_hold(nats: str, tmp_path: Path) -> None:
    with changing(tmp_path / "keys.json") as book:
        book.tenants["some"] = Limits(models=("echo@1", "wait@1"), streams=1)
        key = {"authorization": f"Bearer {book.create('some')}"}
    async with gateway(nats, api_keys=tmp_path / "keys.json") as app:
        assert (await predict(app, "echo@1", text="a")).status == 401
        assert (await predict(app, "echo@1", key, text="a")).json["result"] == "a"
        assert (await predict(app, "echo@2", key, text="a")).status == 404
        http = await connect(app)
        await http.send("POST", "/v1/models/wait/predict", {}, key)
        await eventually(lambda: len(app.link.router.sessions) == 1)
        answer = await predict(app, "echo@1", key, text="a")
        http.abort()
        assert (answer.status, answer.error["code"]) == (429, "overloaded")


async def test_a_websocket(app: App) -> None:
    assert app.http is not None
    url = f"ws://127.0.0.1:{app.http.port}/v1/models"
    async with asyncio.timeout(60), websocket(f"{url}/count/socket") as ws:
        await ws.send(json.dumps({"inputs": {"n": 2}, "request_id": "mine"}))
        said = [json.loads(await ws.recv()) for _ in range(4)]
        assert said == [
            {"type": "accepted", "request_id": "mine", "model": "count@1"},
            {"type": "item", "index": 0, "result": "0"},
            {"type": "item", "index": 1, "result": "1"},
            {"type": "finished", "items": 2},
        ]
        await ws.send(msgpack.packb({"inputs": {"n": 1}}))
        packed = [msgpack.unpackb(await ws.recv()) for _ in range(3)]
        assert packed[1:] == [
            {"type": "item", "index": 0, "result": "0"}, {"type": "finished", "items": 1},
        ]  # fmt: skip
        for wrong in ("[", b"\xc1", json.dumps({"inputs": {}}), json.dumps({"n": 1})):
            await ws.send(wrong)
            answer = await ws.recv()
            read = msgpack.unpackb(answer) if isinstance(answer, bytes) else json.loads(answer)
            assert read["type"] == "failed"
    async with asyncio.timeout(60), websocket(f"{url}/hold/socket") as ws:
        for cancel in ("cancel", json.dumps({"type": "cancel"}), msgpack.packb({"type": "cancel"})):
            await ws.send("{}")
            assert [json.loads(await ws.recv())["type"] for _ in range(2)] == ["accepted", "item"]
            await ws.send("{}")
            assert json.loads(await ws.recv())["error"]["code"] == "request_is_running"
            await ws.send(cancel)
            assert json.loads(await ws.recv())["error"]["code"] == "cancelled"
        await ws.send("{}")
        await ws.recv()
    await eventually(lambda: not app.link.router.sessions)


async def test_a_stalled_websocket_pauses_the_function(app: App) -> None:
    assert app.http is not None
    url = f"ws://127.0.0.1:{app.http.port}/v1/models/count/socket"
    before = await seen(app, "yielded")
    async with asyncio.timeout(60), websocket(url, max_queue=1) as ws:
        await ws.send(json.dumps({"inputs": {"n": 400, "size": 100_000}}))
        made = 0
        while (now := await seen(app, "yielded") - before) != made or now == 0:
            made = now
            await asyncio.sleep(0.5)
        assert made < 200
        kinds: list[str] = []
        while not kinds or kinds[-1] != "finished":
            kinds.append(json.loads(await ws.recv())["type"])
    assert kinds.count("item") == 400


async def test_language_models_are_told_from_functions(app: App) -> None:
    names = [model["id"] for model in (await call(app, "GET", "/v1/models")).json["data"]]
    assert names == ["bag@1", "sim", "sized@1"]
    assert (await call(app, "GET", "/info")).json["model_id"] == "sim"
    answer = await call(app, "POST", "/v1/completions", {"model": "echo", "prompt": "x"})
    assert answer.status == 400
