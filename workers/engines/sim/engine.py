"""The engine: a task on the event loop that steps at its pace."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from shared import features
from shared.errors import EngineError, InvalidRequest, MillstreamError
from shared.wire import ModelCard, TokenLogprobs
from workers.engines.base import Engine, Job, Observation, Output, Sink
from workers.engines.sim.options import SimOptions
from workers.engines.sim.tokens import (
    VOCABULARY,
    Words,
    chain_after,
    chain_next,
    chain_seed,
    chain_tag,
    prompt_ids,
    text_of,
)
from workers.engines.text import TextStream


@dataclass(slots=True)
class _Running:
    """One choice of a job, with what every step asks of it."""

    job: int
    choice: int
    prompt: tuple[int, ...]
    limit: int
    starts: float
    logprobs: int | None
    count: int = 0
    state: int = 0
    stream: TextStream | None = None
    told: bool = False


class SimEngine(Engine):
    """Steps on the event loop: a step only counts."""

    def __init__(self, served_name: str, options: SimOptions) -> None:
        self._options = options
        self.card = ModelCard(
            name=served_name,
            engine="sim",
            context_length=options.context_length,
            vocab_size=VOCABULARY,
            dtype="none",
            fingerprint=f"sim:{served_name}:{options.mode}",
            features=(features.CHAT, features.LOGPROBS, features.CHOICES, features.RESUME),
            max_batch=options.max_batch,
        )
        self._sink: Sink = lambda _outputs: None
        self._died: Callable[[MillstreamError], None] = lambda _error: None
        self._running: dict[tuple[int, int], _Running] = {}
        self._waiting: dict[int, Job] = {}
        self._wake = asyncio.Event()
        self._steps = 0
        self._hung_before = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Begin to step."""
        self._sink, self._died = sink, died
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._died(EngineError(f"the sim engine's loop ended: {error!r}"))

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting[job.id] = job
        self._wake.set()

    def abort(self, job_id: int) -> None:
        """End a job at once."""
        self._waiting.pop(job_id, None)
        for key in [key for key in self._running if key[0] == job_id]:
            del self._running[key]

    def observe(self) -> Observation:
        """Say how it stands."""
        return Observation(
            steps=self._steps,
            running=len(self._running),
            # Not those that the next step takes, a moment from now.
            waiting=max(0, len(self._running) + len(self._waiting) - self._options.max_batch),
            kv_used=min(1.0, len(self._running) / self._options.max_batch),
            step_seconds=self._options.step_ms / 1000,
        )

    async def close(self) -> None:
        """Stop stepping."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- the loop -------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        step = self._options.step_ms / 1000
        due = loop.time()
        while True:
            if not self._running and not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                due = loop.time()
            self._admit(loop.time())
            if self._step(loop.time()):
                await self._hang()
            due = max(due + step, loop.time()) if step else 0.0
            await asyncio.sleep(due - loop.time() if step else 0)

    async def _hang(self) -> None:
        """Stand still, as an engine may."""
        if not self._options.hang_ms:
            await asyncio.Event().wait()  # Only a kill helps.
        await asyncio.sleep(self._options.hang_ms / 1000)
        self._hung_before = True

    def _admit(self, now: float) -> None:
        starts = now + self._options.prefill_ms / 1000
        for job in list(self._waiting.values()):
            if len(self._running) >= self._options.max_batch:
                return
            del self._waiting[job.id]
            try:
                self._begin(job, starts)
            except MillstreamError as error:
                self._sink([Output(job.id, [], "", [], error=error)])

    def _begin(self, job: Job, starts: float) -> None:
        context = self._options.context_length
        prompt = prompt_ids(job, context)
        room = context - len(prompt)
        limit = room if job.sampling.max_tokens is None else job.sampling.max_tokens
        if limit > room:
            raise InvalidRequest(
                f"prompt of {len(prompt)} tokens + max_tokens {limit} > context of {context}: ask "
                f"for at most {room}",
                field="sampling.max_tokens",
            )
        for choice in range(job.sampling.n):
            running = _Running(
                job.id, choice, prompt, limit, starts, job.sampling.logprobs, told=choice > 0
            )
            delivered = job.delivered[choice] if job.delivered else ()
            running.state = chain_seed(prompt)
            running.count = len(delivered)
            for token in delivered:
                running.state = chain_after(running.state, token)
            if job.sampling.stop:
                running.stream = TextStream(Words(), job.sampling.stop)
                running.stream.replay(delivered)
            self._running[job.id, choice] = running

    def _step(self, now: float) -> bool:
        """Give every running job its next token; True if the engine hangs from here on."""
        options = self._options
        outputs: list[Output] = []
        ended = []
        self._steps += 1
        hang = False
        for running in self._running.values():
            if running.starts > now:
                continue
            if running.count + 1 == options.hang_at and not self._hung_before:
                hang = True
            if running.count + 1 == options.die_at:
                self._died(EngineError("the sim engine died as told"))
                return True
            if options.crash_on and options.crash_on in text_of(running.prompt):
                os.kill(os.getpid(), signal.SIGKILL)
            output = self._next(running)
            if output is not None:
                outputs.append(output)
                if output.finish is not None:
                    ended.append((running.job, running.choice))
        for key in ended:
            self._running.pop(key, None)
        if outputs:
            self._sink(outputs)
        return hang

    def _next(self, running: _Running) -> Output | None:
        if running.count >= running.limit or (running.stream and running.stream.stopped):
            output = Output(running.job, [], "", [], choice=running.choice)
            return self._finish(running, output)
        token = running.count
        if self._options.mode == "chain":
            token = chain_next(running.state, chain_tag(running.job))
            running.state = chain_after(running.state, token)
        running.count += 1
        logprobs = None
        if running.logprobs is not None:
            others = range(token, token + running.logprobs)
            top = tuple((other, f" {other}", float(token - other)) for other in others)
            logprobs = TokenLogprobs(0.0, top)
        if running.stream is not None:
            output = self._through_stream(running, token, logprobs)
        else:
            text = f" {token}"
            output = Output(
                running.job, [token], text, [len(text)], [logprobs] if logprobs else None,
                running.choice,
            )  # fmt: skip
        if not running.told:
            running.told = True
            output.prompt_ids = running.prompt
        if running.count >= running.limit or (running.stream and running.stream.stopped):
            return self._finish(running, output)
        return output

    def _through_stream(
        self, running: _Running, token: int, logprobs: TokenLogprobs | None
    ) -> Output:
        stream = running.stream
        assert stream is not None
        if not stream.push(token, logprobs) and running.count >= running.limit:
            stream.flush()
        taken = stream.take()
        if taken is None:
            return Output(running.job, [], "", [], choice=running.choice)
        return Output(
            running.job, taken.token_ids, taken.text, taken.ends, taken.logprobs or None,
            running.choice,
        )  # fmt: skip

    def _finish(self, running: _Running, output: Output) -> Output:
        stopped = running.stream is not None and running.stream.stopped
        output.finish = "stop" if stopped else "length"
        output.completion_tokens = running.count
        if not running.told:
            running.told = True
            output.prompt_ids = running.prompt
        return output
