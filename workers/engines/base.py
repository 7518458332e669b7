"""What an engine is: jobs in, outputs out once a step, and a view of itself for admission.

An engine runs its steps off the event loop (a thread, another process) or in steps too short to
matter, so that the worker's heartbeat never waits for it. It talks to the worker only through the
`Sink`, called on the event loop, once per step with the outputs of every job in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.errors import MillstreamError
from shared.wire import Message, ModelCard, Sampling, Structured, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Job:
    """One request as the engine sees it. Exactly one of prompt, messages, token_ids, call is set.

    Attributes:
        id: The exec that runs it; unique in this worker.
        prompt: Text to continue.
        messages: A conversation for the model's chat template.
        token_ids: The prompt as ids of the model's vocabulary.
        sampling: How to sample and when to stop.
        delivered: Per choice, the token ids another worker has delivered already; the engine
            replays detokenizer, stop matcher, penalties and seed over them, counts them for
            max_tokens and usage, and emits only what comes after. Empty on a first attempt.
        urgency: 0 is the most urgent class.
        structured: What the answer is restricted to, or None.
        adapter: The LoRA adapter, or "".
        traceparent: W3C trace context of the request, or "".
        call: A function's serialized request message.
        request_id: The client's name for the request.
        metadata: Of the client's call.
        after_items: Items of a function that another worker has delivered already; it starts anew
            and emits only what comes after.
        remaining: Says how many seconds are left until the deadline, or None where there is none,
            or it is not known yet.
    """

    id: int
    prompt: str | None
    messages: tuple[Message, ...] | None
    token_ids: tuple[int, ...] | None
    sampling: Sampling
    delivered: tuple[tuple[int, ...], ...] = ()
    urgency: int = 2
    structured: Structured | None = None
    adapter: str = ""
    traceparent: str = ""
    call: bytes | None = None
    request_id: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    after_items: int = 0
    remaining: Callable[[], float | None] | None = None


@dataclass(slots=True)
class Output:
    """What one step, or several, added to one choice of one job.

    Its lists belong to whoever takes it, who may add to them.

    Attributes:
        job: The job's id.
        token_ids: New tokens in order. A token whose text may belong to a stop string is held
            back until that is decided, so a token that was given out has its text given out.
        text: The text they add: never half a character, never (part of) a stop string.
        ends: For each token, where its text ends in `text`, in characters; the last is
            `len(text)`. A token that only completes with the next has an empty text.
        logprobs: One per token where asked for, else None.
        choice: Which of the job's n choices.
        finish: "stop" or "length" on the last output of this choice, else None. The last output
            may carry no token.
        error: Set on the job's last output if it failed; ends all its choices.
        prompt_ids: The prompt as token ids, on the job's first output, else None. Its first
            output may carry nothing else.
        cached_tokens: Prompt tokens taken from a prefix cache, on the job's first output.
        completion_tokens: Tokens of the finished choice, the delivered ones included, and those
            of a matched stop string; set together with `finish`.
        items: What a function gave: serialized response messages.
    """

    job: int
    token_ids: list[int]
    text: str
    ends: list[int]
    logprobs: list[TokenLogprobs] | None = None
    choice: int = 0
    finish: str | None = None
    error: MillstreamError | None = None
    prompt_ids: Sequence[int] | None = None
    cached_tokens: int = 0
    completion_tokens: int = 0
    items: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What an engine says of itself; read by heartbeats and admission, so it is cheap.

    Attributes:
        steps: Engine steps since the start; frozen with work in flight means hung.
        running: Jobs in the running batch.
        waiting: What the latest step had no room for; not what only is on its way into the next.
        kv_used: Fraction of the KV cache in use, in [0, 1].
        step_seconds: Duration of the latest step.
    """

    steps: int = 0
    running: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    step_seconds: float = 0.0


Sink = Callable[[Sequence[Output]], None]


class Engine(ABC):
    """Generates tokens for many jobs at once.

    The worker calls, on its event loop: `start` once, then `submit` and `abort` at any time, and
    `close`. Every submitted job ends in exactly one of: `finish` on each of its choices, one
    `error`, or `abort`, after which the sink hears no more of it than what was already under way.
    """

    card: ModelCard
    """What is served; valid after `start`."""

    on_room: Callable[[], None] = staticmethod(lambda: None)
    """Called, on the event loop, when `room` may have grown; set by the worker."""

    @abstractmethod
    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Load the model and begin to step.

        Args:
            sink: Gets the outputs of each step, on the event loop.
            died: Called once, on the event loop, if the engine fails as a whole.

        Raises:
            ModelLoadError: The model cannot be served; the message says why and what to change.
        """

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job; what is wrong with it comes back as an output with `error`."""

    @abstractmethod
    def abort(self, job_id: int) -> None:
        """End a job within one step, in prefill too; unknown and ended ids are ignored."""

    @abstractmethod
    def observe(self) -> Observation:
        """Say how it stands."""

    def room(self) -> int | None:
        """How many more jobs could start now; None leaves that to adaptive admission."""
        return None

    def spare(self) -> int | None:
        """How many more jobs it would rather take than give back, where they come unasked now."""
        return self.room()

    def window(self, job_id: int, is_open: bool) -> None:  # noqa: B027  # Few have a use for it.
        """A function's reader is behind, or has caught up: it yields while the window is open."""

    @abstractmethod
    async def close(self) -> None:
        """Stop stepping and free what was taken."""


class ModelLoadError(Exception):
    """The model cannot be loaded; the message says why and what to change."""
