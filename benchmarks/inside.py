"""A gateway in one process without sockets, for callgrind: what a request and a token cost in code.

The real connection, HTTP/2, door, session, router, link and NATS parser, between two transports
that only count. The worker's part is played by frames as the broker would deliver them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, cast

from hpack import Encoder
from nats.aio.client import Client

import gateway.outlet
from benchmarks.http2 import frame
from gateway.access import Access
from gateway.access.guard import guard
from gateway.catalog import Catalog
from gateway.door import Door
from gateway.grpc.connection import GrpcProtocol
from gateway.link import Link
from gateway.server import GrpcServer
from gateway.service import InferenceService
from gateway.typed.calls import Calls
from millstream.v1 import inference_pb2 as pb
from shared import wire
from shared.bus import Bus, BusOptions
from shared.ready import loop_factory

_ASKED = re.compile(rb"HPUB \S+ (\S+) .*?Nats-Msg-Id: ([0-9A-Z]+)\.0", re.DOTALL)
_ACKED = b'{"stream":"MS_REQ", "seq":7}'
CARD = wire.ModelCard("sim", "sim", 4096, 32000, "none", "sim", ("resume",), 1024)

Loads: TypeAlias = dict[str, Callable[[int], Coroutine[Any, Any, None]]]
"""By name, what makes so many calls."""


class Sink(asyncio.Transport):
    """Takes everything and keeps it until it is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def take(self) -> bytes:
        """What was written since the last time."""
        written, self.written = b"".join(self.written), []
        return written

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Everything is sent at once."""
        return 0

    def close(self) -> None:
        """Stay open: no load ends its connection."""

    def abort(self) -> None:
        """Stay open: a client that only listens leaves pings unanswered, in a run of 15 s too."""


class Inside:
    """One gateway, one client connection and one worker; needs a running loop."""

    def __init__(self) -> None:
        gateway.outlet.BEGIN_WITHIN = 3600.0  # Headers go with the first token on any machine.
        self._bus = Bus(BusOptions(("nats://nowhere",), "gw"))
        link = Link(self._bus, "gw", max_queue=1000, queue_seconds=60.0)
        link.ready = True
        client = self._bus.client
        self._nats = Sink()
        client._status = Client.CONNECTED
        client._transport = cast(Any, self._nats)
        self._bus._inbox = "_INBOX.bench"
        handlers = {"": self._bus._on_reply, **dict(self._bus._listeners)}
        self._sids = dict(zip(handlers, range(1, 100), strict=False))
        sids = [b"%d" % sid for sid in self._sids.values()]
        client.handlers = dict(zip(sids, handlers.values(), strict=True))
        link.router.on_announce(wire.Announce("w", 1, "w", "ready", "sim", CARD))
        catalog = Catalog(link.router.fleet)
        access = Access(None)
        door = Door("gw", link, catalog, access)
        calls = Calls(door, catalog)
        self._server = GrpcServer([InferenceService(door, link, catalog, calls, lambda _: "")])
        guard(self._server, access)
        self._protocol = GrpcProtocol(self._server._state)
        self._socket = Sink()
        self._protocol.connection_made(self._socket)
        opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\4\x7f\xff\xff\xff")
        window = frame(8, 0, 0, (2**31 - 1 - 65535).to_bytes(4))
        self._protocol.data_received(opening + window)
        encoder = Encoder()
        headers = [
            (":method", "POST"), (":scheme", "http"),
            (":path", "/millstream.v1.Inference/Generate"), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        self._headers = [encoder.encode(headers), encoder.encode(headers)]
        request = pb.GenerateRequest(model="sim", prompt="p")
        request.sampling.max_tokens = 1
        body = request.SerializeToString()
        self._body = b"\0" + len(body).to_bytes(4) + body
        self._stream = 1
        self._exec = 1 << 31

    async def begin(self, count: int) -> list[tuple[str, int]]:
        """Call, be claimed, begin: `count` requests in one read. Returns their ids and execs."""
        asked = b""
        for _ in range(count):
            block = self._headers[self._stream > 1]
            asked += frame(1, 0x4, self._stream, block) + frame(0, 0x1, self._stream, self._body)
            self._stream += 2
        self._protocol.data_received(asked)
        await _turns()
        found = []
        acks, said = b"", b""
        for inbox, ulid in _ASKED.findall(self._nats.take()):
            self._exec += 1
            found.append((ulid.decode(), self._exec))
            acks += _message(inbox, self._sids[""], _ACKED)
            said += self.said(found[-1], wire.encode(wire.Claim(0, self._exec, "w", 0)))
            begun = wire.Begun(0, self._exec, b"\0\0\0\1", 0, "sim")
            said += self.said(found[-1], wire.encode(begun))
        assert len(found) == count
        await self.deliver(acks)
        await self.deliver(said)
        return found

    def said(self, request: tuple[str, int], frame_: bytes) -> bytes:
        """What the broker delivers of a frame on a request's subject."""
        subject = b"ms.rep.gw." + request[0].encode()
        return _message(subject, self._sids["ms.rep.gw.*"], frame_)

    async def deliver(self, data: bytes) -> None:
        """One read of the NATS connection."""
        await self._bus.client._ps.parse(data)
        await _turns()

    async def request(self, count: int = 1) -> bytes:
        """So many requests of one token from call to trailers; what the client gets."""
        before = self._server.calls_open
        said = b""
        for one in await self.begin(count):
            said += self.said(one, _token(one[1], 0))
            said += self.said(one, wire.encode(wire.Done(0, one[1], (1,), ("length",), 1)))
        await self.deliver(said)
        answer = self._socket.take()
        assert self._server.calls_open == before
        return answer

    async def token(self, requests: list[tuple[str, int]], index: int) -> bytes:
        """The next token of each of these, in one read; what their client gets."""
        await self.deliver(b"".join([self.said(one, _token(one[1], index)) for one in requests]))
        return self._socket.take()


async def _turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def _token(exec_: int, index: int) -> bytes:
    """As a worker says it."""
    ready = wire.encode_token(exec_, index, 300, " 300") if index else None
    return ready or wire.encode_chunk(0, exec_, index, [300], " 300", None, 0, None)


def _message(subject: bytes, sid: int, payload: bytes) -> bytes:
    return b"MSG %b %d %d\r\n%b\r\n" % (subject, sid, len(payload), payload)


async def requests(calls: int) -> None:
    """Requests of one token, one after the other."""
    inside = Inside()
    for _ in range(calls):
        await inside.request()


async def bursts(calls: int) -> None:
    """Requests of one token, 64 at once."""
    inside = Inside()
    for _ in range(calls // 64):
        await inside.request(64)


async def tokens(calls: int) -> None:
    """Tokens of 64 paced streams, one a message."""
    inside = Inside()
    streams = await inside.begin(64)
    for index in range(calls // 64):
        await inside.token(streams, index)


LOADS: Loads = {
    "gateway.request": requests, "gateway.burst": bursts, "gateway.token": tokens,
}  # fmt: skip


def cpu(name: str, calls: int, loads: Loads = LOADS) -> float:
    """CPU microseconds a call of one of these loads."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(loads[name](min(calls, 256)))
        began = time.process_time()
        runner.run(loads[name](calls))
        return (time.process_time() - began) / calls * 1e6
