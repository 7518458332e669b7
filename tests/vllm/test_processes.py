"""Two workers with vLLM as processes behind a gateway: adapters by name, and a worker's death."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from grpclib.client import Channel

from millstream.channel import told
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub
from shared.errors import InvalidRequest
from tests.e2e.running import lives
from tests.faults.harness import Cluster, until
from tests.vllm.shared import descendants, make_adapter
from workers import bundled

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = 240.0
TOKENS = 120
STREAMS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.0, "adapter": "loud"},
    {"temperature": 0.9, "top_p": 0.95, "seed": 7},
    {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
]


@dataclass(slots=True)
class Heard:
    """An answer as it came."""

    text: str = ""
    tokens: int = 0
    attempts: int = 0
    worker: str = ""


async def listen(cluster: Cluster, heard: Heard, adapter: str = "", **sampling: Any) -> str:
    """Ask, and note down the answer; its text."""
    host, port = cluster.targets["g0"].rsplit(":", 1)
    request = pb.GenerateRequest(prompt="Once upon a time", adapter=adapter)
    for name, value in {"max_tokens": TOKENS, "ignore_eos": True, **sampling}.items():
        setattr(request.sampling, name, value)
    async with (
        Channel(host, int(port)) as channel,
        told(cluster.targets["g0"]),
        InferenceStub(channel).Generate.open() as stream,
    ):
        await stream.send_message(request, end=True)
        async for reply in stream:
            heard.worker = reply.started.worker.rsplit("-", 1)[0] or heard.worker
            heard.text += reply.delta.text
            heard.tokens += len(reply.delta.token_ids)
            heard.attempts = reply.finished.attempts or heard.attempts
    return heard.text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    base = tmp_path_factory.mktemp("processes")
    loud = make_adapter(base / "loud", rank=12, scale=0.5)
    silent = make_adapter(base / "silent", rank=4, scale=0.0)
    flags = (
        "--engine", "vllm", "--model", str(bundled.PATH), "--served-name", "tiny",
        "--dtype", "float32", "--context-length", "256", "--max-batch", "16",
        "--engine-arg", "enforce_eager=true",
        "--engine-arg", f"lora_modules=loud={loud},silent={silent}",
    )  # fmt: skip
    async with Cluster(base, engine=(), worker_flags=flags, patience=START) as running:
        yield running


async def test_an_adapter_is_chosen_by_name(cluster: Cluster) -> None:
    plain, loud, silent = [
        await listen(cluster, Heard(), adapter, temperature=0.0)
        for adapter in ("", "loud", "silent")
    ]
    assert silent == plain
    assert loud != plain
    (model,) = await cluster.client().models()
    assert "lora" in model.features
    with pytest.raises(InvalidRequest, match="loud, silent") as caught:
        await listen(cluster, Heard(), "absent", temperature=0.0)
    assert caught.value.field == "adapter"


async def test_the_text_after_a_kill_is_the_undisturbed_one(cluster: Cluster) -> None:
    undisturbed = [await listen(cluster, Heard(), **stream) for stream in STREAMS]
    every = [Heard() for _ in STREAMS]
    streams = [
        asyncio.create_task(listen(cluster, heard, **stream))
        for heard, stream in zip(every, STREAMS, strict=True)
    ]
    await until(lambda: all(heard.tokens for heard in every), "they flow")
    first = min(every, key=lambda heard: heard.tokens)
    assert first.tokens < TOKENS
    victim = cluster.members[first.worker]
    processes = list(descendants(victim.pid))
    victim.signal(signal.SIGKILL)
    assert await asyncio.gather(*streams) == undisturbed
    assert [heard.tokens for heard in every] == [TOKENS] * len(STREAMS)
    moved = [heard for heard in every if heard.attempts > 1]  # Not those that had their end.
    assert first in moved
    assert {(heard.worker, heard.attempts) for heard in moved} == {(first.worker, 2)}
    await until(lambda: not any(lives(pid) for pid in processes), "vLLM ends with its worker")
