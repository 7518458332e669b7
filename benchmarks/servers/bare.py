"""Bare grpclib: streams messages that are encoded already; nothing could cost less on it.

python -m benchmarks.servers.bare PORT_FILE MESSAGES STEP_MS
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, cast

import uvloop
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from millstream.v1 import inference_pb2 as pb

PATH = "/millstream.v1.Inference/Generate"


class Bytes(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Take it as it is."""
        data: bytes = message
        return data

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """Take it as it is."""
        return data


class Streamer:
    """Serves `Generate`: as many messages as tokens are asked for."""

    def __init__(self, messages: list[bytes], step: float) -> None:
        self._messages = messages
        self._step = step

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self.generate, Cardinality.UNARY_STREAM, bytes, bytes)}

    async def generate(self, stream: Stream[bytes, bytes]) -> None:
        """Stream one answer."""
        body = await stream.recv_message()
        count = pb.GenerateRequest.FromString(body or b"").sampling.max_tokens
        loop = asyncio.get_running_loop()
        due = loop.time()
        for message in self._messages[:count]:
            await stream.send_message(message)
            if self._step:
                due += self._step
                await asyncio.sleep(due - loop.time())


async def serve(port_file: Path, messages: list[bytes], step: float) -> None:
    """Serve until told to stop."""
    server = Server([Streamer(messages, step)], codec=Bytes())
    await server.start("127.0.0.1", 0)
    listener = cast(asyncio.Server, server._server)
    port = listener.sockets[0].getsockname()[1]
    port_file.write_text(f"127.0.0.1:{port}")  # noqa: ASYNC240  # Nothing else runs yet.
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    server.close()


def main() -> None:
    """Read the arguments and serve."""
    port_file, messages, step_ms = sys.argv[1:]
    encoded = [bytes.fromhex(text) for text in json.loads(Path(messages).read_text())]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(port_file), encoded, float(step_ms) / 1000))


if __name__ == "__main__":
    main()
