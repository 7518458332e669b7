"""BlazeRPC: a streaming model that yields messages encoded already. Runs in BlazeRPC's own venv.

python benchmarks/servers/blaze.py PORT_FILE MESSAGES STEP_MS
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvloop
from blazerpc import BlazeApp  # type: ignore[import-not-found]

MESSAGES: list[bytes] = []
STEP = 0.0


async def tokens(count: int) -> Any:
    """Stream as many messages as tokens are asked for."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for message in MESSAGES[:count]:
        yield message
        if STEP:
            due += STEP
            await asyncio.sleep(due - loop.time())


async def serve(app: Any, port_file: Path) -> None:
    """Serve until told to stop, and say where once it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serving = asyncio.create_task(app.serve("127.0.0.1", port))
    while not await _listens(port):  # noqa: ASYNC110  # It does not say when.
        await asyncio.sleep(0.02)
    port_file.write_text(f"127.0.0.1:{port}")  # noqa: ASYNC240  # Nothing else runs yet.
    await serving


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def main() -> None:
    """Read the arguments and serve."""
    global STEP
    port_file, messages, step_ms = sys.argv[1:]
    MESSAGES.extend(bytes.fromhex(text) for text in json.loads(Path(messages).read_text()))
    STEP = float(step_ms) / 1000
    # The annotation says what one message is: BlazeRPC 2.2.1 breaks on `AsyncIterator[bytes]`.
    tokens.__annotations__ = {"count": int, "return": bytes}
    app = BlazeApp("bench", enable_batching=False)
    app.model("tokens", streaming=True)(tokens)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(app, Path(port_file)))


if __name__ == "__main__":
    main()
