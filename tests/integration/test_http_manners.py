"""What holds for every HTTP endpoint: leaving, silence, slow readers, limits, CORS, drain."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway import health, outlet
from gateway.app import App
from tests.integration.grpc_peer import channel, eventually
from tests.integration.http_peer import (
    FEW,
    ROOT,
    Event,
    Http,
    call,
    connect,
    gateway,
    nats_and_workers,
    running,
    turns_until,
)
from tests.integration.test_health_reflection import check

CHAT = "/v1/chat/completions"
LONG = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20000}
PLAIN = "/v1/models/sim/generate?prompt=hi&max_tokens=20000"


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


def listens_at(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, {**LONG, "stream": True}),
        ("POST", CHAT, LONG),
        ("GET", PLAIN, None),
        ("POST", "/generate_stream", {"inputs": "x", "model": "sim", "parameters": {}}),
    ],
    ids=["streamed", "whole", "event source", "tgi"],
)
async def test_leaving_cancels_at_once(
    app: App, method: str, path: str, body: dict[str, object] | None
) -> None:
    if body is not None and "parameters" in body:
        body = {**body, "parameters": {"max_new_tokens": 20000}}
    http = await connect(app)
    await http.send(method, path, body)
    await eventually(lambda: running(app) == len(app.link.router.sessions) == 1)
    http.abort()
    turns = await turns_until(lambda: not app.link.router.sessions)
    assert turns < FEW
    await eventually(lambda: running(app) == 0, within=10.0)


async def test_leaving_while_queued_takes_the_request_out_of_the_queue(nats: str) -> None:
    async with gateway(nats) as app:
        http = await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True})
        http.abort()
        await eventually(lambda: not app.link.router.sessions)
    assert app.http is not None
    assert app.http.open == 0


async def test_a_silent_stream_gets_comments(nats: str) -> None:
    # A stream whose worker is never found is silent for good.
    async with gateway(nats, http_ping_seconds=0.1) as app:
        app.link.publish = lambda request, done: None
        http = await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True})
        head = await http.head()
        assert head.status == 200
        comments = []
        async for event in http.events(head):
            comments.append(event.comment)
            if len(comments) == 3:
                break
        http.abort()
        assert comments == ["ping"] * 3


async def test_a_busy_stream_gets_none(nats: str) -> None:
    async with gateway(nats, http_ping_seconds=0.5) as app:
        http = await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True, "max_tokens": 1000})
        events = [event async for event in http.events(await http.head())]
        http.abort()
        assert not any(event.comment for event in events)


async def test_a_slow_reader_is_bounded_and_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MOST_UNSENT", 100_000)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    assert app.http is not None
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", app.http.port))
    reader, writer = await asyncio.open_connection(sock=small, limit=4096)
    http = Http(reader, writer)
    # Sixteen choices with log probabilities are many bytes.
    asked = {**LONG, "model": "fast", "stream": True, "n": 16, "logprobs": True}
    await http.send("POST", CHAT, {**asked, "top_logprobs": 1})
    head = await http.head()  # It has begun.
    await eventually(lambda: not app.link.router.sessions)
    last = Event()
    async for event in http.events(head):
        last = event
    http.abort()
    assert last.data["error"]["code"] == "overloaded"
    assert last.data["error"]["type"] == "rate_limit_error"
    await eventually(lambda: running(app) == 0)


async def test_nobody_waits_for_a_slow_reader(app: App) -> None:
    slow = await connect(app)
    await slow.send("POST", CHAT, {**LONG, "model": "fast", "stream": True})
    answer = await call(app, "POST", CHAT, {**LONG, "max_tokens": 20})
    slow.abort()
    assert answer.status == 200


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_over_the_limit_is_refused(nats: str, declared: bool) -> None:
    async with gateway(nats, http_max_body_bytes=2048) as app:
        http = await connect(app)
        if declared:
            await http.send("POST", CHAT, b"x" * 5000)
        else:
            told = {"transfer-encoding": "chunked", "content-type": "application/json"}
            lines = [f"POST {CHAT} HTTP/1.1", "host: t", *(f"{k}: {v}" for k, v in told.items())]
            chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
            http.writer.write("\r\n".join([*lines, "", ""]).encode() + chunk * 5 + b"0\r\n\r\n")
        answer = await http.answer()
        assert answer.status == 413
        assert answer.error["type"] == "invalid_request_error"
        assert answer.headers["x-request-id"]
        await http.send("GET", "/health/live")
        assert (await http.answer()).status == 200
        http.abort()


async def test_cors_where_it_is_set(nats: str) -> None:
    origin = {"origin": "https://a.example"}
    async with gateway(nats, http_cors="https://a.example") as app:
        asked = {**origin, "access-control-request-method": "POST"}
        asked["access-control-request-headers"] = "authorization, content-type"
        preflight = await call(app, "OPTIONS", CHAT, None, asked)
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == "https://a.example"
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        answer = await call(app, "POST", CHAT, {**LONG, "max_tokens": 1}, origin)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        other = await call(app, "GET", "/v1/models", None, {"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_no_cors_where_it_is_not(app: App) -> None:
    answer = await call(app, "GET", "/v1/models", None, {"origin": "https://a.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_bearer_token_is_taken_and_streams_are_not_compressed(app: App) -> None:
    headers = {"authorization": "Bearer sk-x", "accept-encoding": "gzip, br"}
    answer = await call(app, "POST", CHAT, {**LONG, "stream": True, "max_tokens": 2}, headers)
    assert answer.status == 200
    assert "content-encoding" not in answer.headers
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_operators_pages(app: App) -> None:
    assert (await call(app, "GET", "/health/live")).json == {"status": "live"}
    assert (await call(app, "GET", "/health/ready")).json == {"status": "ready"}
    assert (await call(app, "GET", "/metrics")).status == 404  # They have a port of their own.
    paths = (await call(app, "GET", "/openapi.json")).json["paths"]
    assert {CHAT, "/generate_stream", "/v1/models/{name}/generate"} <= paths.keys()
    assert (await call(app, "GET", "/docs")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/none", 404), ("GET", CHAT, 405), ("PUT", "/info", 405)]
)
async def test_unknown_paths_and_methods(app: App, method: str, path: str, status: int) -> None:
    answer = await call(app, method, path)
    assert answer.status == status
    assert answer.headers["x-request-id"]
    assert answer.error["type"] in ("not_found_error", "invalid_request_error")


async def test_ready_follows_nats(app: App) -> None:
    app.link.ready = False
    answer = await call(app, "GET", "/health/ready")
    assert answer.status == 503
    refused = await call(app, "POST", CHAT, {**LONG, "max_tokens": 1})
    assert refused.status == 503
    assert refused.headers["x-should-retry"] == "true"
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_drain_lets_open_streams_finish(nats: str) -> None:
    async with gateway(nats) as app:
        http, idle = await connect(app), await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True, "max_tokens": 1000})
        head = await http.head()
        app.stop()
        await eventually(lambda: app._draining)
        await idle.send("POST", CHAT, LONG)
        refused = await idle.answer()
        assert refused.status == 503
        assert refused.headers["connection"] == "close"
        events = [event async for event in http.events(head)]
        assert events[-1].data == "[DONE]"
        http.abort()
        idle.abort()


async def test_before_a_drain_it_serves_on_and_says_that_it_is_not_ready(nats: str) -> None:
    async with (
        gateway(nats, drain_delay=60.0) as app,
        channel(app.grpc_port) as rpc,
    ):
        assert (await check(rpc, "")).status == health.SERVING
        app.stop()
        await eventually(lambda: app._draining)
        ready = await call(app, "GET", "/health/ready")  # By a new connection.
        assert (ready.status, ready.json) == (503, {"status": "draining"})
        assert (await check(rpc, "")).status == health.NOT_SERVING
        answer = await call(app, "POST", CHAT, {**LONG, "max_tokens": 2})
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with channel(app.grpc_port) as later:
            assert (await check(later, "")).status == health.NOT_SERVING
            assert app.http is not None
            port = app.http.port

            def cut_short() -> bool:
                app.stop()  # As the first, for half a second: Ctrl-C tells several processes.
                return not listens_at(port)

            assert not cut_short()
            await eventually(cut_short)


async def test_a_drain_begins_when_its_delay_is_over(nats: str) -> None:
    async with gateway(nats, drain_delay=0.3) as app:
        http = await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True, "max_tokens": 600})
        head = await http.head()
        began = time.monotonic()
        app.stop()
        assert app.http is not None
        port = app.http.port
        await eventually(lambda: not listens_at(port))
        assert time.monotonic() - began >= 0.3
        events = [event async for event in http.events(head)]
        assert events[-1].data == "[DONE]"
        http.abort()


async def test_a_fault_says_that_the_connection_ends(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.http is not None
    monkeypatch.setattr(app.http._front, "accept", None)
    http = await connect(app)
    await http.send("POST", CHAT, LONG)
    answer = await http.answer()
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert await http.reader.read() == b""
    http.abort()


async def test_what_outlasts_the_grace_ends_with_an_error_event(nats: str) -> None:
    async with gateway(nats, drain_grace=0.2) as app:
        http = await connect(app)
        await http.send("POST", CHAT, {**LONG, "stream": True})
        head = await http.head()
        app.stop()
        events = [event async for event in http.events(head)]
        http.abort()
    assert events[-1].data["error"]["code"] == "unavailable"


async def test_nats_lost_in_a_stream_is_no_end_of_it(app: App) -> None:
    http = await connect(app)
    await http.send("POST", CHAT, {**LONG, "stream": True, "max_tokens": 400})
    head = await http.head()
    app.link.ready = False
    events = [event async for event in http.events(head)]
    http.abort()
    assert events[-1].data == "[DONE]"


def test_a_gateway_without_http_imports_nothing_of_it() -> None:
    code = "import gateway.app, sys; print(*sorted({'fastapi', 'uvicorn'} & set(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.split() == []


async def test_a_port_in_use_is_said_and_ends_the_start(nats: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway", "--nats", nats, "--grpc-port", "0", "--http-host", "127.0.0.1"),
            *("--http-port", str(port), "--log-format", "json"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
    assert process.returncode == 5
    assert f"127.0.0.1:{port}" in json.loads(said.decode().splitlines()[-1])["reason"]
