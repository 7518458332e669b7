"""vLLM's core process, asked and heard without what `AsyncLLM` makes of its outputs.

`AsyncLLM.generate` makes objects, statistics and a wakeup of every token before anybody sees it.
Detokenizer, stop strings and statistics are the worker's own here, so a step's outputs are taken as
the core says them, all at once. What is used of `AsyncLLM`'s inside is used in this module only,
and tests/vllm/test_core.py says what it must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from vllm.inputs import tokens_input
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from workers.engines.vllm.stats import Steps

log = structlog.get_logger(__name__)


class Core:
    """Speaks with the core of an `AsyncLLM`, whose own output task must not run.

    Args:
        llm: Started.
        steps: Gets the scheduler's numbers of each step.
        said: Gets each step's outputs, vLLM's `EngineCoreOutput`s, in a turn of the event loop.
    """

    def __init__(self, llm: AsyncLLM, steps: Steps, said: Callable[[Sequence[Any]], None]) -> None:
        self._inputs = llm.input_processor
        self._core = llm.engine_core
        self._llm = llm
        self._steps = steps
        self._said = said
        self._tasks: tuple[str, ...] = ()

    async def start(self) -> asyncio.Task[None]:
        """Begin to listen, on this event loop; the task ends by an error only, or if cancelled."""
        self._tasks = await self._llm.get_supported_tasks()
        return asyncio.get_running_loop().create_task(self._listen())

    def request(
        self, name: str, ids: list[int], params: SamplingParams, lora: Any, priority: int
    ) -> Any:
        """What `add` takes; its `request_id`, which outputs have too, is the name made unique.

        Raises:
            VLLMClientError: vLLM refuses it; others as well, see `VllmEngine`.
            ValueError: As above.
        """
        request = self._inputs.process_inputs(
            name, tokens_input(ids), params, self._tasks, lora_request=lora, priority=priority
        )
        self._inputs.assign_request_id(request)
        return request

    async def add(self, request: Any) -> None:
        """Hand a request over; its outputs may come before this returns.

        Raises:
            EngineDeadError: vLLM died.
        """
        await self._core.add_request_async(request)
        if self._llm.log_requests:
            log.info("added", request=request.request_id)

    async def abort(self, ids: list[str]) -> None:
        """Nobody waits for these any more; those that have ended are ignored."""
        await self._core.abort_requests_async(ids)
        if self._llm.log_requests:
            log.info("aborted", requests=ids)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            outputs = await self._core.get_output_async()
            self._steps.record(outputs.scheduler_stats, None)
            loop.call_soon(self._said, outputs.outputs)  # What it raises ends nothing here.
