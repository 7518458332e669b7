"""The load client of `benchmarks.apps`, a process of its own; see `benchmarks.client`.

It compares every message with the bytes that are due, once the load is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Self

import uvloop

from benchmarks.accounting import ROOT
from benchmarks.child import SystemFault
from benchmarks.client import Driver, WrongAnswer
from benchmarks.http2 import Answer, messages
from benchmarks.loads import Order


@dataclass(frozen=True, slots=True)
class CallOrder:
    """A load of calls.

    Attributes:
        order: What to call.
        due: The messages of each answer, in hexadecimal.
    """

    order: Order
    due: list[str]


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What it showed.

    Attributes:
        messages: Received.
        seconds: For which calls ran: the pauses between waves are not in it.
        first_ms: Per call, from its writing to its first message.
        call_ms: Per call, to its end.
        wave_ms: Per wave, from its writing to the end of its last call.
    """

    messages: int
    seconds: float
    first_ms: list[float]
    call_ms: list[float]
    wave_ms: list[float]


class CallClient:
    """The load client as a child process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.app_client"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, call: CallOrder) -> None:
        """Carry out an order; returns when the last answer has ended.

        Raises:
            SystemFault: A call failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": call.order.line(), "due": call.due}) + "\n")
        self._process.stdin.flush()
        if (line := self._line()) != "ended":
            raise SystemFault(f"the load client: {line}")

    def outcome(self) -> CallOutcome:
        """What the load showed, once every answer is checked.

        Raises:
            SystemFault: An answer was wrong.
        """
        line = self._line()
        if not line.startswith("{"):
            raise SystemFault(f"the load client: {line}")
        return CallOutcome(**json.loads(line))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def examine(answers: list[Answer], concurrency: int, due: list[bytes]) -> CallOutcome:
    """Check every message and take the times.

    Raises:
        WrongAnswer: A message is missing, doubled, out of order or another.
    """
    first: list[float] = []
    call: list[float] = []
    wave: list[float] = []
    answers = sorted(answers, key=lambda answer: answer.sent_at)
    for start in range(0, len(answers), concurrency):
        batch = answers[start : start + concurrency]
        ends = []
        for answer in batch:
            found = messages(answer.frames, answer.times)
            if [body for _, body in found] != due:
                raise WrongAnswer(f"other messages than were due: {found[:3]!r}")
            assert answer.ended_at is not None
            ends.append(answer.ended_at)
            first.append((found[0][0] - answer.sent_at) * 1e3)
            call.append((answer.ended_at - answer.sent_at) * 1e3)
        wave.append((max(ends) - batch[0].sent_at) * 1e3)
    return CallOutcome(len(answers) * len(due), sum(wave) / 1e3, first, call, wave)


async def carry_out(order: Order, due: list[bytes]) -> CallOutcome:
    """Run a load, say "ended", then check it."""
    answers, _ = await Driver(order).run()
    print("ended", flush=True)
    load = order.load
    found = examine(answers, load.concurrency if load.waves else load.requests, due)
    return found


def main() -> int:
    """Carry out orders until stdin ends."""
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            values = json.loads(line)
            due = [bytes.fromhex(text) for text in values["due"]]
            try:
                found = runner.run(carry_out(Order.parse(values["order"]), due))
            except (WrongAnswer, OSError, ValueError) as error:
                print(f"failed {error!r}", flush=True)
                return 1
            print(json.dumps(asdict(found)), flush=True)
            gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
