from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, StreamEnded, StreamReset
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.grpc.connection import GrpcProtocol
from gateway.grpc.messages import InboundBuffer
from gateway.server import GrpcServer, Limits
from tests.integration.grpc_peer import Peer, Probe, channel, eventually, framed, serving

SNAPPY = Limits(keepalive_interval=0.1, keepalive_timeout=0.1)


async def served(port: int) -> bool:
    """Whether a call is answered well, over the first connection that is let in."""
    async with asyncio.timeout(60):
        while True:
            async with Peer.connected(port) as peer:
                call = peer.call("/test.Probe/Echo")
                await eventually(lambda: peer.ended or bool(peer.of(StreamEnded)))
                if not peer.ended:
                    return (await peer.status(call))["grpc-status"] == "0"


async def hung_up(peer: Peer, code: ErrorCodes) -> None:
    """The server sent a GOAWAY with the code, then closed the socket."""
    await eventually(lambda: peer.ended)
    assert [event.error_code for event in peer.of(ConnectionTerminated)][-1] == code


def pings(count: int) -> bytes:
    return b"".join(PingFrame(0, opaque_data=i.to_bytes(8)).serialize() for i in range(count))


def settings(count: int) -> bytes:
    return SettingsFrame(0).serialize() * count


def overflows(peer: Peer, count: int) -> bytes:
    """Streams that the server itself must reset (CVE-2025-8671)."""
    frames = b""
    for _ in range(count):
        call = peer.call("/test.Probe/Hold")
        frames += WindowUpdateFrame(call, window_increment=2**31 - 1).serialize()
    return frames


async def test_a_ping_flood_ends_only_its_connection() -> None:
    async with serving(Probe()) as (server, port), channel(port) as client:
        echo = client.unary_unary("/test.Probe/Echo")
        await echo(b"before")
        async with Peer.connected(port) as peer:
            peer.raw(pings(2000))
            await hung_up(peer, ErrorCodes.ENHANCE_YOUR_CALM)
            assert peer.of(ConnectionTerminated)[-1].additional_data == b"too_many_pings"
        assert await echo(b"after") == b"after"
        assert server.counters.ping_floods == 1
        assert server.counters.connections == 2


async def test_a_settings_flood_counts_as_one() -> None:
    async with serving(Probe()) as (server, port), Peer.connected(port) as peer:
        peer.raw(settings(2000))
        await hung_up(peer, ErrorCodes.ENHANCE_YOUR_CALM)
        assert server.counters.ping_floods == 1


async def test_pings_that_follow_data_are_free() -> None:
    async with (
        serving(Probe(), limits=Limits(ping_budget=2)) as (server, port),
        Peer.connected(port) as peer,
    ):
        for _ in range(20):
            await peer.status(peer.call("/test.Probe/Echo"))
            peer.raw(pings(1))
        await peer.status(peer.call("/test.Probe/Echo"))
        assert server.counters.ping_floods == 0


async def test_rapid_reset_ends_only_its_connection_and_leaves_no_call() -> None:
    probe = Probe()
    limits = Limits(reset_budget=100)  # It refills while a slow machine reads on.
    async with serving(probe, limits=limits) as (server, port), channel(port) as client:
        echo = client.unary_unary("/test.Probe/Echo")
        await echo(b"before")
        async with Peer.connected(port) as peer:
            for _ in range(1100):
                call = peer.call("/test.Probe/Hold")
                peer.raw(RstStreamFrame(call, error_code=ErrorCodes.CANCEL).serialize())
            await hung_up(peer, ErrorCodes.ENHANCE_YOUR_CALM)
        await eventually(lambda: server.calls_open == 0 and probe.held == 0)
        assert server.counters.rapid_resets == 1
        assert await echo(b"after") == b"after"


async def test_resets_that_the_server_is_made_to_send_count_too() -> None:
    async with (
        serving(Probe(), limits=Limits(reset_budget=10)) as (server, port),
        Peer.connected(port) as peer,
    ):
        peer.raw(overflows(peer, 20))
        await hung_up(peer, ErrorCodes.ENHANCE_YOUR_CALM)
        assert server.counters.rapid_resets == 1


async def test_resets_of_answered_calls_are_free() -> None:
    async with (
        serving(Probe(), limits=Limits(reset_budget=1)) as (server, port),
        Peer.connected(port) as peer,
    ):
        for _ in range(10):
            call = peer.call("/test.Probe/Echo", end=False)
            assert (await peer.status(call))["grpc-status"] == "0"
            peer.raw(RstStreamFrame(call, error_code=ErrorCodes.NO_ERROR).serialize())
        assert (await peer.status(peer.call("/test.Probe/Echo")))["grpc-status"] == "0"
        assert server.counters.rapid_resets == 0


GARBAGE = {
    "http1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 20,
    "tls": bytes.fromhex("16030100ff010000fb0303") + bytes(250),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_closed_and_counted(data: bytes) -> None:
    async with serving(Probe(), limits=Limits(max_connections=1)) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        async with asyncio.timeout(30):
            await reader.read()
        writer.transport.abort()
        assert server.counters.connections_garbage == 1
        assert await served(port), "its place is free again"


BROKEN: dict[str, Callable[[], bytes]] = {
    "frame too long": lambda: (2**24 - 1).to_bytes(3) + bytes(6) + bytes(20_000),
    "data on stream 0": lambda: b"\0\0\1\0\0\0\0\0\0x",
    "broken hpack": lambda: HeadersFrame(1, data=b"\xff" * 9, flags=["END_HEADERS"]).serialize(),
    "data on an idle stream": lambda: DataFrame(9, data=b"x").serialize(),
    "endless headers": lambda: (
        HeadersFrame(1, data=b"").serialize() + ContinuationFrame(1, data=b"").serialize() * 100
    ),
    "window update of 0": lambda: b"\0\0\4\x08\0\0\0\0\0" + bytes(4),
}


@pytest.mark.parametrize("frames", BROKEN.values(), ids=BROKEN)
async def test_broken_frames_end_the_connection(frames: Callable[[], bytes]) -> None:
    async with serving(Probe()) as (server, port), Peer.connected(port) as peer:
        peer.raw(frames())
        await eventually(lambda: peer.ended)
        assert peer.of(ConnectionTerminated)
        assert server.counters.connections_garbage == 1


async def test_unknown_frames_are_ignored() -> None:
    async with serving(Probe()) as (_, port), Peer.connected(port) as peer:
        peer.raw(b"\0\0\6\x42\0\0\0\0\0grease")
        assert (await peer.status(peer.call("/test.Probe/Echo")))["grpc-status"] == "0"


async def test_a_header_bomb_ends_the_connection() -> None:
    limits = Limits(max_header_bytes=1000)
    async with serving(Probe(), limits=limits) as (server, port), Peer.connected(port) as peer:
        peer.call("/test.Probe/Echo", headers={"x-large": "y" * 5000})
        await hung_up(peer, ErrorCodes.ENHANCE_YOUR_CALM)
        assert server.counters.header_floods == 1


async def test_connections_beyond_the_limit_are_closed() -> None:
    limits = Limits(max_connections=2)
    async with serving(Probe(), limits=limits) as (server, port):
        async with (
            Peer.connected(port) as first,
            Peer.connected(port),
            Peer.connected(port) as last,
        ):
            await eventually(lambda: last.ended)
            assert (await first.status(first.call("/test.Probe/Echo")))["grpc-status"] == "0"
        assert server.counters.connections_refused == 1
        assert await served(port), "their places are free again"


async def test_a_half_open_client_is_dropped_and_its_calls_cancelled() -> None:
    probe = Probe()
    async with serving(probe, limits=SNAPPY) as (server, port), Peer.connected(port) as peer:
        peer.call("/test.Probe/Hold")
        await eventually(lambda: probe.held == 1)
        peer._task.cancel()  # it answers no ping any more
        await eventually(lambda: probe.cancelled == 1)
        assert server.counters.connections_timed_out == 1


async def test_a_client_that_never_speaks_is_dropped() -> None:
    async with serving(Probe(), limits=SNAPPY) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            while await reader.read(1000):
                pass
        writer.close()
        assert server.counters.connections_timed_out == 1


async def test_a_client_that_answers_pings_is_kept() -> None:
    probe = Probe()
    # Time to answer that a machine which stands still for a moment leaves too.
    limits = Limits(keepalive_interval=0.1, keepalive_timeout=1.0)
    async with serving(probe, limits=limits) as (server, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Hold")
        await eventually(lambda: probe.held == 1)
        (connection,) = server._state.connections
        for _ in range(3):
            heard = connection._heard_at
            await eventually(partial(_heard_since, connection, heard))
        probe.release.set()
        assert (await peer.status(call))["grpc-status"] == "0"
        assert server.counters.connections_timed_out == 0


async def test_a_client_that_leaves_in_peace_gets_its_answers() -> None:
    probe = Probe()
    async with serving(probe) as (_, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Hold")
        await eventually(lambda: probe.held == 1)
        peer.raw(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
        await eventually(lambda: bool(peer.of(ConnectionTerminated)))
        probe.release.set()
        # Its own h2 takes the server's GOAWAY for the end; the frames are there all the same.
        await eventually(lambda: peer.ended and probe.held == 0)
        assert call == 1
        assert probe.cancelled == 0


async def test_a_stream_after_the_last_goaway_is_refused() -> None:
    probe = Probe()
    async with serving(probe) as (server, port), Peer.connected(port) as peer:
        peer.call("/test.Probe/Hold")
        await eventually(lambda: probe.held == 1)
        (connection,) = server._state.connections
        connection._h2.refusing = True
        late = peer.call("/test.Probe/Echo")
        await eventually(lambda: bool(peer.of(StreamReset)))
        assert [(e.stream_id, e.error_code) for e in peer.of(StreamReset)] == [
            (late, ErrorCodes.REFUSED_STREAM)
        ]


async def test_1_byte_frames_take_no_memory_each() -> None:
    async with serving(Probe()) as (server, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Echo", framed(b"", length=2**20), end=False)
        peer.raw(DataFrame(call, data=b"x").serialize() * 50_000)
        await eventually(lambda: _buffered(server) == 50_000)


def _heard_since(connection: GrpcProtocol, time: float) -> bool:
    return connection._heard_at > time


def _buffered(server: GrpcServer) -> int:
    (connection,) = server._state.connections
    buffers = [stream.buffer for stream in connection.processor.streams.values()]
    return sum(len(buffer._data) for buffer in buffers if isinstance(buffer, InboundBuffer))


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    subprocess.run(
        [*command.split(), names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_mutual_tls(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    trusted = grpc.ssl_channel_credentials(
        certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )
    anonymous = grpc.ssl_channel_credentials(certificate.read_bytes())
    async with serving(Probe(), tls=context) as (_, port):
        target = f"localhost:{port}"
        async with grpc.aio.secure_channel(target, trusted) as client:
            held = client.unary_stream("/test.Probe/Hold")(b"")
            assert await held.read() == b"held"
            assert await client.unary_unary("/test.Probe/Echo")(b"x" * 10**6) == b"x" * 10**6
        async with grpc.aio.secure_channel(target, anonymous) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.unary_unary("/test.Probe/Echo")(b"x")
