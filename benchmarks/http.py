"""CPU time a token costs the gateway as server-sent events: `python -m benchmarks.http`.

64 streams of /v1/chat/completions, free-running and at 20 ms a token, against a real stack with
the sim engine. A figure is the median of five runs; CPU time is what the kernel accounts to the
gateway's process. Every answer is checked after its run: all tokens, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.accounting import commit, cpu_seconds, hardware, now, versions
from benchmarks.systems import Millstream

RUNS = 5
STREAMS = 64
LIMIT = 120.0


class HttpMillstream(Millstream):
    """The stack with HTTP served too.

    Attributes:
        http_address: Where, as host and port.
    """

    name = "millstream-http"
    http_address: tuple[str, int] = ("", 0)

    def _spawn(self, role: str, command: Sequence[str]) -> Path:
        if role == "gateway":
            command = [*command, "--http-host", "127.0.0.1", "--http-port", "0"]
        return super()._spawn(role, command)

    def _await(self, role: str, ready: Path) -> str:
        said = super()._await(role, ready)
        if role != "gateway":
            return said
        grpc, http = said.split()
        host, port = http.rsplit(":", 1)
        self.http_address = (host, int(port))
        return grpc


@dataclass(frozen=True, slots=True)
class Figure:
    """One mode's medians.

    Attributes:
        mode: free or paced.
        cpu_us: Microseconds of the gateway's CPU a token.
        writes: Chunks of the response body a token.
        tokens_per_second: Over all streams.
        ttft_ms: Median over streams, from the request to the first event.
    """

    mode: str
    cpu_us: float
    writes: float
    tokens_per_second: float
    ttft_ms: float


class _Stream(asyncio.Protocol):
    """One request on a connection of its own; keeps the bytes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.data = bytearray()
        self.began = self.first = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.began = time.perf_counter()
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep what comes."""
        if not self.first:
            self.first = time.perf_counter()
        self.data += data
        if self.data.endswith(b"0\r\n\r\n") and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server may close after the answer, and not before."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the answer is cut off"))

    def chunks(self) -> list[bytes]:
        """The chunks of the body."""
        place = self.data.index(b"\r\n\r\n") + 4
        found: list[bytes] = []
        while True:
            end = self.data.index(b"\r\n", place)
            size = int(self.data[place:end], 16)
            if not size:
                return found
            found.append(bytes(self.data[end + 2 : end + 2 + size]))
            place = end + size + 4

    def check(self, tokens: int) -> None:
        """Fail unless the answer holds all tokens in order."""
        events = b"".join(self.chunks()).decode().split("\n\n")
        texts = [
            choice["delta"].get("content", "")
            for event in events[:-2]
            for choice in json.loads(event.removeprefix("data: "))["choices"]
        ]
        if "".join(texts) != "".join(f" {token}" for token in range(tokens)):
            raise RuntimeError(f"wrong answer: {''.join(texts)[:200]!r}")


async def _load(address: tuple[str, int], streams: int, tokens: int) -> list[_Stream]:
    body = json.dumps(
        {
            "model": "sim",
            "messages": [{"role": "user", "content": "p"}],
            "max_tokens": tokens,
            "stream": True,
        }
    )
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(
        *(loop.create_connection(lambda: _Stream(request), *address) for _ in range(streams))
    )
    running = [stream for _, stream in made]
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(stream.done for stream in running))
    return running


def measure(mode: str, *, step_ms: float, tokens: int, runs: int = RUNS) -> Figure:
    """Run one mode against a stack of its own."""
    costs, writes, rates, ttfts = [], [], [], []
    with (
        tempfile.TemporaryDirectory() as scratch,
        HttpMillstream(Path(scratch), step_ms) as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_load(stack.http_address, STREAMS, 16))  # Imports and caches are warm after it.
        for _ in range(runs):
            before, began = cpu_seconds(stack.pids["gateway"]), time.perf_counter()
            streams = runner.run(_load(stack.http_address, STREAMS, tokens))
            took = time.perf_counter() - began
            spent = cpu_seconds(stack.pids["gateway"]) - before
            for stream in streams:
                stream.check(tokens)
            total = STREAMS * tokens
            costs.append(spent / total * 1e6)
            writes.append(sum(len(stream.chunks()) for stream in streams) / total)
            rates.append(total / took)
            ttfts.append(statistics.median(s.first - s.began for s in streams) * 1e3)
    middle = statistics.median
    return Figure(mode, middle(costs), middle(writes), middle(rates), middle(ttfts))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both modes and print a table, or JSON with the machine and versions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tokens", type=int, default=1000, help="of each free-running answer")
    arguments = parser.parse_args(argv)
    figures = [
        measure("free", step_ms=0.0, tokens=arguments.tokens),
        measure("paced", step_ms=20.0, tokens=150),
    ]
    if arguments.json:
        facts = {"at": now(), "commit": commit(), "hardware": hardware(), "versions": versions()}
        print(json.dumps({**facts, "figures": [asdict(figure) for figure in figures]}, indent=2))
        return 0
    print("| mode | CPU us/token | writes/token | tokens/s | TTFT p50 ms |")
    print("|---|---|---|---|---|")
    for one in figures:
        print(
            f"| {one.mode} | {one.cpu_us:.1f} | {one.writes:.2f} "
            f"| {one.tokens_per_second:.0f} | {one.ttft_ms:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
