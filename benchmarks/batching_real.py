"""A recurrent network behind the batch engine, in this process: its cost, calls in real time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
import torch

from benchmarks.devices import Device, Outcome
from millstream import App, TorchTensor
from shared.typed import Typed, load
from shared.values import to_message
from shared.wire import Sampling
from workers.app.batched import BatchEngine
from workers.app.engines import engine as engine_of
from workers.app.running import RunningApp
from workers.batching.latency import Latency
from workers.batching.microbatch import Decision, MicroBatch
from workers.engines.base import Engine, Job, Output

FEATURES, UNITS, STEPS = 16, 16, 1024
SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128)


class Network(torch.nn.Module):
    """A GRU that runs many steps on each item: fixed costs in every step, little per item."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = torch.nn.GRU(FEATURES, UNITS, batch_first=True)
        self.head = torch.nn.Linear(UNITS, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (items, FEATURES) to (items, 8)."""
        states, _ = self.gru(x.unsqueeze(1).expand(-1, STEPS, -1))
        return self.head(states[:, -1])  # type: ignore[no-any-return]


def cost(repeats: int = 15) -> tuple[Device, list[tuple[int, float]]]:
    """The line through the seconds of CPU that batches take, one thread, and its points."""
    torch.set_num_threads(1)
    network, line, points = Network().eval(), Latency(), []
    with torch.inference_mode():
        network(torch.randn(8, FEATURES))
        for size in SIZES:
            x, seconds = torch.randn(size, FEATURES), []
            for _ in range(repeats):
                began = time.thread_time()
                network(x)
                seconds.append(time.thread_time() - began)
            middle = sorted(seconds)[repeats // 2]
            points.append((size, middle))
            line.learn(size, middle)
    return Device(line.base, line.slope), points


class Fixed(MicroBatch):
    """What is usual: with the first that waits, up to `size` are collected for a window."""

    def __init__(self, size: int, window: float) -> None:
        super().__init__(size)
        self._size = size
        self._window = window
        self._free = -math.inf

    @property
    def limit(self) -> int:
        """Always the same."""
        return self._size

    def ended(self, now: float, *, telling: bool = True) -> None:
        """The device is free."""
        super().ended(now, telling=telling)
        self._free = now

    def decide(self, now: float, waiting: int, oldest: float) -> Decision:
        """Start when full, or when the window is over."""
        if self._running or not waiting:
            return Decision(0)
        until = max(oldest, self._free) + self._window
        if waiting >= self._size or now >= until - 1e-5:
            return Decision(min(waiting, self._size))
        return Decision(0, until)


def apps() -> App:
    """The network, batched and one by one."""
    app = App()
    network = Network().eval()

    @app.model("batched", batch=True)
    def batched(
        x: Annotated[torch.Tensor, TorchTensor("float32", "batch", FEATURES)],
    ) -> Annotated[torch.Tensor, TorchTensor("float32", "batch", 8)]:
        with torch.inference_mode():
            return network(x)  # type: ignore[no-any-return]

    @app.model("single", concurrency=1)
    def single(
        x: Annotated[torch.Tensor, TorchTensor("float32", FEATURES)],
    ) -> Annotated[torch.Tensor, TorchTensor("float32", 8)]:
        with torch.inference_mode():
            return network(x.unsqueeze(0))[0]  # type: ignore[no-any-return]

    return app


class Served:
    """An engine at work, called as a worker calls it.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        request = Typed(load(engine.card.signature)).request
        x = np.random.default_rng(0).standard_normal(FEATURES).astype("float32")
        self._call = to_message(request, {"x": x}).SerializeToString()
        self._next = 0
        self._due: dict[int, float] = {}
        self._outcome = Outcome([], [])
        self._idle = asyncio.Event()

    def sink(self, outputs: Sequence[Output]) -> None:
        """Take what the engine gives."""
        now = time.monotonic()
        for output in outputs:
            if output.error is not None:
                raise output.error
            if output.finish is not None:
                self._outcome.seconds.append(now - self._due.pop(output.job))
        if not self._due:
            self._idle.set()

    def _submit(self, due: float) -> None:
        self._next += 1
        self._due[self._next] = due
        self.engine.submit(Job(self._next, None, None, None, Sampling(), call=self._call))

    async def play(self, arrivals: Sequence[float]) -> Outcome:
        """Open loop: every call at its time, answered or not; waits for the last."""
        self._outcome = outcome = Outcome([], [])
        began = time.monotonic()
        for at in arrivals:
            left = began + at - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
            self._submit(began + at)
        while self._due:
            self._idle.clear()
            await self._idle.wait()
        return outcome

    async def lone(self) -> float:
        """One call; its seconds."""
        return (await self.play([0.0])).seconds[0]


@asynccontextmanager
async def served(name: str, policy: MicroBatch | None = None) -> Any:
    """The network behind its engine, under a policy of our choice where one is given."""
    app = apps()
    engine = engine_of(app.models[f"{name}@1"], RunningApp(app))
    if policy is not None:
        assert isinstance(engine, BatchEngine)
        engine.policy = policy
    made = Served(engine)
    await engine.start(made.sink, lambda error: None)
    try:
        yield made
    finally:
        await engine.close()
