"""The engine: a thread that steps, and the event loop's side of it.

The loop hands jobs to a tokenising thread, which hands them to the stepping thread through the
inbox; aborts go to the inbox at once. After every step all its outputs come back in one call.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch

from shared import features
from shared.errors import EngineError, MillstreamError
from shared.wire import ModelCard
from workers.engines.base import Engine, Job, ModelLoadError, Observation, Output, Sink
from workers.engines.reader import PromptReader
from workers.engines.text import Pieces
from workers.engines.torch.loading import Loaded, load
from workers.engines.torch.prompts import Prepared, Preparer
from workers.engines.torch.runner import Runner
from workers.engines.torch.settings import Settings, parse

_SMALL = 20_000_000  # parameters; below, a kernel is over before a second core has joined in


@dataclass(frozen=True, slots=True)
class _Abort:
    job: int


@dataclass(frozen=True, slots=True)
class _Close:
    pass


class TorchEngine(Engine):
    """Runs a Llama-family checkpoint with continuous batching.

    Args:
        model: A directory in the Hugging Face layout, or the id of one on the hub.
        served_name: What requests call it.
        dtype: auto, float32, bfloat16, float16, int8; auto is the checkpoint's, on CPU float32;
            int8 is that with the weights of the decoder's linear layers in int8.
        device: auto, cpu, cuda, cuda:1, mps; auto takes what is there.
        max_batch: Answers generated at once; each has a row of the KV cache.
        context_length: Tokens of prompt and answer together; None is what the model was made for.
        prefill_chunk: Prompt tokens computed in one step, at most.
        threads: CPU threads of one operation; None is one for small models, else torch's choice.
        revision: Of a hub id: a branch, tag or commit; None is its newest.
        rest: There are no further arguments; given ones raise `ModelLoadError`.
    """

    def __init__(
        self,
        model: str,
        *,
        served_name: str,
        dtype: str = "auto",
        device: str = "auto",
        max_batch: int = 64,
        context_length: int | None = None,
        prefill_chunk: int = 512,
        threads: int | None = None,
        revision: str | None = None,
        **rest: Any,
    ) -> None:
        self._settings = Settings.checked(
            model=model,
            served_name=served_name,
            dtype=dtype,
            device=device,
            max_batch=max_batch,
            context_length=context_length,
            prefill_chunk=prefill_chunk,
            threads=threads,
            revision=revision,
            **rest,
        )
        self._inbox: SimpleQueue[Prepared | Output | _Abort | _Close] = SimpleQueue()
        self._open: dict[int, int] = {}  # choices to come, by job; changed by the loop alone
        self._observation = Observation()
        self._thread: threading.Thread | None = None
        self._tokenising: ThreadPoolExecutor | None = None

    @classmethod
    def from_args(cls, model: str, served_name: str, args: Mapping[str, str]) -> TorchEngine:
        """Build it from arguments as strings; a bad one is a `ModelLoadError`."""
        return cls(model, served_name=served_name, **parse(args))

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Load the model in a thread and begin to step; see `Engine.start`."""
        settings = self._settings
        loaded, preparer = await asyncio.to_thread(self._load)
        self.card = _card(loaded, settings)
        self._sink, self._died = sink, died
        self._loop = asyncio.get_running_loop()
        self._preparer = preparer
        self._tokenising = ThreadPoolExecutor(1, "torch-tokenise")
        runner = Runner(loaded, settings.max_batch, settings.prefill_chunk)
        ready = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._run,
            args=(runner, _threads(loaded, settings), ready),
            name="torch-step",
            daemon=True,
        )
        self._thread.start()
        await ready

    def submit(self, job: Job) -> None:
        """Take a job; see `Engine.submit`."""
        assert self._tokenising is not None, "start comes first"
        self._open[job.id] = job.sampling.n
        self._tokenising.submit(self._prepare, job)

    def abort(self, job_id: int) -> None:
        """End a job; nothing of it reaches the sink from now on."""
        if self._open.pop(job_id, None) is not None:
            self._inbox.put(_Abort(job_id))

    def observe(self) -> Observation:
        """As of the latest step."""
        return self._observation

    async def close(self) -> None:
        """Stop after the step under way and let go of the model."""
        if self._tokenising is not None:
            self._tokenising.shutdown(wait=False, cancel_futures=True)
        self._open.clear()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(_Close())
            await asyncio.to_thread(thread.join)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _load(self) -> tuple[Loaded, Preparer]:
        settings = self._settings
        loaded = load(
            settings.model,
            served_name=settings.served_name,
            dtype=settings.dtype,
            device=settings.device,
            slots=settings.max_batch,
            context=settings.context_length,
            revision=settings.revision,
        )
        size, defaults = loaded.config.vocab_size, loaded.defaults
        pieces = Pieces.of(loaded.tokenizer, size, silent=defaults.eos)
        reader = PromptReader(loaded.tokenizer, size, loaded.context, settings.max_batch)
        return loaded, Preparer(reader, pieces, defaults)

    # ---- on the tokenising thread ----------------------------------------------------------------

    def _prepare(self, job: Job) -> None:
        if job.id not in self._open:
            return
        try:
            self._inbox.put(self._preparer.prepare(job))
        except MillstreamError as error:
            self._inbox.put(_failure(job.id, error))
        except Exception as error:  # a tokenizer's fault with one text is that job's error
            self._inbox.put(_failure(job.id, EngineError(f"preparing the prompt: {error!r}")))

    # ---- on the stepping thread ------------------------------------------------------------------

    def _run(self, runner: Runner, threads: int, ready: asyncio.Future[None]) -> None:
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                runner.warm_up()
                self._loop.call_soon_threadsafe(_set_ready, ready)
                self._steps(runner)
        except Exception as error:  # whatever breaks a step as a whole ends the engine
            self._loop.call_soon_threadsafe(self._fail, EngineError(repr(error)), ready)

    def _steps(self, runner: Runner) -> None:
        outputs: list[Output] = []
        while self._take_in(runner, outputs):
            if not runner.idle:
                began = time.perf_counter()
                outputs += runner.step()
                self._note(runner, time.perf_counter() - began)
            if outputs:
                self._loop.call_soon_threadsafe(self._deliver, outputs)
                outputs = []

    def _take_in(self, runner: Runner, outputs: list[Output]) -> bool:
        """Read the inbox, waiting if there is nothing else to do; whether to go on."""
        aborted = set()
        while (runner.idle and not outputs) or not self._inbox.empty():
            match self._inbox.get():
                case Prepared(job, lanes, ended):
                    outputs += ended
                    if job in self._open:  # not aborted while it was prepared
                        for lane in lanes:
                            runner.add(lane)
                case _Abort(job):
                    aborted.add(job)
                case Output() as failure:
                    outputs.append(failure)
                case _Close():
                    return False
        if aborted:
            runner.abort(aborted)
            self._note(runner)
        return True

    def _note(self, runner: Runner, seconds: float | None = None) -> None:
        """Publish how it stands, after a step of so many seconds or an abort."""
        last, scheduler = self._observation, runner.scheduler
        self._observation = Observation(
            steps=last.steps if seconds is None else last.steps + 1,
            running=runner.jobs,
            waiting=scheduler.waiting,
            kv_used=len(scheduler.lanes) / scheduler.slots,
            step_seconds=last.step_seconds if seconds is None else seconds,
        )

    # ---- on the event loop -----------------------------------------------------------------------

    def _deliver(self, outputs: Sequence[Output]) -> None:
        """Give the sink what is of open jobs."""
        jobs = self._open
        current = []
        for output in outputs:
            left = jobs.get(output.job)
            if left is None:
                continue
            current.append(output)
            if output.error is not None:
                del jobs[output.job]
            elif output.finish is not None:
                if left == 1:
                    del jobs[output.job]
                else:
                    jobs[output.job] = left - 1
        if current:
            self._sink(current)

    def _fail(self, error: MillstreamError, ready: asyncio.Future[None]) -> None:
        if ready.done():
            self._died(error)
        else:
            ready.set_exception(ModelLoadError(f"the model does not run: {error}"))


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _failure(job: int, error: MillstreamError) -> Output:
    return Output(job, [], "", [], error=error)


def _threads(loaded: Loaded, settings: Settings) -> int:
    if settings.threads is not None:
        return settings.threads
    return 1 if loaded.parameters < _SMALL else torch.get_num_threads()


def _card(loaded: Loaded, settings: Settings) -> ModelCard:
    found = [
        features.LOGPROBS, features.CHOICES, features.PENALTIES, features.RESUME, features.SEED
    ]  # fmt: skip
    if loaded.tokenizer.chat_template:
        found.insert(0, features.CHAT)
    return ModelCard(
        name=settings.served_name,
        engine="torch",
        context_length=loaded.context,
        vocab_size=loaded.config.vocab_size,
        dtype=loaded.dtype,
        fingerprint=loaded.fingerprint,
        features=tuple(found),
        max_batch=settings.max_batch,
    )
