"""A ledger whose port is a list of what it asked, and whose clock is set by hand."""

from __future__ import annotations

from itertools import accumulate

from shared import wire
from workers.engines.base import Job, Output
from workers.ledger import Ledger

BOOT = 9


class Io:
    """Writes down what the ledger asks; its clock is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0
        self.said: list[wire.Frame] = []
        self.told: list[wire.Frame] = []
        self.acks: list[bytes] = []
        self.jobs: list[Job] = []
        self.aborted: list[int] = []
        self.windows: list[tuple[int, bool]] = []

    def say(self, subject: str, frame: bytes) -> None:
        self.said.append(wire.decode(frame))

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        self.told.append(frame)

    def ack(self, token: str, how: bytes) -> None:
        self.acks.append(how)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def abort(self, exec_: int) -> None:
        self.aborted.append(exec_)

    def window(self, exec_: int, is_open: bool) -> None:
        self.windows.append((exec_, is_open))

    def flush_later(self) -> None:
        pass

    def freed(self) -> None:
        pass

    def now(self) -> float:
        return self.time


class Case:
    """A ledger with its port."""

    def __init__(self) -> None:
        self.io = Io()
        self.ledger = Ledger("w", BOOT, self.io)
        self.ledger.fingerprint = "print"
        self._taken = 0
        self.slices = True
        self.beat()

    def take(
        self, name: str = "R", *, attempt: int = 0, fresh: bool = True, **changes: object
    ) -> int:
        fields = {"sampling": wire.Sampling(max_tokens=9), **changes}
        request = wire.Request(
            name,
            attempt,
            "g",
            "name",
            "m",
            "hi",
            None,
            None,
            **fields,  # type: ignore[arg-type]
        )
        self.ledger.take("g", name, attempt, "ack", wire.encode(request), fresh=fresh)
        self._taken += 1
        return (BOOT << 31) + self._taken

    def beat(self) -> None:
        self.ledger.on_gateway_beat(wire.GatewayBeat("g", slices=self.slices))

    def wait(self, seconds: float, *, beats: bool = True) -> None:
        until = self.io.time + seconds
        while self.io.time < until:
            self.io.time += 0.02
            if beats:
                self.beat()
            self.ledger.tick()

    def generate(
        self, exec_: int, *ids: int, finish: str | None = None, first: bool = False
    ) -> None:
        text = "".join(f" {token}" for token in ids)
        ends = list(accumulate(len(f" {token}") for token in ids))
        output = Output(exec_, list(ids), text, ends, finish=finish, completion_tokens=len(ids))
        if first:
            output.prompt_ids = (1, 2)
        self.io.time += 0.01
        self.ledger.on_outputs([output])

    def heard(self) -> list[wire.Frame]:
        said, self.io.said = self.io.said, []
        return said
