"""The engine: jobs to vLLM, and after each of its steps everything it said to the sink at once."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.lora.request import LoRARequest

from shared.errors import EngineError, InvalidRequest, MillstreamError
from workers.engines.base import Engine, Job, ModelLoadError, Observation, Output, Sink
from workers.engines.reader import PromptReader
from workers.engines.vllm import ending
from workers.engines.vllm.answers import Lane
from workers.engines.vllm.core import Core
from workers.engines.vllm.loading import Loaded, card_of, load
from workers.engines.vllm.prompts import Ask, Preparer
from workers.engines.vllm.stats import Steps

_INLINE = 2048
"""Characters of prompt that are tokenized on the event loop: done sooner than handed over."""


@dataclass(slots=True)
class _Open:
    """A job that has not ended.

    Attributes:
        job: The job.
        left: Choices to come.
        prompt: Its ids, until its first output told them.
        lanes: What was asked of vLLM and has not ended.
    """

    job: Job
    left: int
    prompt: list[int] | None = None
    lanes: list[Lane] = field(default_factory=list)


class VllmEngine(Engine):
    """Runs a model on vLLM.

    Args:
        model: A directory, or the id of a model on the hub.
        served_name: What requests call it.
        args: vLLM's engine arguments under its own names, as strings; see `arguments`.
    """

    def __init__(self, model: str, served_name: str, args: Mapping[str, str]) -> None:
        self._model = model
        self._served_name = served_name
        self._args = dict(args)
        self._open: dict[int, _Open] = {}
        self._asked: dict[str, tuple[_Open, Lane]] = {}
        self._steps = Steps()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokenizing = ThreadPoolExecutor(1, "vllm-tokenize")
        self._closing = False
        self._loaded: Loaded | None = None
        self._watch: asyncio.Task[Any] | None = None

    # ---- life -----------------------------------------------------------------------------------

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Start vLLM in a thread; see `Engine.start`."""
        self._sink, self._died = sink, died
        self._loop = asyncio.get_running_loop()
        loading = asyncio.to_thread(load, self._model, self._served_name, self._args, self._steps)
        loaded = await loading
        self._loaded = loaded
        self._llm = loaded.llm
        self.card = card_of(loaded, self._served_name)
        defaults = loaded.defaults
        limits = len(loaded.pieces), defaults.context, defaults.slots
        self._here = PromptReader(loaded.tokenizer, *limits)
        self._there = PromptReader(copy.deepcopy(loaded.tokenizer), *limits)
        self._preparer = Preparer(self._here, loaded.pieces, defaults)
        self._core = Core(self._llm, self._steps, self._stepped)
        self._watch = await self._core.start()
        self._watch.add_done_callback(self._ended)
        if loaded.ends:
            await self._llm.collective_rpc(ending.METHOD, args=(os.getpid(),))
        for name, adapter in loaded.adapters.items():
            await self._load_adapter(name, adapter)

    async def _load_adapter(self, name: str, adapter: LoRARequest) -> None:
        """Load one now: with its first request it would take others' time, or the engine down."""
        try:
            await self._llm.add_lora(adapter)
        except (VLLMServerError, VLLMClientError, ValueError, RuntimeError, OSError) as error:
            raise ModelLoadError(f"LoRA adapter {name!r}: {_short(error)}") from error

    async def close(self) -> None:
        """Stop vLLM's processes."""
        self._closing = True
        self._open.clear()
        self._asked.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        if self._loaded is not None:
            await asyncio.to_thread(self._llm.shutdown)

    def _ended(self, watch: asyncio.Task[None]) -> None:
        """Listening ends only by an error, or because we stop it."""
        error = None if watch.cancelled() else watch.exception()
        if not self._closing:
            self._closing = True
            self._open.clear()
            self._asked.clear()
            self._died(EngineError(f"vLLM died; its log says why: {error!r}"))

    # ---- jobs -----------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job; see `Engine.submit`."""
        self._open[job.id] = opened = _Open(job, job.sampling.n)
        self._spawn(self._begin(opened)).add_done_callback(partial(self._begun, opened))

    def _begun(self, opened: _Open, task: asyncio.Task[None]) -> None:
        """Whatever else goes wrong with a job, a tokenizer's fault say, is that job's error."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(opened, EngineError(f"preparing the request: {error!r}"))

    def abort(self, job_id: int) -> None:
        """End a job; nothing of it reaches the sink from now on."""
        opened = self._open.pop(job_id, None)
        if opened is not None:
            self._drop(opened.lanes)

    def observe(self) -> Observation:
        """As of vLLM's latest step; jobs as of now."""
        steps, jobs = self._steps, len(self._open)
        waiting = min(jobs, steps.waiting)
        kv_used = steps.kv_used if jobs else 0.0
        return Observation(steps.count, jobs - waiting, waiting, kv_used, steps.seconds)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _drop(self, lanes: list[Lane]) -> None:
        """Tell vLLM that nobody waits for these any more."""
        ids = [lane.request for lane in lanes]
        for one in ids:
            self._asked.pop(one, None)
        if ids and not self._closing:
            self._spawn(self._core.abort(ids))

    async def _begin(self, opened: _Open) -> None:
        job = opened.job
        try:
            lora = self._adapter(job.adapter)
            ids = await self._tokenize(job)
            prepared = self._preparer.prepare(job, ids)
            if not self._lives(opened):
                return
            opened.prompt = prepared.prompt
            if prepared.ended:
                self._give([self._told(opened, output) for output in prepared.ended])
            for ask in prepared.asks:
                await self._ask(opened, ask, lora)
                if not self._lives(opened):
                    return
        except MillstreamError as error:
            self._fail(opened, error)
        except (VLLMClientError, ValueError) as error:
            self._fail(opened, InvalidRequest(_short(error), field=_field(job)))
        except VLLMServerError as error:
            self._fail(opened, EngineError(_short(error)))

    async def _tokenize(self, job: Job) -> list[int]:
        if job.messages is not None:
            size = sum(len(turn.content) for turn in job.messages)
        else:
            size = len(job.prompt or "")
        if size <= _INLINE:
            return self._here.ids_of(job)
        return await self._loop.run_in_executor(self._tokenizing, self._there.ids_of, job)

    async def _ask(self, opened: _Open, ask: Ask, lora: Any) -> None:
        job, lane = opened.job, ask.lane
        name = f"{job.id}.{lane.choice}"
        request = self._core.request(name, ask.ids, ask.params, lora, job.urgency)
        lane.request = request.request_id
        opened.lanes.append(lane)
        self._asked[lane.request] = opened, lane
        self._steps.began()
        await self._core.add(request)
        if not self._lives(opened):
            self._drop([lane])

    def _lives(self, opened: _Open) -> bool:
        return self._open.get(opened.job.id) is opened

    def _adapter(self, name: str) -> Any:
        assert self._loaded is not None
        adapters = self._loaded.adapters
        if not name:
            return None
        if name not in adapters:
            known = ", ".join(sorted(adapters)) or "none"
            raise InvalidRequest(
                f"adapter {name[:200]!r} is not loaded; {known} is", field="adapter"
            )
        return adapters[name]

    # ---- outputs --------------------------------------------------------------------------------

    def _stepped(self, said: Sequence[Any]) -> None:
        """Take all that a step said."""
        outputs: list[Output] = []
        over: list[Lane] = []
        for one in said:
            asked = self._asked.get(one.request_id)
            if asked is not None:
                self._take(*asked, one, outputs, over)
        self._drop(over)
        self._give(outputs)

    def _take(
        self, opened: _Open, lane: Lane, said: Any, outputs: list[Output], over: list[Lane]
    ) -> None:
        try:
            output = lane.take(said)
        except MillstreamError as error:
            self._fail(opened, error)
            return
        except Exception as error:  # Of what vLLM says; one job's fault is no other's.
            self._fail(opened, EngineError(f"reading vLLM's output: {error!r}"))
            return
        if opened.prompt is not None:
            if output is None:
                output = Output(lane.job, [], "", [], choice=lane.choice)
                output.logprobs = None if lane.logprobs is None else []
            if said.prefill_stats is not None:
                cached = said.prefill_stats.num_cached_tokens
                output.cached_tokens = min(cached, len(opened.prompt))
        if output is None:
            return
        outputs.append(self._told(opened, output))
        if output.finish is not None:
            opened.lanes.remove(lane)
            if said.finished:
                del self._asked[lane.request]
            else:
                over.append(lane)

    def _told(self, opened: _Open, output: Output) -> Output:
        """Tell the prompt with the job's first output, and count its choices down."""
        if opened.prompt is not None:
            output.prompt_ids, opened.prompt = opened.prompt, None
        if output.finish is not None:
            opened.left -= 1
            if opened.left == 0:
                self._open.pop(opened.job.id, None)
        return output

    def _fail(self, opened: _Open, error: MillstreamError) -> None:
        if self._lives(opened):
            del self._open[opened.job.id]
            self._drop(opened.lanes)
            self._give([Output(opened.job.id, [], "", [], error=error)])

    def _give(self, outputs: list[Output]) -> None:
        if outputs:
            self._sink(outputs)


def _field(job: Job) -> str:
    """The field that vLLM refuses where ours was checked already."""
    return f"structured.{job.structured.kind}" if job.structured is not None else "sampling"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or repr(error)
