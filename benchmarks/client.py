"""The load client, a process of its own: takes orders on stdin, answers on stdout.

Every answer is kept as bytes while the load runs; then it says "ended", so that whoever measures
reads the clocks, and only then checks that each answer holds the tokens 0 to n-1 in order.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import uvloop

from benchmarks.http2 import Answer, Http2Client, messages
from benchmarks.loads import Load, Order, Outcome
from millstream.v1 import inference_pb2 as pb

WAVE_PAUSE = 0.01
RAMP = 100
LIMIT = 60.0


class WrongAnswer(Exception):
    """An answer failed, or its tokens are not those that were due."""


class Driver:
    """Carries out one load.

    Args:
        order: What to do.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._load = order.load
        self._request = bytes.fromhex(order.request)
        self._clients: list[Http2Client] = []
        self._unsent = 0
        self._open = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[list[Answer], float]:
        """Connect and call until all requests are answered; returns answers and CPU seconds.

        Raises:
            WrongAnswer: A call failed.
        """
        try:
            async with asyncio.timeout(LIMIT):
                await self._connect()
                began = time.process_time()
                self._unsent = self._load.requests
                self._wave()
                await self._done
                spent = time.process_time() - began
        except TimeoutError:
            raise WrongAnswer(f"{self._open + self._unsent} answers not after {LIMIT} s") from None
        finally:
            for client in self._clients:
                client.close()
        return self._checked(), spent

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            _, client = await loop.create_connection(
                lambda: Http2Client(self._order.path, self._on_end),
                self._order.host,
                self._order.port,
            )
            await client.ready
            self._clients.append(client)

    def _wave(self) -> None:
        """Send as many requests as may be in flight, a write for each connection."""
        count = min(self._load.concurrency - self._open, self._unsent)
        if self._load.ramp_ms and count > RAMP:
            count = RAMP
            asyncio.get_running_loop().call_later(self._load.ramp_ms / 1e3, self._wave)
        self._unsent -= count
        self._open += count
        share, over = divmod(count, len(self._clients))
        for place, client in enumerate(self._clients):
            if size := share + (place < over):
                client.call(self._request, size)

    def _on_end(self, _answer: Answer) -> None:
        self._open -= 1
        if self._unsent and not self._load.waves:
            self._unsent -= 1
            self._open += 1
            self._clients[self._unsent % len(self._clients)].call(self._request)
        elif not self._open and self._unsent:
            asyncio.get_running_loop().call_later(WAVE_PAUSE, self._wave)
        elif not self._open:
            self._done.set_result(None)

    def _checked(self) -> list[Answer]:
        answers: list[Answer] = []
        for client in self._clients:
            for stream, status in client.statuses().items():
                if status != "0":
                    raise WrongAnswer(f"stream {stream} ended with gRPC status {status}")
            answers.extend(client.answers.values())
        if any(answer.reset for answer in answers):
            raise WrongAnswer("a stream was reset")
        return answers


def examine(
    answers: list[Answer], load: Load, wrapped: bool
) -> tuple[int, int, list[float], list[float]]:
    """Check every token and take the times.

    Returns:
        Messages and frames that carried tokens, the times to first token, and by how much the gap
        before each later token exceeds the pace; all in milliseconds.

    Raises:
        WrongAnswer: A token is missing, doubled or out of order.
    """
    count = frames = 0
    first: list[float] = []
    late: list[float] = []
    for answer in answers:
        following = 0
        before = 0.0
        frames += len(answer.frames)
        for now, body in messages(answer.frames, answer.times):
            event = pb.GenerateResponse.FromString(_unwrapped(body) if wrapped else body)
            if event.WhichOneof("event") != "delta":
                continue
            ids = event.delta.token_ids
            if event.delta.index != following or list(ids) != [
                *range(following, following + len(ids))
            ]:
                raise WrongAnswer(f"token {following} was due, {event.delta} came")
            if following == 0:
                first.append((now - answer.sent_at) * 1e3)
            elif load.pace_ms:
                late.append(max(0.0, (now - before) * 1e3 - load.pace_ms))
            before = now
            following += len(ids)
            count += 1
        if following != load.tokens:
            raise WrongAnswer(f"an answer has {following} tokens and not {load.tokens}")
    return count, frames, first, late


def _unwrapped(body: bytes) -> bytes:
    """The content of field 1, which is shorter than 128 bytes."""
    if body[0] != 0x0A or body[1] != len(body) - 2:
        raise WrongAnswer(f"not one short field: {body[:20]!r}")
    return body[2:]


async def carry_out(order: Order) -> Outcome:
    """Run a load, say "ended", then check it."""
    answers, spent = await Driver(order).run()
    print("ended", flush=True)
    load = order.load
    count, frames, first, late = examine(answers, load, order.wrapped)
    seconds = max(a.ended_at or 0.0 for a in answers) - min(a.sent_at for a in answers)
    return Outcome(load.requests * load.tokens, count, frames, seconds, first, late, spent)


def main() -> int:
    """Carry out orders until stdin ends."""
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            try:
                print(runner.run(carry_out(Order.parse(line))).line(), flush=True)
            except (WrongAnswer, OSError, ValueError) as error:
                print(f"failed {error!r}", flush=True)
                return 1
            gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
