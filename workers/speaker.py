"""What execs say: an engine's outputs as frames on their requests' reply subjects. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared import wire
from shared.errors import FunctionError, MillstreamError
from workers.engines.base import Output
from workers.execution import Execution, State
from workers.parts import PartsPublisher
from workers.ports import Io
from workers.publisher import Publisher

COALESCE = 0.002
"""Seconds for which tokens wait to travel together, where one was sent just before."""
CROWD = 16
"""For each so many execs that wait to be flushed all wait `COALESCE` longer, at most `MOST_HELD`
times: the more speak at once, the more each message carries."""
MOST_HELD = 3
TERMINAL_EVERY = 0.2


class Speaker:
    """Speaks for the execs of a worker.

    Args:
        io: Publishes.
        ended: Told once an exec's last word is said.

    Attributes:
        fingerprint: Of the model that is served.
        kept: Tokens in the records.
        tokens: Tokens published since the start.
    """

    def __init__(self, io: Io, ended: Callable[[Execution], None]) -> None:
        self.fingerprint = ""
        self.kept = 0
        self.tokens = 0
        self._io = io
        self._say = io.say
        self._ended = ended
        self._dirty: list[Execution] = []
        self._flush_planned = False
        self._held = 0

    def on_outputs(self, execs: Mapping[int, Execution], outputs: Sequence[Output]) -> None:
        """Publish what a step generated: first tokens, then ends.

        An end costs a gateway as much as ten tokens, for which those of others need not wait.
        """
        now = self._io.now()
        paused = now - COALESCE
        ended = State.ENDED
        ends: list[tuple[Execution, Output]] = []
        tokens = 0
        for output in outputs:
            execution = execs.get(output.job)
            if execution is None or execution.state is ended:
                continue
            if output.prompt_ids is not None:
                self._begun(execution, output)
            if output.items:
                self._items(execution, output.items, now)
            elif output.token_ids:
                publisher = execution.publisher
                assert type(publisher) is Publisher
                ids = output.token_ids
                tokens += len(ids)
                logprobs = None if output.logprobs is None else _plain(output.logprobs)
                if execution.dirty or execution.sent_at > paused:
                    publisher.add(output.choice, ids, output.text, output.ends, logprobs)
                    self._wait(execution)
                else:  # After a pause, alone.
                    execution.sent_at = now
                    self._say(
                        execution.subject,
                        publisher.say(output.choice, ids, output.text, output.ends, logprobs),
                    )
            if output.finish is not None or output.error is not None:
                ends.append((execution, output))
        self.tokens += tokens
        self.kept += tokens
        for execution, output in ends:
            if execution.state is ended:
                continue
            if output.error is not None:
                self.fail(execution, output.error)
            else:
                self._finish(execution, output)

    def _begun(self, execution: Execution, output: Output) -> None:
        begun = wire.Begun(
            execution.attempt, execution.exec, wire.pack_ids(output.prompt_ids or ()),
            output.cached_tokens, self.fingerprint,
        )  # fmt: skip
        execution.begun = wire.encode(begun)
        self._say(execution.subject, execution.begun)

    def _items(self, execution: Execution, items: Sequence[bytes], now: float) -> None:
        publisher = execution.publisher
        assert isinstance(publisher, PartsPublisher)
        self.tokens += len(items)
        publisher.add(items)
        self.restrain(execution)
        if execution.dirty or execution.sent_at > now - COALESCE:
            self._wait(execution)
        else:
            execution.sent_at = now
            self.send(execution)

    def restrain(self, execution: Execution) -> None:
        """A function whose window is used up yields no more."""
        publisher = execution.publisher
        if (
            execution.open
            and isinstance(publisher, PartsPublisher)
            and publisher.held >= wire.WINDOW
        ):
            execution.open = False
            self._io.window(execution.exec, False)

    def acknowledge(self, execution: Execution, frontiers: Sequence[int]) -> None:
        """The gateway has these; a function whose client caught up goes on."""
        publisher = execution.publisher
        self.kept -= publisher.acknowledge(frontiers)
        if (
            not execution.open
            and isinstance(publisher, PartsPublisher)
            and publisher.held <= wire.WINDOW // 2
        ):
            execution.open = True
            self._io.window(execution.exec, True)

    def send(self, execution: Execution) -> None:
        """Publish what was generated and not yet sent."""
        execution.dirty = False
        for frame in execution.publisher.flush():
            self._say(execution.subject, frame)

    def _wait(self, execution: Execution) -> None:
        """What follows closely on what was sent waits to travel together."""
        if execution.dirty:
            return
        execution.dirty = True
        self._dirty.append(execution)
        if not self._flush_planned:
            self._flush_planned = True
            self._io.flush_later()

    def flush(self) -> None:
        """Send what was held back to travel together, or hold it once more where many wait."""
        if self._held < min(MOST_HELD, len(self._dirty) // CROWD):
            self._held += 1
            self._io.flush_later()
            return
        self._held = 0
        self._flush_planned = False
        now = self._io.now()
        dirty, self._dirty = self._dirty, []
        for execution in dirty:
            if execution.dirty and execution.state is not State.ENDED:
                execution.sent_at = now
                self.send(execution)

    def _finish(self, execution: Execution, output: Output) -> None:
        execution.reasons[output.choice] = output.finish
        execution.tokens += output.completion_tokens
        reasons = [reason for reason in execution.reasons if reason is not None]
        if len(reasons) < len(execution.reasons):
            return
        if execution.dirty:
            self.send(execution)
        done = wire.Done(
            execution.attempt, execution.exec, execution.publisher.totals, tuple(reasons),
            execution.tokens,
        )  # fmt: skip
        self.end(execution, wire.encode(done))

    def fail(self, execution: Execution, error: MillstreamError) -> None:
        """End an exec with an error."""
        self.send(execution)
        code, status = (error.code, error.status) if isinstance(error, FunctionError) else (0, b"")
        failed = wire.Failed(
            execution.attempt, execution.exec, error.kind, error.message, error.field,
            error.retry_after, code, status,
        )  # fmt: skip
        self.end(execution, wire.encode(failed))

    def end(self, execution: Execution, terminal: bytes) -> None:
        """Say the last word; it is repeated until its arrival is told."""
        execution.state = State.ENDED
        execution.terminal = terminal
        self.repeat(execution, self._io.now())
        self._ended(execution)

    def repeat(self, execution: Execution, now: float) -> None:
        """Say the last word, again."""
        execution.terminal_due = now + TERMINAL_EVERY
        self._say(execution.subject, execution.terminal or b"")

    def resend(self, execution: Execution, choice: int, index: int, *, begun: bool) -> None:
        """Say again what the record holds of a choice from `index` on, and the last word."""
        if begun and execution.begun is not None:
            self._say(execution.subject, execution.begun)
        for frame in execution.publisher.resend(choice, index):
            self._say(execution.subject, frame)
        if execution.terminal is not None:
            self._say(execution.subject, execution.terminal)

    def say_again(self, execution: Execution) -> None:
        """Say everything again: it was said while nobody listened."""
        for choice in range(execution.publisher.choices):
            self.resend(execution, choice, 0, begun=choice == 0)


def _plain(logprobs: Sequence[wire.TokenLogprobs]) -> list[Any]:
    return [(entry.logprob, entry.top) for entry in logprobs]
