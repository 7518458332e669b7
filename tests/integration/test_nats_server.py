from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from millstream.nats_server import NatsServer, NatsServerError
from shared import subjects

CHILD = """
import asyncio, sys, nats
async def stay():
    await nats.connect(sys.argv[1], name="worker-x")
    print("connected", flush=True)
    await asyncio.Event().wait()
asyncio.run(stay())
"""


async def test_data_and_port_outlive_a_crash(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        url = server.url
        client = await nats.connect(url)
        assert client.max_payload == 8 * 1024 * 1024
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", b"1")
        await client.close()
        server.kill()
        assert not server.running
        server.start()
        assert server.url == url
        client = await nats.connect(url)
        assert (await client.jetstream().stream_info("S")).state.messages == 1
        await client.close()
    assert not server.running


async def test_the_death_of_a_connection_is_told_with_its_name(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        told: asyncio.Queue[str] = asyncio.Queue()

        async def on_disconnect(message: Msg) -> None:
            told.put_nowait(json.loads(message.data)["client"]["name"])

        client = await nats.connect(server.url)
        await client.subscribe(subjects.DISCONNECTS, cb=on_disconnect)
        await client.flush()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, server.url, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"connected\n"
        child.kill()
        await child.wait()
        assert await asyncio.wait_for(told.get(), 30) == "worker-x"
        await client.close()


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = NatsServer(tmp_path / "a", port=taken.getsockname()[1])
        with pytest.raises(NatsServerError, match="address already in use"):
            server.start()
    with pytest.raises(NatsServerError, match="Parse error"):
        NatsServer(tmp_path / "b", extra="nonsense: {").start()
