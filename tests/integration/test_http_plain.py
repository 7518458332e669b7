"""The gateway's own events over SSE and WebSocket, and TGI, against real workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from gateway.app import App
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import call, connect, gateway, nats_and_workers, running, stream

PLAIN = "/v1/models/sim/generate"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def ws(app: App) -> AsyncIterator[ClientConnection]:
    assert app.http is not None
    url = f"ws://127.0.0.1:{app.http.port}/v1/models/sim/socket"
    async with websocket(url, compression="deflate", close_timeout=1) as connection:
        yield connection


async def said(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        message: dict[str, Any] = json.loads(await ws.recv())
    return message


async def until(ws: ClientConnection, kind: str) -> list[dict[str, Any]]:
    messages = [await said(ws)]
    while messages[-1]["type"] != kind:
        messages.append(await said(ws))
    return messages


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_events(app: App, method: str) -> None:
    if method == "POST":
        body = {"prompt": "hi", "sampling": {"max_tokens": 5}, "request_id": "mine"}
        events = await stream(app, "POST", PLAIN, body)
    else:
        query = "?prompt=hi&max_tokens=5&temperature=0.5&stop=x&stop=y&request_id=mine"
        events = await stream(app, "GET", PLAIN + query)
    assert [event.name for event in (events[0], events[-1])] == ["started", "finished"]
    assert events[0].data["request_id"] == "mine"
    deltas = events[1:-1]
    assert {event.name for event in deltas} == {""}
    assert "".join(event.data["text"] for event in deltas) == " 0 1 2 3 4"
    assert [token for event in deltas for token in event.data["token_ids"]] == list(range(5))
    assert [int(event.id) for event in deltas] == [e.data["token_ids"][-1] for e in deltas]
    assert events[-1].data["reason"] == "length"
    assert events[-1].data["usage"]["completion_tokens"] == 5


async def test_the_requests_own_name_is_the_responses(app: App) -> None:
    http = await connect(app)
    await http.send("POST", PLAIN, {"prompt": "hi", "request_id": "b"}, {"x-request-id": "a"})
    head = await http.head()
    http.abort()
    assert head.headers["x-request-id"] == "b"


async def test_an_event_source_that_comes_back_is_told_to_stay_away(app: App) -> None:
    answer = await call(app, "GET", PLAIN + "?prompt=hi", None, {"last-event-id": "4"})
    assert answer.status == 204


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "hi", "sampling": {"temperature": 9}}, 400, "sampling.temperature"),
        ({"prompt": "hi", "samplign": {}}, 400, None),
        ({"prompt": "x" * 40000}, 400, "prompt"),
        ({"prompt": "hi", "request_id": "a b"}, 400, "request_id"),
        ({"prompt": "hi \ud83d"}, 400, "prompt"),
        ({"prompt": "hi", "labels": {"a": "\ud83d"}}, 400, "labels.a"),
    ],
)
async def test_plain_refusals(app: App, body: Any, status: int, param: str | None) -> None:
    answer = await call(app, "POST", PLAIN, body)
    assert (answer.status, answer.error["param"]) == (status, param)


async def test_a_timeout(app: App) -> None:
    path = f"{PLAIN}?prompt=hi&max_tokens=20000"
    events = await stream(app, "GET", path, None, {"x-request-timeout": "2"})
    assert events[-1].name == "failed"
    assert events[-1].data["error"]["code"] == "deadline_exceeded"
    answer = await call(app, "GET", path, None, {"x-request-timeout": "never"})
    assert (answer.status, answer.error["param"]) == (400, "x-request-timeout")


async def test_a_timeout_before_the_first_token(nats: str) -> None:
    # A stream whose worker is never found is silent for good.
    async with gateway(nats) as app:
        app.link.publish = lambda request, done: None
        path = f"{PLAIN}?prompt=hi"
        answer = await call(app, "GET", path, None, {"x-request-timeout": "0.2"})
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")


async def test_an_unknown_model_and_an_unknown_parameter(app: App) -> None:
    assert (await call(app, "POST", "/v1/models/none/generate", {"prompt": "x"})).status == 404
    answer = await call(app, "GET", PLAIN + "?prompt=hi&tempo=1")
    assert answer.status == 400
    assert "tempo" in answer.error["message"]


async def test_logprobs_in_events(app: App) -> None:
    body = {"prompt": "hi", "sampling": {"max_tokens": 2, "logprobs": 1}}
    events = await stream(app, "POST", PLAIN, body)
    entries = [entry for event in events[1:-1] for entry in event.data["logprobs"]]
    assert entries[1] == {"logprob": 0.0, "top": [{"token_id": 1, "text": " 1", "logprob": 0.0}]}


# ---- WebSocket ----------------------------------------------------------------------------------


async def test_a_socket_streams_several_requests_in_turn(ws: ClientConnection) -> None:
    assert "deflate" not in ws.response.headers.get("sec-websocket-extensions", "")  # type: ignore[union-attr]
    for _ in range(2):
        await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 4}}))
        messages = await until(ws, "finished")
        assert messages[0]["type"] == "started"
        assert "".join(m["text"] for m in messages[1:-1]) == " 0 1 2 3"
        assert messages[-1]["reason"] == "length"


@pytest.mark.parametrize("cancel", ['"cancel"', '{"type": "cancel"}'])
async def test_a_socket_takes_cancel(app: App, ws: ClientConnection, cancel: str) -> None:
    await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 20000}}))
    await until(ws, "delta")
    await ws.send(cancel)
    failed = (await until(ws, "failed"))[-1]
    assert failed["error"]["code"] == "cancelled"
    await eventually(lambda: running(app) == 0, within=10.0)
    await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 1}}))
    await until(ws, "finished")


async def test_a_socket_that_closes_cancels(app: App, ws: ClientConnection) -> None:
    await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 20000}}))
    await until(ws, "delta")
    ws.transport.abort()
    await eventually(lambda: not app.link.router.sessions, within=10.0)
    await eventually(lambda: running(app) == 0, within=10.0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_value"),
        ("[1]", "invalid_value"),
        ('{"prompt": ""}', "invalid_value"),
        ('{"prompt": "hi", "nope": 1}', "invalid_value"),
        (b'{"prompt": ""}', "invalid_value"),
        ('{"prompt": "\\ud83d"}', "invalid_value"),
        ('{"request_id": "\\ud83d"}', "invalid_value"),
        ("[" * 100_000, "invalid_value"),
    ],
)
async def test_a_socket_survives_bad_messages(
    ws: ClientConnection, message: str | bytes, code: str
) -> None:
    await ws.send(message)
    assert (await said(ws))["error"]["code"] == code
    await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 1}}))
    await until(ws, "finished")


async def test_a_socket_runs_one_request_at_a_time(ws: ClientConnection) -> None:
    await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 20000}}))
    await until(ws, "delta")
    await ws.send(json.dumps({"prompt": "hi"}))
    failed = (await until(ws, "failed"))[-1]
    assert failed["error"]["code"] == "request_is_running"
    assert (await said(ws))["type"] == "delta"


async def test_a_sockets_timeout_holds_for_each_request(app: App) -> None:
    assert app.http is not None
    url = f"ws://127.0.0.1:{app.http.port}/v1/models/sim/socket"
    async with websocket(url, additional_headers={"x-request-timeout": "0.3"}) as ws:
        for _ in range(2):
            await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 20000}}))
            failed = (await until(ws, "failed"))[-1]
            assert failed["error"]["code"] == "deadline_exceeded"


async def test_a_drain_lets_a_sockets_request_finish(nats: str) -> None:
    async with gateway(nats) as app:
        assert app.http is not None
        async with websocket(f"ws://127.0.0.1:{app.http.port}/v1/models/sim/socket") as ws:
            await ws.send(json.dumps({"prompt": "hi", "sampling": {"max_tokens": 300}}))
            await until(ws, "delta")
            app.stop()
            assert (await until(ws, "finished"))[-1]["usage"]["completion_tokens"] == 300
            with pytest.raises(ConnectionClosed):
                await ws.recv()


# ---- Text Generation Inference -------------------------------------------------------------------


async def test_tgi_generate(app: App) -> None:
    body = {"inputs": "hi", "model": "sim", "parameters": {"max_new_tokens": 3, "details": True}}
    answer = (await call(app, "POST", "/generate", body)).json
    assert answer["generated_text"] == " 0 1 2"
    details = answer["details"]
    assert details["finish_reason"] == "length"
    assert details["generated_tokens"] == 3
    assert details["tokens"][2] == {"id": 2, "text": " 2", "logprob": 0.0, "special": False}


async def test_tgi_stop_and_full_text(app: App) -> None:
    given = {"max_new_tokens": 9, "stop": [" 4"], "return_full_text": True, "details": True}
    body = {"inputs": "hi", "model": "sim", "parameters": given}
    answer = (await call(app, "POST", "/generate", body)).json
    assert answer["generated_text"] == "hi 0 1 2 3"
    assert answer["details"]["finish_reason"] == "stop_sequence"


@pytest.mark.parametrize("path", ["/generate_stream", "/generate"])
async def test_tgi_stream(app: App, path: str) -> None:
    body = {
        "inputs": "hi",
        "model": "sim",
        "stream": True,
        "parameters": {"max_new_tokens": 4},
    }
    *tokens, last = [event.data for event in await stream(app, "POST", path, body)]
    assert [event["token"]["id"] for event in tokens] == [0, 1, 2, 3]
    assert "".join(event["token"]["text"] for event in tokens) == " 0 1 2 3"
    assert all(event["generated_text"] is None for event in tokens)
    assert last["generated_text"] == " 0 1 2 3"
    assert last["token"]["special"]
    assert last["details"]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": "", "model": "sim"}, 422, "validation"),
        ({"inputs": "x", "model": "none"}, 404, "validation"),
        ({"inputs": "x"}, 422, "validation"),
        ({"inputs": "x", "model": "sim", "parameters": {"truncate": 3}}, 422, "validation"),
        ({"inputs": "x", "model": "sim", "parameters": {"top_k": -1}}, 422, "validation"),
        ({"inputs": "x" * 40000, "model": "sim"}, 422, "validation"),
        ({"inputs": "x\ud83d", "model": "sim"}, 422, "validation"),
    ],
)
async def test_tgi_refusals(app: App, body: Any, status: int, kind: str) -> None:
    answer = await call(app, "POST", "/generate", body)
    assert answer.status == status
    assert set(answer.json) == {"error", "error_type"}
    assert answer.json["error_type"] == kind


async def test_tgi_timeout(app: App) -> None:
    body = {"inputs": "x", "model": "sim", "parameters": {"max_new_tokens": 20000}}
    answer = await call(app, "POST", "/generate", body, {"x-request-timeout": "0.2"})
    assert (answer.status, answer.json["error_type"]) == (504, "generation")
    events = await stream(app, "POST", "/generate_stream", body, {"x-request-timeout": "2"})
    assert "2 s" in events[-1].data["error"]


async def test_tgi_info_and_health(app: App) -> None:
    info = (await call(app, "GET", "/info")).json
    assert info["model_id"] == "fast"
    assert info["max_total_tokens"] == 32768
    assert (await call(app, "GET", "/health")).status == 200
