"""The simulated engine: deterministic tokens at a settable pace, for tests and benchmarks.

In `count` mode token k of every answer has id k and text `" k"`, whatever the prompt, so any
checker knows what must arrive. In `chain` mode token k carries the exec that made it and a hash of
the prompt and every token before it, so that a splice of two answers or a wrong continuation shows
(`chain_next`, `chain_broken`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.errors import EngineError, InvalidRequest, MillstreamError
from shared.wire import ModelCard, TokenLogprobs
from workers.engines.base import Engine, Job, ModelLoadError, Observation, Output, Sink
from workers.engines.text import Pieces, TextStream

VOCABULARY = 1 << 31


@dataclass(frozen=True, slots=True)
class SimOptions:
    """The engine's settings.

    Attributes:
        prefill_ms: From a job's start to its first step.
        step_ms: Between two steps; 0 is free-running.
        max_batch: Jobs at once.
        mode: count or chain.
        context_length: Tokens of prompt and answer together.
        hang_at: Stop stepping, heartbeats go on, once a job reaches this token; 0 never.
        hang_ms: Step again after so long, and hang no more; 0 hangs for ever.
        die_at: Die as a whole once a job reaches this token; 0 never.
        crash_on: A prompt that contains this text kills the process at its first step.
    """

    prefill_ms: float = 0.0
    step_ms: float = 0.0
    max_batch: int = 256
    mode: str = "count"
    context_length: int = 32768
    hang_at: int = 0
    hang_ms: float = 0.0
    die_at: int = 0
    crash_on: str = ""

    @classmethod
    def parse(cls, args: dict[str, str]) -> SimOptions:
        """Build them from strings.

        Raises:
            ModelLoadError: An unknown name or a bad value.
        """
        values: dict[str, object] = {}
        kinds = {
            "prefill_ms": float, "step_ms": float, "hang_ms": float, "mode": str, "crash_on": str,
        }  # fmt: skip
        for name, text in args.items():
            if name not in cls.__slots__:
                raise ModelLoadError(
                    f"the sim engine has no setting {name!r}; it has {', '.join(cls.__slots__)}"
                )
            try:
                values[name] = kinds.get(name, int)(text)
            except ValueError:
                raise ModelLoadError(f"sim engine setting {name}={text!r}: want a number") from None
        options = cls(**values)  # type: ignore[arg-type]
        if options.mode not in ("count", "chain"):
            raise ModelLoadError(f"sim engine setting mode={options.mode!r}: want count or chain")
        if options.max_batch < 1 or options.step_ms < 0 or options.prefill_ms < 0:
            raise ModelLoadError("sim engine settings must not be negative, max_batch at least 1")
        return options


def chain_seed(prompt_ids: Sequence[int]) -> int:
    """The state of `chain` mode after a prompt."""
    return zlib.crc32(b"".join(token.to_bytes(4, "little") for token in prompt_ids))


def chain_next(state: int, tag: int = 0) -> int:
    """The next token of `chain` mode: the exec's tag above 23 bits of the state."""
    return tag << 23 | state & 0x7FFFFF


def chain_after(state: int, token: int) -> int:
    """The state of `chain` mode once a token was said."""
    return zlib.crc32(token.to_bytes(4, "little"), state)


def chain_tag(exec_: int) -> int:
    """Eight bits that tell execs apart."""
    return zlib.crc32(exec_.to_bytes(8, "little")) & 0xFF


def chain_broken(prompt_ids: Sequence[int], token_ids: Sequence[int]) -> int | None:
    """Where an answer of `chain` mode is not what was said after all before it, or None."""
    state = chain_seed(prompt_ids)
    for place, token in enumerate(token_ids):
        if token & 0x7FFFFF != state & 0x7FFFFF:
            return place
        state = chain_after(state, token)
    return None


@dataclass(slots=True)
class _Running:
    """One choice of a job."""

    job: Job
    choice: int
    prompt: tuple[int, ...]
    limit: int
    starts: float
    count: int = 0
    state: int = 0
    stream: TextStream | None = None
    told: bool = False


class _Words(Pieces):
    """Every id's text is a space and the number."""

    def __init__(self) -> None:
        super().__init__([])

    def __getitem__(self, token: int) -> str:
        return f" {token}"


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
            features=("chat", "logprobs", "n", "resume", "seed"),
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
            waiting=len(self._waiting),
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
        for job in list(self._waiting.values()):
            if len(self._running) >= self._options.max_batch:
                return
            del self._waiting[job.id]
            try:
                self._begin(job, now)
            except MillstreamError as error:
                self._sink([Output(job.id, [], "", [], error=error)])

    def _begin(self, job: Job, now: float) -> None:
        prompt = _prompt_ids(job)
        room = self._options.context_length - len(prompt)
        if room < 1:
            raise InvalidRequest(
                f"the prompt has {len(prompt)} tokens and the context "
                f"{self._options.context_length}: nothing could be generated",
                field="prompt",
            )
        limit = job.sampling.max_tokens or room
        if limit > room:
            raise InvalidRequest(
                f"max_tokens {limit} and a prompt of {len(prompt)} tokens exceed the context of "
                f"{self._options.context_length}",
                field="sampling.max_tokens",
            )
        starts = now + self._options.prefill_ms / 1000
        for choice in range(job.sampling.n):
            running = _Running(job, choice, prompt, limit, starts, told=choice > 0)
            delivered = job.delivered[choice] if job.delivered else ()
            running.state = chain_seed(prompt)
            running.count = len(delivered)
            for token in delivered:
                running.state = chain_after(running.state, token)
            if job.sampling.stop:
                running.stream = TextStream(_Words(), job.sampling.stop)
                running.stream.replay(delivered)
            self._running[job.id, choice] = running

    def _step(self, now: float) -> bool:
        """Give every running job its next token; True if the engine hangs from here on."""
        options = self._options
        outputs: list[Output] = []
        ended = []
        self._steps += 1
        hang = False
        for key, running in self._running.items():
            if running.starts > now:
                continue
            if running.count + 1 == options.hang_at and not self._hung_before:
                hang = True
            if running.count + 1 == options.die_at:
                self._died(EngineError("the sim engine died as told"))
                return True
            if options.crash_on and options.crash_on.encode() in _as_bytes(running.prompt):
                os.kill(os.getpid(), signal.SIGKILL)
            output = self._next(running)
            if output is not None:
                outputs.append(output)
                if output.finish is not None:
                    ended.append(key)
        for key in ended:
            self._running.pop(key, None)
        if outputs:
            self._sink(outputs)
        return hang

    def _next(self, running: _Running) -> Output | None:
        job = running.job
        if running.count >= running.limit or (running.stream and running.stream.stopped):
            output = Output(job.id, [], "", [], choice=running.choice)
            return self._finish(running, output)
        token = running.count
        if self._options.mode == "chain":
            token = chain_next(running.state, chain_tag(job.id))
            running.state = chain_after(running.state, token)
        running.count += 1
        logprobs = None
        if job.sampling.logprobs is not None:
            top = ((token, f" {token}", 0.0),) if job.sampling.logprobs else ()
            logprobs = TokenLogprobs(0.0, top)
        if running.stream is not None:
            output = self._through_stream(running, token, logprobs)
        else:
            text = f" {token}"
            output = Output(
                job.id, [token], text, [len(text)], [logprobs] if logprobs else None, running.choice
            )
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
            return Output(running.job.id, [], "", [], choice=running.choice)
        return Output(
            running.job.id, taken.token_ids, taken.text, taken.ends, taken.logprobs or None,
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


def _as_bytes(prompt: Sequence[int]) -> bytes:
    return bytes(token for token in prompt if token < 256)


def _prompt_ids(job: Job) -> tuple[int, ...]:
    """Every byte of a prompt is a token; a conversation is its turns, a line each."""
    if job.token_ids is not None:
        for place, token in enumerate(job.token_ids):
            if not 0 <= token < VOCABULARY:
                raise InvalidRequest(
                    f"token id {token} at {place} is outside the vocabulary of {VOCABULARY}",
                    field="token_ids",
                )
        return job.token_ids
    if job.messages is not None:
        return tuple("\n".join(f"{m.role}: {m.content}" for m in job.messages).encode())
    return tuple((job.prompt or "").encode())
