"""A worker with vLLM behind a real nats-server and a real gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from grpclib.client import Channel

from millstream import Client
from millstream.nats_server import NatsServer
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub
from shared.errors import InvalidRequest, MillstreamError, UnknownRequest
from shared.exits import EXIT_ENGINE
from tests.eventually import eventually
from tests.vllm.shared import descendants, kill
from workers import bundled

ROOT = Path(__file__).parents[2]
START = 180.0


class Serving:
    """nats-server, a gateway and a worker with vLLM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nats = NatsServer(folder / "nats")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._nats.start()
        self._spawn("gateway", "-m", "gateway", "--grpc-host", "127.0.0.1", "--grpc-port", "0")
        self._spawn(
            "worker", "-m", "workers", "--name", "w", "--engine", "vllm", "--model",
            str(bundled.PATH), "--served-name", "tiny", "--dtype", "float32",
            "--context-length", "512", "--max-batch", "16",
            "--engine-arg", "enforce_eager=true",
            "--engine-arg",
            'structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": true}',
        )  # fmt: skip
        for name in self.processes:
            eventually(partial(self._is_ready, name), f"{name} is ready", START)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        self._nats.stop()

    @property
    def target(self) -> str:
        return (self.folder / "gateway.ready").read_text()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command, "--nats", self._nats.url,
                 "--ready-file", str(self.folder / f"{name}.ready")],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _is_ready(self, name: str) -> bool:
        assert self.processes[name].poll() is None, self.log(name)[-4000:]
        return (self.folder / f"{name}.ready").exists()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("serving")) as running:
        yield running


async def served(client: Client) -> None:
    """Wait until the gateway knows the worker."""
    for _ in range(1000):
        try:
            if any(model.workers for model in await client.models()):
                return
        except MillstreamError:
            pass
        await asyncio.sleep(0.02)
    raise AssertionError("the gateway does not see the worker")


async def test_an_answer_streams_and_says_what_it_cost(serving: Serving) -> None:
    async with Client(serving.target) as client:
        await served(client)
        (model,) = await client.models()
        assert (model.name, model.engine, model.context_length) == ("tiny", "vllm", 512)
        assert "structured" in model.features
        answer = client.generate("The mill", max_tokens=40, temperature=0.0, ignore_eos=True)
        indexes: list[int] = []
        text = ""
        async for delta in answer:
            indexes += range(delta.index, delta.index + len(delta.token_ids))
            text += delta.text
        assert indexes == list(range(40))
        assert answer.finished is not None
        assert answer.finished.usage.completion_tokens == 40
        whole = await client.complete("The mill", max_tokens=40, temperature=0.0, ignore_eos=True)
        assert whole.text == text


async def test_many_at_once(serving: Serving) -> None:
    async with Client(serving.target) as client:
        await served(client)
        prompts = [f"Number {place} is" for place in range(40)]
        asked = {"max_tokens": 30, "temperature": 0.0, "ignore_eos": True}
        first = await client.complete(prompts[7], **asked)  # type: ignore[arg-type]
        answers = await asyncio.gather(
            *(client.complete(prompt, **asked) for prompt in prompts)  # type: ignore[arg-type]
        )
        assert all(len(answer.token_ids[0]) == 30 for answer in answers)
        assert answers[7].text == first.text


async def test_who_leaves_frees_the_engine(serving: Serving) -> None:
    async with Client(serving.target) as client:
        await served(client)
        answer = client.generate(
            "On and on", max_tokens=450, ignore_eos=True, request_id="leaves-early"
        )
        await anext(answer)
        await answer.cancel()
        with pytest.raises(UnknownRequest):
            for _ in range(500):
                await client.cancel("leaves-early")
                await asyncio.sleep(0.01)
        # Sixteen slots, each free again: as many answers run at once as before.
        answers = await asyncio.gather(
            *(client.complete("x", max_tokens=8, ignore_eos=True) for _ in range(16))
        )
        assert len(answers) == 16


async def test_structured_output_comes_through_the_api(serving: Serving) -> None:
    async with Client(serving.target) as client:
        await served(client)
    host, port = serving.target.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        stub = InferenceStub(channel)
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
                  "additionalProperties": False}  # fmt: skip
        request = pb.GenerateRequest(
            prompt="Say so:", structured=pb.Structured(json_schema=json.dumps(schema))
        )
        request.sampling.max_tokens = 60
        request.sampling.temperature = 0.0
        text = "".join([reply.delta.text for reply in await stub.Generate(request)])
        assert set(json.loads(text)) == {"ok"}


async def test_what_is_wrong_names_its_field(serving: Serving) -> None:
    async with Client(serving.target) as client:
        await served(client)
        with pytest.raises(InvalidRequest) as caught:
            await client.complete("x " * 600, max_tokens=4)
        assert caught.value.field == "prompt"


def test_the_worker_ends_when_vllm_dies(serving: Serving) -> None:
    worker = serving.processes["worker"]
    kill(set(descendants(worker.pid)))
    assert worker.wait(30) == EXIT_ENGINE
    assert "vLLM died" in serving.log("worker")
