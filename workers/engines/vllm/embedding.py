"""The engine of an embedding model: a text's vector, by vLLM's own batching."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vllm import PoolingParams
from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.v1.engine.exceptions import EngineDeadError

from shared.errors import EngineError, InvalidRequest, MillstreamError
from shared.typed import Typed
from shared.values.tensors import tensor
from workers.engines.base import Engine, Job, ModelLoadError, Observation, Output, Sink
from workers.engines.vllm import ending
from workers.engines.vllm.embedder import (
    TEXT,
    Embedder,
    card_of,
    function_name,
    load,
    signature_of,
)
from workers.engines.vllm.stats import Batches

TASK = "embed"


class EmbeddingEngine(Engine):
    """Serves a model that embeds as a function: the vector of `text`.

    Args:
        model: A directory, or the id of a model on the hub.
        served_name: The function's name; its version is 1.
        args: vLLM's engine arguments under its own names, as strings; see `arguments`.
    """

    def __init__(self, model: str, served_name: str, args: Mapping[str, str]) -> None:
        self._model = model
        self._served_name = served_name
        self._args = dict(args)
        self._steps = Batches()
        self._tasks: dict[int, asyncio.Task[Output]] = {}
        self._said: list[Output] = []
        self._closing = False
        self._loaded: Embedder | None = None

    # ---- life -----------------------------------------------------------------------------------

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Start vLLM in a thread, and embed a first text; see `Engine.start`."""
        self._sink, self._died = sink, died
        self._loop = asyncio.get_running_loop()
        name = function_name(self._served_name, self._model)
        loaded = await asyncio.to_thread(load, self._model, name, self._args, self._steps)
        self._loaded = loaded
        self._llm = loaded.llm
        self._llm._run_output_handler()  # On this loop; else it would begin with the first request.
        tasks = await self._llm.get_supported_tasks()
        if TASK not in tasks:
            raise ModelLoadError(
                f"{self._model} is {loaded.architectures}, not an embedding model: vLLM uses it to "
                f"{', '.join(sorted(tasks))}"
            )
        if loaded.ends:
            await self._llm.collective_rpc(ending.METHOD, args=(os.getpid(),))
        try:
            first = await self._embed("start", "A first text.", 0)
        except (VLLMClientError, VLLMServerError, ValueError) as error:
            raise ModelLoadError(f"{self._model}: vLLM cannot embed: {_short(error)}") from error
        signature = signature_of(name, len(first.outputs.data))
        self._typed = Typed(signature)
        self.card = card_of(loaded, signature)
        handler = self._llm.output_handler
        assert handler is not None
        handler.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop vLLM's processes."""
        self._closing = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._loaded is not None:
            await asyncio.to_thread(self._llm.shutdown)

    def _ended(self, _handler: asyncio.Task[None]) -> None:
        """VLLM's output task ends only by an error, or because we stop it."""
        if not self._closing:
            self._closing = True
            self._tasks.clear()
            self._died(EngineError("vLLM died; its log says why"))

    # ---- jobs -----------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job; see `Engine.submit`."""
        task = self._loop.create_task(self._run(job))
        self._tasks[job.id] = task
        task.add_done_callback(partial(self._ran, job.id))

    def abort(self, job_id: int) -> None:
        """End a job, in vLLM too; the sink hears no more of it."""
        task = self._tasks.pop(job_id, None)
        if task is not None:
            task.cancel()

    def observe(self) -> Observation:
        """As of vLLM's latest step; jobs as of now."""
        steps, jobs = self._steps, len(self._tasks)
        waiting = min(jobs, steps.queued)
        kv_used = steps.kv_used if jobs else 0.0
        return Observation(steps.count, jobs - waiting, waiting, kv_used, steps.seconds)

    async def _run(self, job: Job) -> Output:
        """Embed a job's text.

        Raises:
            EngineDeadError: vLLM died, which is told of the whole engine.
        """
        try:
            text = self._text_of(job)
            if job.after_items:
                return Output(job.id, [], "", [], finish="stop")
            said = await self._embed(str(job.id), text, job.urgency)
        except MillstreamError as error:
            return _failed(job.id, error)
        except (VLLMClientError, ValueError) as error:
            return _failed(job.id, InvalidRequest(_short(error), field=TEXT))
        except EngineDeadError:
            raise
        except VLLMServerError as error:
            return _failed(job.id, EngineError(_short(error)))
        item = self._item(said.outputs.data)
        return Output(
            job.id, [], "", [],
            items=(item,), finish="stop", prompt_ids=said.prompt_token_ids,
            cached_tokens=min(said.num_cached_tokens or 0, len(said.prompt_token_ids)),
        )  # fmt: skip

    async def _embed(self, request_id: str, text: str, urgency: int) -> Any:
        """A text's vector, in a `PoolingRequestOutput`."""
        (prompt,) = await self._llm.renderer.render_cmpl_async([{"prompt": text}])
        self._steps.came()
        saying = self._llm.encode(prompt, PoolingParams(task=TASK), request_id, priority=urgency)
        (said,) = [output async for output in saying]
        if said.error is not None:
            raise VLLMServerError(str(said.error))
        return said

    def _text_of(self, job: Job) -> str:
        if job.call is None:
            raise InvalidRequest(f"{self.card.name} is a function: call Predict", field="model")
        message = self._typed.parse(job.call)
        self._typed.check(message)
        text: str = message.text
        return text

    def _item(self, vector: Any) -> bytes:
        value = tensor(vector.float())
        result = {"dtype": value.dtype, "shape": value.shape, "data": value.data}
        data: bytes = self._typed.response(result=result).SerializeToString()
        return data

    # ---- outputs --------------------------------------------------------------------------------

    def _ran(self, job_id: int, task: asyncio.Task[Output]) -> None:
        """Say what a job gave, together with what the others of its step gave."""
        if task.cancelled() or self._tasks.get(job_id) is not task:
            return
        error = task.exception()
        if isinstance(error, EngineDeadError):
            return
        del self._tasks[job_id]
        if error is not None:  # Whatever else goes wrong, a tokenizer's fault say, is the job's.
            said = _failed(job_id, EngineError(f"embedding the text: {error!r}"))
        else:
            said = task.result()
        if not self._said:
            self._loop.call_soon(self._tell)
        self._said.append(said)

    def _tell(self) -> None:
        said, self._said = self._said, []
        if not self._closing:
            self._sink(said)


def _failed(job_id: int, error: MillstreamError) -> Output:
    return Output(job_id, [], "", [], error=error)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or repr(error)
