from __future__ import annotations

import asyncio
import gzip
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RichStatus
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError

from gateway.server import GrpcServer, Limits
from millstream import Client
from shared.errors import InvalidRequest, MillstreamError, Overloaded, RequestTooLarge
from tests.integration.grpc_peer import Peer, Probe, channel, eventually, framed, serving
from tests.unit.fake_gateway import FakeGateway, count_to_three


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_answers_a_grpcio_client() -> None:
    async with serving(Probe()) as (server, port), channel(port) as client:
        assert await client.unary_unary("/test.Probe/Echo")(b"hello") == b"hello"
        typed = client.unary_unary(
            "/test.Probe/Typed", StringValue.SerializeToString, StringValue.FromString
        )
        assert (await typed(StringValue(value="x"))).value == "x"
        parts = iter([b"a", b"", b"c"])
        assert await client.stream_unary("/test.Probe/Join")(parts) == b"ac"
        assert server.counters.calls == 3
        assert server.counters.connections == 1


async def test_1500_streams_run_at_once_on_one_connection() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), channel(port) as client:
        hold = client.unary_stream("/test.Probe/Hold")
        calls = [hold(b"") for _ in range(1500)]
        firsts = await asyncio.gather(*(call.read() for call in calls))
        assert set(firsts) == {b"held"}
        assert server.counters.connections == 1
        assert server.calls_open == 1500
        probe.release.set()
        assert set(await asyncio.gather(*(call.read() for call in calls))) == {b"released"}
        await eventually(lambda: server.calls_open == 0)


async def test_streams_beyond_the_limit_are_refused_and_the_connection_goes_on() -> None:
    probe = Probe()
    async with serving(probe, limits=Limits(max_streams=3)) as (server, port):
        async with Peer.connected(port) as peer:
            for _ in range(5):
                peer.call("/test.Probe/Hold")
            await eventually(lambda: server.counters.streams_refused == 2 and probe.held == 3)
            probe.release.set()
            assert (await peer.status(5))["grpc-status"] == "0"
            assert (await peer.status(peer.call("/test.Probe/Echo")))["grpc-status"] == "0"
        async with Peer.connected(port) as peer:
            await eventually(lambda: peer.h2.remote_settings.max_concurrent_streams == 3)


async def test_a_message_over_the_limit_is_refused_by_its_prefix() -> None:
    limits = Limits(max_message_bytes=1000)
    async with serving(Probe(), limits=limits) as (server, port), channel(port) as client:
        echo = client.unary_unary("/test.Probe/Echo")
        assert len(await echo(bytes(1000))) == 1000
        error = await refused(echo(bytes(1001)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1001" in (error.details() or "")
        assert "1000" in (error.details() or "")
        async with Peer.connected(port) as peer:
            # Five bytes of four gigabytes suffice.
            call = peer.call("/test.Probe/Echo", framed(b"", length=2**32 - 1), end=False)
            assert (await peer.status(call))["grpc-status"] == "8"
        assert server.counters.refused_message_size == 2


async def test_our_client_does_not_take_a_large_request_for_a_full_house() -> None:
    limits = Limits(max_message_bytes=1000)
    gateway = FakeGateway(count_to_three)
    async with serving(gateway, limits=limits) as (_, port), Client(f"127.0.0.1:{port}") as client:
        for prompt in ("x" * 2000, "x" * 2_000_000):
            with pytest.raises(RequestTooLarge, match="and at most 1000 are allowed") as caught:
                await asyncio.wait_for(client.complete(prompt), 60)
            assert f"takes {len(prompt)}"[:-2] in caught.value.message
            assert "--max-message-bytes" in caught.value.message
            assert not caught.value.retryable
        assert (await client.complete("x")).text == " 0 1 2"


async def test_gzip_is_inflated_with_the_same_limit() -> None:
    async with serving(Probe(), limits=Limits(max_message_bytes=10_000)) as (server, port):
        async with channel(port) as client:
            echo = client.unary_unary("/test.Probe/Echo")
            assert await echo(b"z" * 9000, compression=grpc.Compression.Gzip) == b"z" * 9000
        async with Peer.connected(port) as peer:
            sent = [
                (framed(gzip.compress(bytes(2**22)), compressed=1), "gzip", "8"),
                (framed(gzip.compress(b"cut off")[:-3], compressed=1), "gzip", "3"),
                (framed(b"no gzip", compressed=1), "gzip", "3"),
                (framed(b"flagged", compressed=1), "identity", "13"),
            ]
            for message, encoding, status in sent:
                call = peer.call("/test.Probe/Echo", message, {"grpc-encoding": encoding})
                assert (await peer.status(call))["grpc-status"] == status
        assert server.counters.handler_errors == 0


HEADERS: list[tuple[dict[str, str | None], dict[str, str], str]] = [
    ({"grpc-timeout": "5 minutes"}, {"grpc-status": "3"}, "refused_timeout"),
    ({"grpc-timeout": "123456789S"}, {"grpc-status": "3"}, "refused_timeout"),
    ({"grpc-timeout": ""}, {"grpc-status": "3"}, "refused_timeout"),
    ({"grpc-timeout": "0n"}, {"grpc-status": "4"}, "refused_deadline"),
    ({"key-bin": "!!!"}, {"grpc-status": "3"}, "refused_metadata"),
    ({"key-bin": "é"}, {"grpc-status": "3"}, "refused_metadata"),
    (
        {"grpc-encoding": "br"},
        {"grpc-status": "12", "grpc-accept-encoding": "identity,gzip"},
        "refused_encoding",
    ),
    ({"content-type": "application/json"}, {":status": "415"}, "refused_content_type"),
    ({"content-type": None}, {":status": "415"}, "refused_content_type"),
    ({"te": None}, {":status": "400"}, "refused_content_type"),
    ({":method": None}, {":status": "405"}, "refused_method"),
    ({":path": None}, {"grpc-status": "12"}, "refused_method"),
    ({"x-large": "y" * 20_000}, {"grpc-status": "8"}, "refused_header_size"),
]


@pytest.mark.parametrize(("headers", "expected", "counter"), HEADERS)
async def test_wrong_headers_get_their_status(
    headers: dict[str, str | None], expected: dict[str, str], counter: str
) -> None:
    async with serving(Probe()) as (server, port), Peer.connected(port) as peer:
        answer = await peer.status(peer.call("/test.Probe/Echo", headers=headers))
        assert answer.items() >= expected.items()
        assert getattr(server.counters, counter) == 1
        assert (await peer.status(peer.call("/test.Probe/Echo")))["grpc-status"] == "0"


MESSAGES = [
    (framed(b"abc", length=9), "3"),
    (b"\0\0", "3"),
    (framed(b"", compressed=7), "3"),
    (framed(b"\xff\xff\xff"), "3"),
    (None, "3"),
]


@pytest.mark.parametrize(("data", "status"), MESSAGES)
async def test_wrong_messages_get_their_status(data: bytes | None, status: str) -> None:
    async with serving(Probe()) as (server, port), Peer.connected(port) as peer:
        assert (await peer.status(peer.call("/test.Probe/Typed", data)))["grpc-status"] == status
        assert server.counters.refused_message == 1


async def test_a_message_may_come_in_many_small_frames_and_empty_ones() -> None:
    async with serving(Probe()) as (_, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Echo", b"", end=False)
        for byte in framed(b"slowly"):
            peer.h2.send_data(call, bytes([byte]), pad_length=3)
            peer.h2.send_data(call, b"")
        peer.h2.end_stream(call)
        peer.flush()
        assert (await peer.status(call))["grpc-status"] == "0"


async def test_an_unknown_method_is_unimplemented_until_its_service_is_added() -> None:
    probe = Probe()
    async with serving() as (server, port), channel(port) as client:
        echo = client.unary_unary("/test.Probe/Echo")
        assert (await refused(echo(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
        server.add(probe)
        assert await echo(b"now") == b"now"
        server.remove(probe)
        assert (await refused(echo(b""))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_fault_of_a_handler_is_internal_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probe = Probe()
    probe.raises = RuntimeError("the secret")
    async with serving(probe) as (server, port), channel(port) as client:
        error = await refused(client.unary_unary("/test.Probe/Fail")(b""))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "internal error"
        assert server.counters.handler_errors == 1
        logged = [record for record in caplog.records if record.exc_info]
        assert "the secret" in str(logged[0].exc_info)
        silent = await refused(client.unary_unary("/test.Probe/Silent")(b""))
        assert silent.code() is grpc.StatusCode.INTERNAL


async def test_a_handler_that_is_cancelled_from_inside_still_answers() -> None:
    probe = Probe()
    probe.raises = asyncio.CancelledError()
    async with serving(probe) as (_, port), channel(port) as client:
        error = await refused(client.unary_unary("/test.Probe/Fail")(b""))
        assert error.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("temperature is 3", field="sampling.temperature"),
        Overloaded("the queue is full", retry_after=1.5),
    ],
)
async def test_a_millstream_error_comes_with_its_details(error: MillstreamError) -> None:
    probe = Probe()
    probe.raises = error
    async with serving(probe) as (_, port), channel(port) as client:
        caught = await refused(client.unary_unary("/test.Probe/Fail")(b""))
        assert caught.code().value[0] == error.grpc_status
        assert caught.details() == error.message
        trailers = dict(caught.trailing_metadata() or ())
        rich = RichStatus.FromString(bytes(trailers["grpc-status-details-bin"]))
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        assert any(detail.Unpack(info) for detail in rich.details)
        assert info.reason == error.kind
        assert any(detail.Unpack(bad) for detail in rich.details) == bool(error.field)
        assert any(detail.Unpack(retry) for detail in rich.details) == bool(error.retry_after)


async def test_the_deadline_ends_a_call() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Hold", headers={"grpc-timeout": "1S"})
        assert (await peer.status(call))["grpc-status"] == "4"
        assert probe.cancelled == 1
        assert server.counters.deadlines_exceeded == 1


async def test_a_reset_cancels_the_handler_and_leaves_nothing() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), channel(port) as client:
        call = client.unary_stream("/test.Probe/Hold")(b"")
        assert await call.read() == b"held"
        call.cancel()
        await eventually(lambda: probe.cancelled == 1 and server.calls_open == 0)
        assert server.counters.calls_cancelled == 1
        (connection,) = server._state.connections
        assert not connection.processor.streams


async def test_a_listener_may_turn_calls_away() -> None:
    async def authenticate(event: RecvRequest) -> None:
        if event.metadata.get("authorization") != "Bearer good":
            raise GRPCError(Status.UNAUTHENTICATED, "who are you?")

    server = GrpcServer([Probe()])
    listen(server, RecvRequest, authenticate)
    port = await server.start("127.0.0.1", 0)
    async with channel(port) as client:
        echo = client.unary_unary("/test.Probe/Echo")
        assert (await refused(echo(b""))).code() is grpc.StatusCode.UNAUTHENTICATED
        assert await echo(b"x", metadata=(("authorization", "Bearer good"),)) == b"x"
    await server.close()


async def test_binary_metadata_arrives() -> None:
    probe = Probe()
    seen: list[Any] = []

    async def note(stream: Any) -> None:
        seen.extend(stream.metadata.getall("key-bin"))

    probe.stream = note
    async with serving(probe) as (_, port), channel(port) as client:
        metadata = (("key-bin", b"\0\xff"), ("key-bin", b"abcd"), ("key-bin", b""))
        call = client.unary_stream("/test.Probe/Stream")(b"", metadata=metadata)
        assert await call.read() is grpc.aio.EOF
    assert seen == [b"\0\xff", b"abcd", b""]


async def test_drain_lets_open_calls_finish_and_sends_new_ones_elsewhere() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), channel(port) as client:
        calls = [client.unary_stream("/test.Probe/Hold")(b"") for _ in range(300)]
        await asyncio.gather(*(call.read() for call in calls))
        drain = asyncio.create_task(server.drain(30))
        await eventually(lambda: all(c.drained.done() for c in server._state.connections))
        error = await refused(client.unary_unary("/test.Probe/Echo")(b""))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not drain.done()
        probe.release.set()
        ends = await asyncio.gather(*(call.read() for call in calls))
        assert ends == [b"released"] * 300
        await drain
        assert server.calls_open == 0
        codes = await asyncio.gather(*(call.code() for call in calls))
        assert set(codes) == {grpc.StatusCode.OK}


async def test_a_rolling_restart_under_load_fails_no_call() -> None:
    first, second = GrpcServer([Probe()]), GrpcServer([Probe()])
    port = await first.start("127.0.0.1", 0, reuse_port=True)
    stop = asyncio.Event()
    answered = 0

    async def load(client: grpc.aio.Channel) -> None:
        nonlocal answered
        while not stop.is_set():
            assert await client.unary_unary("/test.Probe/Echo")(b"x") == b"x"
            answered += 1

    async with channel(port) as one, channel(port) as two:
        tasks = [asyncio.create_task(load(client)) for client in (one, two) for _ in range(8)]
        await eventually(lambda: first.counters.calls > 100)
        await second.start("127.0.0.1", port, reuse_port=True)
        await first.drain(30)
        await first.close()
        await eventually(lambda: second.counters.calls > 100)
        stop.set()
        await asyncio.gather(*tasks)
    assert answered == first.counters.calls + second.counters.calls
    await second.close()


async def test_drain_gives_up_after_its_grace_and_close_says_unavailable() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), channel(port) as client:
        call = client.unary_stream("/test.Probe/Hold")(b"")
        await call.read()
        await server.drain(0.05)
        assert server.calls_open == 1
        await server.close()
        error = await refused(call.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the server is shutting down"


async def test_close_returns_with_an_idle_client_and_frees_the_port() -> None:
    server = GrpcServer([Probe()])
    port = await server.start("127.0.0.1", 0)
    async with Peer.connected(port) as peer:
        assert (await peer.status(peer.call("/test.Probe/Echo")))["grpc-status"] == "0"
        async with asyncio.timeout(30):
            await server.close()
        again = GrpcServer([])
        assert await again.start("127.0.0.1", port) == port
        await again.close()


async def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use"):
            await GrpcServer([]).start("127.0.0.1", port)


async def test_two_servers_share_a_port() -> None:
    first, second = GrpcServer([Probe()]), GrpcServer([Probe()])
    port = await first.start("127.0.0.1", 0, reuse_port=True)
    assert await second.start("127.0.0.1", port, reuse_port=True) == port
    await first.close()
    async with channel(port) as client:
        assert await client.unary_unary("/test.Probe/Echo")(b"x") == b"x"
    await second.close()


async def test_an_aged_connection_is_drained() -> None:
    limits = Limits(max_connection_age=0.05)
    async with serving(Probe(), limits=limits) as (server, port), Peer.connected(port) as peer:
        await eventually(lambda: peer.ended)
        assert server.counters.connections_aged == 1


SCENARIOS = [
    test_a_reset_cancels_the_handler_and_leaves_nothing,
    test_a_rolling_restart_under_load_fails_no_call,
    test_drain_gives_up_after_its_grace_and_close_says_unavailable,
    test_close_returns_with_an_idle_client_and_frees_the_port,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_uvloop_too(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(scenario())


@pytest.fixture(autouse=True)
def quiet_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test leaves the event loop something to complain about."""
    yield
    complaints = [r for r in caplog.get_records("call") if r.name == "asyncio"]
    assert not [r for r in complaints if r.levelno >= logging.ERROR]
