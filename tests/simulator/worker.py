"""A worker of a schedule: the real ledger and pulls, with the intake's few lines around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from shared import subjects, wire
from tests.simulator.broker import Broker, Connection, Stored
from tests.simulator.engines import ChainEngine, FunctionEngine, StepEngine
from tests.simulator.member import LATE, TICK, Member
from tests.simulator.world import World
from workers.acks import nak
from workers.engines.base import Job, Output
from workers.ledger import Ledger
from workers.pace import Pace
from workers.parts import PartsPublisher
from workers.pulls import Pull, Pulls
from workers.speaker import COALESCE

BEAT = 0.1
ANNOUNCE = 2.0
SURPLUS = 0.01
LOADING = 0.2
TEAR_AFTER = 0.007
"""Seconds in which a gateway has a first half of an item and not the second."""
MODEL = "m"

Kind = Literal["generation", "stream", "once"]
CARDS: dict[Kind, wire.ModelCard] = {
    "generation": wire.ModelCard(MODEL, "sim", 4096, 1 << 31, "none", "chain", ("resume",), 4),
    "stream": wire.ModelCard(
        MODEL, "app", 0, 0, "", "f", ("predict", "stream", "resume"), 4, b"signature"
    ),
    "once": wire.ModelCard(
        MODEL, "app", 0, 0, "", "f", ("predict", "stream", "once"), 4, b"signature"
    ),
}


class Worker(Member):
    """The real ledger and pulls.

    Args:
        world: Whose time it lives in.
        broker: Whom it dials.
        name: What outlives a restart.
        step: Seconds that a step of its engine takes.
        slots: What it runs at once.
        kind: What it serves.

    Attributes:
        requests: The request of every exec that its engine was given.
        started: These execs, in order.
        tear: Called, once, when it has said a part of an item and not all.
        most_held: Bytes in the longest record of a function's call, ever.
    """

    def __init__(
        self, world: World, broker: Broker, name: str, step: float, slots: int, kind: Kind
    ) -> None:
        self.boot = world.random.getrandbits(32)
        super().__init__(world, broker, f"{name}-{self.boot:08x}")
        self.base = name
        self.slots = slots
        self.card = CARDS[kind]
        self.ledger = Ledger(self.name, self.boot, self, slice_=world.random.choice((1, 2, 64)))
        self.ledger.fingerprint = self.card.fingerprint
        self.ledger.eager = "once" not in self.card.features
        engine = ChainEngine if kind == "generation" else FunctionEngine
        self.engine: StepEngine[Any] = engine(self, self._on_outputs, step)
        self.requests: dict[int, str] = {}
        self.started: list[int] = []
        self.tear: Callable[[], None] | None = None
        self.most_held = 0
        self.draining = False
        self._loading = False
        self._pulls = Pulls()
        self._pace = Pace()
        self._open = False
        self._beats = 0
        self._beat_due = self._announce_due = 0.0
        self.ledger.link_lost()
        if kind != "generation":
            self._loading = True
            self.after(world.random.uniform(0, LOADING), self._loaded)

    @property
    def state(self) -> str:
        """What it says of itself."""
        if self.draining:
            return "draining"
        return "loading" if self._loading else "ready"

    def _loaded(self) -> None:
        self._loading = False
        self._announce()
        self._open = self.link is not None and not self.draining
        self.plan()

    def drain(self, grace: float) -> None:
        """SIGTERM."""
        self.draining = True
        self._open = False
        self._announce()
        self.after(grace, self._hand_over)

    def _hand_over(self) -> None:
        self.ledger.release()
        self.after(2.0, self._leave)
        self._leave_if_settled()

    def _leave_if_settled(self) -> None:
        if self.ledger.settled:
            self._leave()
        else:
            self.after(TICK, self._leave_if_settled)

    def _leave(self) -> None:
        self._announce("gone")
        self.kill()

    def on_connect(self, link: Connection) -> None:
        if link is not self.link:
            return
        self.ledger.link_back()
        self._beat_due = self._announce_due = 0.0
        self._pulls.reset()
        self._open = self.state == "ready"
        self.plan()

    def on_disconnect(self) -> None:
        self._open = False
        self._pulls.reset()
        self.ledger.link_lost()

    def on_message(self, subject: str, frame: object) -> None:
        if subject == subjects.ASK:
            self._announce()
        elif isinstance(frame, wire.GatewayBeat):
            self.ledger.on_gateway_beat(frame)
        else:
            self.ledger.on_control(frame)  # type: ignore[arg-type]

    def on_tick(self) -> float:
        now = self.now()
        self._pace.observe(self.engine.steps, self.ledger.at_work + self.engine.running, now)
        if self.link is not None:
            if now >= self._beat_due:
                self._beat_due = now + BEAT
                self._beats += 1
                beat = wire.Heartbeat(
                    self.name, self._beats, MODEL, self.state, self.engine.steps,
                    self.ledger.at_work, self.slots,
                )  # fmt: skip
                self.send(subjects.heartbeat(self.name), beat)
            if now >= self._announce_due:
                self._announce()
        pause = self.ledger.tick()
        self.plan()
        return pause + self.world.random.uniform(0.0, LATE)

    def _announce(self, state: str = "") -> None:
        self._announce_due = self.now() + ANNOUNCE
        state = state or self.state
        card = self.card if state != "loading" else None
        number = str(self.link.number) if self.link is not None else ""
        frame = wire.Announce(self.name, self.boot, self.base, state, MODEL, card, "", number)
        self.send(subjects.announcement(self.name), frame)

    def _on_outputs(self, outputs: Sequence[Output]) -> None:
        self.ledger.on_outputs(outputs)
        for output in outputs:
            execution = self.ledger.execs.get(output.job)
            if execution is not None and isinstance(execution.publisher, PartsPublisher):
                self.most_held = max(self.most_held, execution.publisher.held)

    # ---- intake ---------------------------------------------------------------------------------

    def _free(self) -> int:
        if self._pace.stuck or self.ledger.full:
            return 0
        return self.slots - self.ledger.running

    def plan(self) -> None:
        if not self._open or self.link is None:
            return
        if self._free() <= 0:
            self._pulls.saturated()
            return
        for pull in self._pulls.plan(self._free(), self.now()):
            self._ask(self.link, pull)

    def _ask(self, link: Connection, pull: Pull) -> None:
        self.broker.ask(
            link,
            lambda: self.broker.pull(
                link, pull.number, pull.urgency, pull.batch, pull.expires,
                self._on_queued, self._on_status,
            ),
            lambda code: self._on_status(pull.number, str(code)) if code else None,
        )  # fmt: skip

    def _on_status(self, number: int, code: str) -> None:
        self._pulls.ended(number, self.now(), failed=code not in ("404", "408"))
        if code == "503" and self.link is not None:
            self.broker.ask(self.link, self.broker.create, lambda _: None)
        self.plan()

    def _on_queued(self, token: str, message: Stored) -> None:
        self._pulls.arrived(message.urgency)
        if not self._open or self._free() <= 0:
            self.ack(token, nak(SURPLUS))
        else:
            request_id, _, attempt = message.message_id.rpartition(".")
            self.ledger.take(
                message.gateway, request_id, int(attempt), token, message.body,
                fresh=token.endswith(".1"), deaths=message.deaths,
            )  # fmt: skip
        self.plan()

    # ---- ledger.Io ------------------------------------------------------------------------------

    def say(self, subject: str, frame: bytes) -> None:
        self.send(subject, frame)
        if self.tear is not None and _cut_short(frame):
            self.world.after(TEAR_AFTER, self.tear)
            self.tear = None

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        self.send(subjects.gateway(gateway), frame)

    def ack(self, token: str, how: bytes) -> None:
        if self.link is not None:
            self.broker.ask(self.link, lambda: self.broker.acknowledge(token, how), lambda _: None)

    def submit(self, job: Job) -> None:
        self.requests[job.id] = self.ledger.execs[job.id].request_id
        self.started.append(job.id)
        self.engine.submit(job)

    def abort(self, exec_: int) -> None:
        self.engine.abort(exec_)

    def window(self, exec_: int, is_open: bool) -> None:
        self.engine.window(exec_, is_open)

    def flush_later(self) -> None:
        self.after(COALESCE, self.ledger.flush)

    def freed(self) -> None:
        self.after(0.0, self.plan)


def _cut_short(frame: bytes) -> bool:
    """Whether a frame ends inside an item."""
    parts = wire.decode(frame) if len(frame) > wire.PART_MOST else None
    return isinstance(parts, wire.Parts) and parts.parts[-1][0] == wire.MORE
