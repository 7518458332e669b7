"""A started engine that test after test listens to: starting vLLM takes half a minute."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from shared.errors import MillstreamError
from tests.engines.driver import GREEDY, PROMPTS, Answer, Choice, Driver, Subject
from workers import bundled
from workers.engines.base import Job, Output, Sink
from workers.engines.vllm import VllmEngine

SMALL = {"dtype": "float32", "enforce_eager": "true"}


class VllmDriver(Driver):
    """A driver that also asks for what only this engine has.

    Attributes:
        begun: Jobs in the order of their first outputs.
        cached: Of each job, the prompt tokens that came from the prefix cache.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.begun: list[int] = []
        self.cached: dict[int, int] = {}

    def take(self, outputs: Sequence[Output]) -> None:
        """Be the engine's sink."""
        for output in outputs:
            if output.prompt_ids is not None:
                self.begun.append(output.job)
                self.cached[output.job] = output.cached_tokens
        super().take(outputs)

    def submit(self, prompt: str | None = PROMPTS[0], **fields: Any) -> int:
        """Submit a job; returns its id."""
        given: dict[str, Any] = {"messages": None, "token_ids": None, "sampling": GREEDY} | fields
        other = given["messages"] is not None or given["token_ids"] is not None
        job = Job(len(self.answers) + 1, None if other else prompt, **given)
        self.answers[job.id] = Answer([Choice() for _ in range(job.sampling.n)])
        self.engine.submit(job)
        return job.id


def _nobody(_outputs: Sequence[Output]) -> None:
    pass


@dataclass(slots=True)
class Relay:
    """Hands an engine's outputs to whoever listens now.

    Attributes:
        engine: Started.
        sink: Who listens.
        deaths: What `died` was told.
    """

    engine: VllmEngine
    sink: Sink = _nobody
    deaths: list[MillstreamError] = field(default_factory=list)

    def take(self, outputs: Sequence[Output]) -> None:
        self.sink(outputs)

    def driver(self) -> VllmDriver:
        """A fresh driver, which listens from now on."""
        loaded = self.engine._loaded
        assert loaded is not None
        tokenizer = loaded.tokenizer
        driver = VllmDriver(
            Subject(
                self.engine,
                lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
                tuple(tokenizer.encode("é€𝄞ж", add_special_tokens=False)),
            )
        )
        self.sink = driver.take
        return driver


async def start_engine(model: str = str(bundled.PATH), **args: str) -> Relay:
    relay = Relay(VllmEngine(model, "tiny", SMALL | args))
    await relay.engine.start(relay.take, relay.deaths.append)
    return relay


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that these started."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # The thread has ended meanwhile.
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)


def kill(processes: Iterable[int]) -> None:
    """SIGKILL to all; with one of them others may have ended by themselves."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def engine_processes() -> set[int]:
    """The processes of vLLM under this one."""
    return set(descendants(os.getpid()))


def make_adapter(folder: Path, rank: int, scale: float) -> Path:
    """An adapter of the bundled model's query projections, in PEFT's layout."""
    config = json.loads((bundled.PATH / "config.json").read_text())
    hidden = config["hidden_size"]
    width = config["num_attention_heads"] * config["head_dim"]
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{at}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator)
        weights[f"{at}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * scale
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none",
                "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "lora_dropout": 0.0,
                "base_model_name_or_path": "tiny",
            }
        )
    )  # fmt: skip
    return folder
