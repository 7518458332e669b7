"""What a stranger's connection may cost: long and slow headers, silence, readers that stall."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.app import App
from gateway.http import protocol
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import Http, call, connect, gateway, nats_and_workers

CHAT = "/v1/chat/completions"
BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


async def ends(http: Http) -> bytes:
    """What the server says until it closes the connection."""
    async with asyncio.timeout(30):
        try:
            return await http.reader.read()
        except ConnectionResetError:
            return b""
        finally:
            http.abort()


async def test_headers_without_an_end_are_refused(app: App) -> None:
    http = await connect(app)
    http.writer.write(b"GET /health/live HTTP/1.1\r\nhost: t\r\nx: ")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(60):
            while True:
                http.writer.write(b"y" * 4096)
                await http.writer.drain()
                await asyncio.sleep(0)  # The server runs in this loop too.
    http.abort()
    assert (await call(app, "GET", "/health/live")).status == 200


async def test_long_headers_are_taken_up_to_the_limit(app: App) -> None:
    answer = await call(app, "GET", "/health/live", None, {"x": "y" * 20_000})
    assert answer.status == 200


@pytest.mark.parametrize(
    "long",
    [
        b"GET /health/live HTTP/1.1\r\nhost: t\r\nx: %b\r\n\r\n" % (b"y" * 70_000),
        b"GET /health/live?%b HTTP/1.1\r\nhost: t\r\n\r\n" % (b"y" * 70_000),
        b"POST /generate HTTP/1.1\r\nhost: t\r\n%bcontent-length: 2\r\n\r\n{}"
        % (b"x: y\r\n" * 12_000),
    ],
    ids=["one header", "the address", "many headers"],
)
async def test_long_headers_in_one_read_are_refused(app: App, long: bytes) -> None:
    http = await connect(app)
    next_one = b"GET /health/live HTTP/1.1\r\nhost: t\r\n\r\n"
    http.writer.write(long + next_one)
    said = await ends(http)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close\r\n" in said
    assert said.count(b"HTTP/1.1") == 1


async def test_who_goes_inside_a_body_makes_no_noise(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    assert app.http is not None
    tasks = app.http._uvicorn.server_state.tasks
    for path in (CHAT, "/v1/models/fast/generate"):
        http = await connect(app)
        head = f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n"
        http.writer.write(f"{head}content-type: application/json\r\n\r\n{{".encode())
        await eventually(lambda: len(tasks) == 1)
        http.abort()
        await eventually(lambda: not tasks)
    assert "Exception in ASGI" not in caplog.text


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", b""),
        (b"GET /health/live HTTP/1.1\r\nhost: t\r\n", b"HTTP/1.1 408 "),
        (b"POST /generate HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half of the headers", "half of a body"],
)
async def test_who_is_slow_to_ask_is_sent_away(
    app: App, monkeypatch: pytest.MonkeyPatch, sent: bytes, said: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    http = await connect(app)
    http.writer.write(sent)
    assert (await ends(http)).startswith(said)


async def test_an_answer_may_take_longer_than_a_question(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.5)
    http = await connect(app)
    for _ in range(2):  # On one connection.
        await http.send("POST", CHAT, {**BODY, "model": "sim", "max_tokens": 400})
        answer = await http.answer()
        assert answer.json["usage"]["completion_tokens"] == 400
    http.abort()


async def test_one_connection_too_many_is_closed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 1)
    first = await connect(app)
    await first.send("GET", "/health/live")
    assert (await first.answer()).status == 200
    assert await ends(await connect(app)) == b""
    await first.send("GET", "/health/live")
    assert (await first.answer()).status == 200
    first.abort()


async def test_a_reader_that_stalls_is_dropped(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.3)
    assert app.http is not None
    for server in app.http._uvicorn.servers:
        for listener in server.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", app.http.port))
    http = Http(*await asyncio.open_connection(sock=small, limit=4096))
    # Sixteen choices with log probabilities are many bytes, of which it reads none.
    asked = {**BODY, "stream": True, "n": 16, "max_tokens": 20000, "logprobs": True}
    await http.send("POST", CHAT, {**asked, "top_logprobs": 1})
    await eventually(lambda: app.http is not None and app.http.open == 1)
    await eventually(lambda: app.http is not None and app.http.open == 0)
    assert not app.link.router.sessions
    http.abort()
