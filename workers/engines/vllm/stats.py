"""What vLLM says of itself after each step."""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase


class Steps(StatLoggerBase):  # type: ignore[misc]  # vllm is untyped to mypy
    """Gets the scheduler's numbers after every step, on the event loop.

    Attributes:
        count: Steps so far.
        running: Requests in vLLM's batch.
        waiting: Requests in its queue.
        kv_used: Fraction of the KV cache that is taken.
        seconds: From the step before to the latest one, without the time it was idle.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self.count = 0
        self.running = 0
        self.waiting = 0
        self.kv_used = 0.0
        self.seconds = 0.0

    def __call__(self, _config: Any, _engine: int = 0) -> Steps:
        """Be the factory that AsyncLLM asks for; there is one of us."""
        return self

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Take the numbers of a step."""
        now = time.perf_counter()
        self.count += 1
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.waiting = (
                scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            )
            self.kv_used = scheduler_stats.kv_cache_usage
        if self._last is not None:
            self.seconds = now - self._last
        self._last = now if self.running else None

    def began(self) -> None:
        """Work comes to an idle engine: its first step counts from here."""
        if self._last is None:
            self._last = time.perf_counter()

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class Batches(Steps):
    """The same of a model that pools, whose requests are through after a step.

    What is then queued came while the step ran, and the next one takes it, unless some of it was
    there before: the step had no room for more than it ended, and neither has the next one.

    Attributes:
        queued: Requests that the step under way has no room for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queued = 0
        self._came = 0

    def came(self) -> None:
        """A request is handed to vLLM."""
        self.began()
        self._came += 1

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Take the numbers of a step."""
        super().record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx)
        came, self._came = self._came, 0
        taken = len(iteration_stats.finished_requests) if iteration_stats is not None else 0
        self.queued = max(0, self.waiting - taken) if self.waiting > came else 0
        if self.waiting:
            self._last = time.perf_counter()
