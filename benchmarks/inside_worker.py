"""A worker in one process without sockets, for callgrind: what a request and a token cost in code.

The real runner with its ledger, speaker, publisher, intake, bus and NATS parser, before a transport
that only keeps what is written. Gateway, broker and engine are played: frames arrive as the broker
would deliver them, outputs go to the sink directly, and time passes only where a load says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest.mock import patch

from nats.aio.client import Client
from structlog.testing import capture_logs

from benchmarks.inside import Loads, Sink
from benchmarks.played import ANY, BOOT, Clock, DrivenEngine, Stream, each, said
from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.natsparser import Handler
from shared.ready import calm_collector
from workers.engines.base import Output
from workers.runner import Runner
from workers.settings import WorkerSettings

PACED, FREE = 0.02, 0.00025
"""Seconds between two steps of the engine."""
ACKNOWLEDGED = 25
"""Steps after which the gateway says what it has: at `PACED`, those between two digests."""
_PULL = re.compile(rb"PUB \$JS\.API\.CONSUMER\.MSG\.NEXT\S+ (\S+) \d+\r\n(.*?)\r\n")
_SAID = re.compile(rb"PUB \S+  (\d+)\r\n")


class Inside:
    """One worker, one gateway and the broker between them; `worker` makes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._engine = DrivenEngine()
        self._nats = Sink()
        self._bus = Bus(BusOptions(("nats://nowhere",), "w"))
        client = self._client = self._bus.client
        client._status = Client.CONNECTED
        client._transport = cast(Any, self._nats)
        client._loop = cast(Any, clock)
        cast(Any, client).listen = self._listen
        self._sids: dict[str, int] = {}
        settings = WorkerSettings.model_validate({"name": "w", "engine": "sim"})
        self._runner = Runner(
            settings, self._engine, self._bus, model="sim", died=lambda: None, boot=BOOT
        )
        self._runner._loop = cast(Any, clock)
        self._opened = self._given = self._heard = 0
        self.messages = 0

    async def start(self) -> None:
        """Load, and answer the pulls that do not wait: the queues are empty."""
        for subject, handler in self._bus._listeners:
            await self._listen(subject, handler)
        self._bus._set_connected()
        with capture_logs():
            await self._runner.load()
        inbox = next(subject for subject in self._sids if subject.startswith("_INBOX"))
        self._make_templates(inbox)
        while pulls := _PULL.findall(await self._turn()):
            for reply in [reply.decode() for reply, body in pulls if b"no_wait" in body]:
                await self.deliver(self._message(inbox, reply, b"", b"NATS/1.0 404 None\r\n\r\n"))
        beat = wire.encode(wire.GatewayBeat("gw"))
        await self.deliver(self._message(subjects.GATEWAY_BEATS, "ms.gwhb.gw", beat))

    def _make_templates(self, inbox: str) -> None:
        id_, exec_ = ANY.id.decode(), ANY.number
        token = "$JS.ACK.MS_REQ.sim_standard.1.7.7.1764000000000000000.0"
        sampling = wire.Sampling(max_tokens=1)
        asked = wire.Request(id_, 0, "gw", "r", "sim", "p", None, None, sampling, ready=True)
        body = wire.encode(asked)
        headers = f"NATS/1.0\r\nNats-Msg-Id: {id_}.0\r\nMs-Gateway: gw\r\nMs-Deaths: 0\r\n\r\n"
        subject = subjects.request("sim", 2)
        self._request = self._message(inbox, subject, body, headers.encode(), token)
        self._go = self._told(wire.Go(exec_, None))
        self._closed = self._told(wire.Closed((exec_,)))
        self._acked = f"PUB {token}  4\r\n+ACK\r\n".encode()
        self._claim = said(wire.Claim(0, exec_, self._runner.worker, 0))
        self._begun = said(wire.Begun(0, exec_, b"\1\0\0\0", 0, "sim"))
        chunk = said(wire.Chunk(0, exec_, 0, (300,), " 300"))
        done = said(wire.Done(0, exec_, (1,), ("length",), 1))
        self._answer = self._acked + self._begun + chunk + done

    async def _listen(self, subject: str, handler: Handler) -> None:
        self._sids[subject] = len(self._sids) + 1
        self._client.handlers[b"%d" % self._sids[subject]] = handler

    def _message(
        self, listener: str, subject: str, data: bytes, headers: bytes = b"", reply: str = ""
    ) -> bytes:
        """What the broker delivers to who listens to `listener`."""
        kind, head = ("HMSG", f"{len(headers)}") if headers else ("MSG", "")
        fields = (kind, subject, f"{self._sids[listener]}", reply, head, f"{len(headers + data)}")
        line = " ".join([field for field in fields if field])
        return b"%b\r\n%b%b\r\n" % (line.encode(), headers, data)

    def _told(self, frame: wire.Frame) -> bytes:
        subject = subjects.control(self._runner.worker)
        return self._message(subject, subject, wire.encode(frame))

    async def deliver(self, data: bytes) -> None:
        """One read of the NATS connection."""
        await self._client._ps.parse(data)

    async def _turn(self) -> bytes:
        for _ in range(2):  # What one turn sends is written at the end of the next.
            await asyncio.sleep(0)
        return self._nats.take()

    async def written(self) -> bytes:
        """What the worker wrote since the last time, its pulls left out."""
        return _PULL.sub(b"", await self._turn())

    async def take(self, count: int) -> list[Stream]:
        """So many requests arrive in one read, are claimed and bound."""
        ids = [b"%026d" % number for number in range(self._opened + 1, self._opened + 1 + count)]
        self._opened += count
        await self.deliver(b"".join([self._request.replace(ANY.id, id_) for id_ in ids]))
        jobs, self._engine.jobs = [job.id for job in self._engine.jobs], []
        streams = [Stream(id_, job, job.to_bytes(8)) for id_, job in zip(ids, jobs, strict=True)]
        assert await self.written() == each(streams, self._claim)
        await self.deliver(each(streams, self._go))
        return streams

    async def request(self) -> None:
        """One request of one token, from its message to the end of its record."""
        streams = await self.take(1)
        output = Output(streams[0].number, [300], " 300", [4], None, 0, "length", None, (1,), 0, 1)
        self._engine.sink([output])
        await self._close(streams, self._answer)

    async def open(self, count: int) -> list[Stream]:
        """So many requests begin."""
        streams = await self.take(count)
        self._engine.sink([Output(s.number, [], "", [], prompt_ids=(1,)) for s in streams])
        assert await self.written() == each(streams, self._acked) + each(streams, self._begun)
        return streams

    async def step(self, streams: Sequence[Stream], seconds: float) -> None:
        """The engine's next step, so long after the last: a token of each."""
        self._clock.advance(seconds)
        token = 300 + self._given
        text = f" {token}"
        self._given += 1
        self._engine.sink([Output(s.number, [token], text, [len(text)]) for s in streams])
        await self._hear(streams)
        if self._given % ACKNOWLEDGED == 0:
            acked = tuple([(stream.number, (self._heard,)) for stream in streams])
            await self.deliver(self._told(wire.DigestReply("gw", 1, (), acked, ())))
            assert self._runner.ledger.kept == (self._given - self._heard) * len(streams)

    async def end(self, streams: Sequence[Stream]) -> None:
        """All end, once what is held back was said."""
        for _ in range(8):
            self._clock.advance(PACED)
            await self._hear(streams)
        given = self._given
        assert self._heard == given
        self._engine.sink([
            Output(s.number, [], "", [], finish="length", completion_tokens=given) for s in streams
        ])  # fmt: skip
        await self._close(streams, said(wire.Done(0, ANY.number, (given,), ("length",), given)))

    async def _hear(self, streams: Sequence[Stream]) -> None:
        """Check that all said the same, and went on where they were."""
        written = await self.written()
        if not written:
            return
        share = written[: len(written) // len(streams)]
        any_ = share.replace(streams[0].id, ANY.id).replace(streams[0].exec, ANY.exec)
        assert written == each(streams, any_)
        at = 0
        while at < len(share):
            line = _SAID.match(share, at)
            assert line is not None
            at = line.end() + int(line[1]) + 2
            chunk = wire.decode(share[line.end() : at - 2])
            assert isinstance(chunk, wire.Chunk) and chunk.index == self._heard
            tokens = tuple(range(300 + chunk.index, 300 + chunk.stop))
            assert chunk.token_ids == tokens
            assert chunk.text == "".join([f" {token}" for token in tokens])
            self._heard = chunk.stop
            self.messages += len(streams)

    async def _close(self, streams: Sequence[Stream], last: bytes) -> None:
        """Check the last words of all; then their records end, and nothing is left of them."""
        assert await self.written() == each(streams, last)
        await self.deliver(each(streams, self._closed))
        ledger = self._runner.ledger
        assert not ledger.execs and not ledger.running and not ledger.kept and not ledger.events
        assert not self._client.events


async def _exist(*_arguments: object, **_options: object) -> None:
    """Streams and consumers are there."""


@asynccontextmanager
async def worker() -> AsyncIterator[Inside]:
    """A worker that pulls, its garbage collector as calm as in its own process."""
    clock = Clock()
    with (
        patch.multiple(
            "workers.intake", time=clock, ensure_streams=_exist, ensure_consumers=_exist
        ),
        patch("workers.runner.time", clock),
    ):
        inside = Inside(clock)
        await inside.start()
        calm_collector()
        yield inside


async def requests(calls: int) -> None:
    """Requests of one token, one after the other."""
    async with worker() as inside:
        for _ in range(calls):
            await inside.request()


async def tokens(calls: int) -> None:
    """Tokens of 64 paced streams, one a message."""
    assert await _streams(calls // 64, PACED) == calls // 64 * 64


async def free(calls: int) -> None:
    """Tokens of 64 streams that come faster than they are sent: about 32 a message."""
    assert await _streams(calls // 64, FREE) <= 64 * (calls // 64 // 8 + 2)


async def _streams(steps: int, seconds: float) -> int:
    """So many steps of 64 streams; the messages that they took."""
    async with worker() as inside:
        streams = await inside.open(64)
        for _ in range(steps):
            await inside.step(streams, seconds)
        await inside.end(streams)
        return inside.messages


LOADS: Loads = {"worker.request": requests, "worker.token": tokens, "worker.free": free}
