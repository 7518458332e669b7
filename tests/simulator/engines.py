"""What steps on a worker of a schedule; it may hang while the worker lives, or work kills both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import FunctionError
from tests.simulator.calls import Call
from tests.simulator.world import Process
from workers.engines.base import Job, Output
from workers.engines.sim import chain_after, chain_next, chain_seed, chain_tag

POISON = 4242
"""A prompt that begins with this token kills the worker that steps on it."""

Sink = Callable[[list[Output]], None]


@dataclass(slots=True)
class Work:
    """A job that runs."""

    poison: bool


W = TypeVar("W", bound=Work)


class StepEngine(ABC, Generic[W]):
    """Steps while there is work.

    Its step counter stands still only if it hangs: a function that waits for its reader is no work
    that stands.

    Args:
        process: The worker.
        sink: Gets what a step gave.
        step: Seconds.

    Attributes:
        steps: The step counter.
        hung: Whether it stands still.
        crashed: Called after it killed its worker.
        log: When something was given, and of which exec.
    """

    def __init__(self, process: Process, sink: Sink, step: float) -> None:
        self._process = process
        self._sink = sink
        self._step_seconds = step
        self._planned = False
        self._work: dict[int, W] = {}
        self.steps = 0
        self.hung = False
        self.crashed: Callable[[], None] = lambda: None
        self.log: list[tuple[float, int]] = []

    @property
    def running(self) -> int:
        return len(self._work)

    @abstractmethod
    def begin(self, job: Job) -> W:
        """A job becomes work."""

    @abstractmethod
    def step(self) -> None:
        """Go on with all work."""

    def submit(self, job: Job) -> None:
        self._work[job.id] = self.begin(job)
        self._plan()

    def abort(self, exec_: int) -> None:
        self._work.pop(exec_, None)

    def window(self, exec_: int, is_open: bool) -> None:
        raise AssertionError(f"no window for {exec_}: {is_open}")

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._process.after(self._step_seconds, self._do)

    def _do(self) -> None:
        self._planned = False
        if self.hung:
            self._process.after(0.05, self._plan)
            return
        self.steps += 1
        if any(work.poison for work in self._work.values()):
            self._process.kill()
            self.crashed()
            return
        self.step()
        if self._work:
            self._plan()


@dataclass(slots=True)
class Answering(Work):
    """A generation: how many tokens it has, and the state of the chain after them."""

    job: Job
    count: int
    state: int


class ChainEngine(StepEngine[Answering]):
    """Chain mode, a token a job and step."""

    def begin(self, job: Job) -> Answering:
        ids = job.token_ids or ()
        state = chain_seed(ids)
        delivered = job.delivered[0] if job.delivered else ()
        for token in delivered:
            state = chain_after(state, token)
        return Answering((ids or (0,))[0] == POISON, job, len(delivered), state)

    def step(self) -> None:
        outputs = []
        for key, work in list(self._work.items()):
            job = work.job
            wanted = job.sampling.max_tokens or 1
            first = work.count == (len(job.delivered[0]) if job.delivered else 0)
            if work.count >= wanted:
                output = Output(key, [], "", [])
            else:
                token = chain_next(work.state, chain_tag(key))
                text = f" {token}"
                output = Output(key, [token], text, [len(text)])
                work.count += 1
                work.state = chain_after(work.state, token)
            if first:
                output.prompt_ids = job.token_ids
            if work.count >= wanted:
                output.finish, output.completion_tokens = "length", work.count
                del self._work[key]
            outputs.append(output)
            self.log.append((self._process.world.now, key))
        if outputs:
            self._sink(outputs)


@dataclass(slots=True)
class Yielding(Work):
    """A function's call: the item it gives next, and whether it may."""

    call: Call
    next: int
    open: bool = True


class FunctionEngine(StepEngine[Yielding]):
    """A function: it begins anew, passes over what is delivered, and yields while it may."""

    def begin(self, job: Job) -> Yielding:
        call = Call.decode(job.call or b"")
        return Yielding(call.poison, call, job.after_items)

    def window(self, exec_: int, is_open: bool) -> None:
        work = self._work.get(exec_)
        if work is not None:
            work.open = is_open

    def step(self) -> None:
        for key, work in list(self._work.items()):
            for _ in range(work.call.burst):
                if work.open and key in self._work:
                    self._go_on(key, work)

    def _go_on(self, key: int, work: Yielding) -> None:
        """Give the next item, or the end."""
        call = work.call
        output = Output(key, [], "", [])
        late = work.next >= call.count
        if not late:
            output.items = [call.item(work.next, key)]
            work.next += 1
        if work.next >= call.count and (late or not call.late):
            del self._work[key]
            if call.fails:
                output.error = FunctionError("as it was told to")
            else:
                output.finish, output.completion_tokens = "stop", call.count
        self.log.append((self._process.world.now, key))
        self._sink([output])
