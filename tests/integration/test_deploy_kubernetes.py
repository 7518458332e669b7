"""What deploy/kubernetes gives to nats-server, and what KEDA would count there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from millstream.nats_server import find_binary
from shared import subjects
from shared.bus import Bus, BusOptions
from shared.streams import ensure_consumers, ensure_streams
from tests.eventually import until
from tests.integration.certificates import Authority
from tests.integration.secure_nats import ROLES
from tests.ports import free_ports
from workers.acks import ACK

ROOT = Path(__file__).parents[2]
NATS = ROOT / "deploy" / "nats"
KUBERNETES = ROOT / "deploy" / "kubernetes"
MODEL = "Qwen/Qwen3-8B"


def public_key() -> str:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode())


def mounted(folder: Path, *parts: str, here: dict[str, str]) -> None:
    """The folder that the pod has: what is merged later wins."""
    sources = [NATS, *(KUBERNETES / part for part in parts)]
    for source in sources:
        for file in source.glob("*.conf"):
            text = file.read_text()
            for there, instead in here.items():
                text = text.replace(there, instead)
            (folder / file.name).write_text(text)


@pytest.mark.parametrize("start", ["server.conf", "monitored.conf"])
def test_a_secure_server_takes_its_configuration(tmp_path: Path, start: str) -> None:
    Authority(tmp_path / "tls").issue("server")
    here = {"/etc/millstream/tls": str(tmp_path / "tls"), "/data": str(tmp_path / "data")}
    mounted(tmp_path, "base", "components/secure", "components/autoscale", here=here)
    told = subprocess.run(
        [find_binary(), "-t", "--config", str(tmp_path / start)],
        capture_output=True,
        text=True,
        env={**os.environ, **{f"{role.upper()}_NKEY": public_key() for role in ROLES}},
    )
    assert told.returncode == 0, told.stderr


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return dict(json.load(reply))


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """A server with the folder's monitored.conf; gives its log."""
    told = folder / "log"
    with told.open("wb") as log:
        server = subprocess.Popen(
            [find_binary(), "--config", str(folder / "monitored.conf")], stdout=log, stderr=log
        )
    try:
        yield told
    finally:
        server.terminate()
        server.wait(10)


async def counted(port: int) -> list[int]:
    """What waits for the model, class by class, as KEDA's scaler reads and adds it up."""
    url = f"http://127.0.0.1:{port}/jsz?acc=APP&consumers=true&config=true"
    (account,) = (await asyncio.to_thread(fetch, url))["account_details"]
    assert account["name"] == "APP"
    counts = {
        (found["name"], consumer["name"]): consumer["num_pending"] + consumer["num_ack_pending"]
        for found in account["stream_detail"]
        for consumer in found["consumer_detail"]
    }
    return [
        counts[subjects.stream_of(urgency), subjects.consumer(MODEL, urgency)]
        for urgency in range(len(subjects.CLASSES))
    ]


async def test_what_waits_is_told_where_keda_looks_and_what_runs_is_not(tmp_path: Path) -> None:
    client, monitor = free_ports(2)
    here = {
        "0.0.0.0:4222": f"127.0.0.1:{client}",
        "0.0.0.0:8222": f"127.0.0.1:{monitor}",
        "/data": str(tmp_path / "data"),
    }
    mounted(tmp_path, "base", "components/autoscale", here=here)
    with running(tmp_path) as log:
        await until(lambda: b"Server is ready" in log.read_bytes(), "nats-server is ready")
        bus = Bus(BusOptions((f"nats://127.0.0.1:{client}",), "test"))
        await bus.start()
        await ensure_streams(bus)
        await ensure_consumers(bus, MODEL)
        for _ in range(3):
            await bus.client.jetstream().publish(subjects.request(MODEL, 2), b"x")
        async with asyncio.timeout(5):
            while await counted(monitor) != [0, 0, 3, 0]:  # Consumers count after the answer.
                pass
        following = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.STREAM}.{subjects.consumer(MODEL, 2)}"
        taken = await bus.client.request(following, b'{"batch":1}', timeout=5, old_style=True)
        assert await counted(monitor) == [0, 0, 3, 0]
        await bus.client.request(taken.reply, ACK, timeout=5)  # As when a claim is granted.
        assert await counted(monitor) == [0, 0, 2, 0]
        await bus.close()
