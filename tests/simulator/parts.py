"""The processes of a schedule: the real machines, with the model of NATS for their I/O."""

from __future__ import annotations

from collections.abc import Callable

from gateway.router import Router
from gateway.session import Session
from shared import subjects, wire
from shared.errors import MillstreamError, Overloaded, Unavailable
from tests.simulator.broker import Broker, Connection, Stored
from tests.simulator.clients import Client
from tests.simulator.world import Process, World
from workers.engines.base import Job, Output
from workers.engines.sim import chain_after, chain_next, chain_seed, chain_tag
from workers.ledger import Ledger, nak
from workers.pace import Pace
from workers.pulls import Pull, Pulls
from workers.speaker import COALESCE

TICK = 0.03
BEAT = 0.1
GATEWAY_BEAT = 0.5
ANNOUNCE = 2.0
MODEL = "m"
SURPLUS = 0.01
ASK_LIMIT = 2.0
POISON = 4242
"""A prompt that begins with this token kills the worker that steps on it."""
CARD = wire.ModelCard(MODEL, "sim", 4096, 1 << 31, "none", "chain", ("resume",), 4)


class Member(Process):
    """A process with a connection to the broker."""

    def __init__(self, world: World, broker: Broker, name: str) -> None:
        super().__init__(world, name)
        self.broker = broker
        self.link: Connection | None = None
        self.connects = 0

    def start(self) -> None:
        """Dial in, and dial again until somebody answers."""
        self._dial()
        self.after(self.world.random.uniform(0, TICK), self._tick)

    def _dial(self) -> None:
        if self.link is not None:
            return
        made: list[Connection] = []
        link = self.broker.connect(self, self.on_message, lambda: self._lost(made))
        if link is None:
            self.after(self.world.random.uniform(0.02, 0.3), self._dial)
            return
        made.append(link)
        self.link = link
        self.connects += 1
        self.broker.ask(link, self.broker.create, lambda _: None)
        self.after(0.003, self.on_connect, link)

    def _lost(self, made: list[Connection]) -> None:
        if self.link is None or not made or self.link is not made[0]:
            return
        self.link = None
        self.on_disconnect()
        self.after(self.world.random.uniform(0.01, 0.1), self._dial)

    def kill(self) -> None:
        super().kill()
        if self.link is not None:
            self.broker.close(self.link)

    def send(self, subject: str, frame: object) -> None:
        """Publish, if there is a connection."""
        if self.link is not None:
            self.broker.publish(self.link, subject, frame)

    def _tick(self) -> None:
        self.on_tick()
        self.after(TICK, self._tick)

    def on_connect(self, link: Connection) -> None:
        """The connection stands."""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """The connection is lost."""

    def on_message(self, subject: str, frame: object) -> None:
        """A message came."""
        raise NotImplementedError

    def on_tick(self) -> None:
        """Time passed."""
        raise NotImplementedError


class Gateway(Member):
    """The real router."""

    def __init__(self, world: World, broker: Broker, name: str, queue_seconds: float) -> None:
        super().__init__(world, broker, name)
        self.router = Router(name, self, queue_seconds=queue_seconds)
        self.ready = False
        self.clients: dict[str, tuple[Client, Session]] = {}
        self._beat = 0.0

    def open(self, client: Client, request: wire.Request, deadline: float | None) -> None:
        """A client's request arrives."""
        if not self.ready:
            client.failed(Unavailable("NATS is away"))
            return
        limit = None if deadline is None else self.now() + deadline
        session = self.router.open(request, client, deadline=limit)
        self.clients[request.id] = (client, session)
        if deadline is not None:
            self.after(deadline, self.leave, request.id)

    def leave(self, request_id: str) -> None:
        """A client goes."""
        client, session = self.clients[request_id]
        if not client.over:
            client.left = self.world.now
        self.router.close(session)

    def on_connect(self, link: Connection) -> None:
        if link is self.link:
            self.ready = True
            self.router.on_connect()

    def on_disconnect(self) -> None:
        self.ready = False

    def on_message(self, subject: str, frame: object) -> None:
        if subject == "gone":
            assert isinstance(frame, tuple)
            if frame[0] in self.router.fleet.workers:
                self.router.on_disconnect(*frame)
        elif subject.startswith("ms.rep."):
            assert isinstance(frame, bytes)
            self.router.on_reply(subject.rsplit(".", 1)[1], wire.decode(frame))
        elif isinstance(frame, wire.Heartbeat):
            self.router.on_heartbeat(frame)
        elif isinstance(frame, wire.Announce):
            self.router.on_announce(frame)
        elif not isinstance(frame, wire.GatewayBeat):
            self.router.on_worker(frame)  # type: ignore[arg-type]

    def on_tick(self) -> None:
        self.router.tick()
        if self.now() >= self._beat:
            self._beat = self.now() + GATEWAY_BEAT
            self.send(subjects.gateway_beat(self.name), wire.GatewayBeat(self.name))

    # ---- router.Io ------------------------------------------------------------------------------

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        link = self.link
        if link is None:
            self.after(0.0, done, Unavailable("NATS is away"))
            return
        sent, key = self.now(), f"{request.id}.{request.attempt}"

        def answered(result: object) -> None:
            if self.now() - sent > ASK_LIMIT:
                return
            if isinstance(result, int):
                done(result)
            else:
                done(Overloaded("full") if result == "full" else Unavailable("no stream"))

        body = wire.encode(request)
        self.broker.ask(
            link,
            lambda: self.broker.store(request.urgency, key, self.name, body, request.deaths),
            answered,
        )

    def unqueue(self, request_id: str, attempt: int, urgency: int, sequence: int) -> None:
        if self.link is not None:
            key = f"{request_id}.{attempt}"
            self.broker.ask(
                self.link, lambda: self.broker.delete(urgency, sequence, key), lambda _: None
            )

    def audit(
        self,
        request_id: str,
        attempt: int,
        urgency: int,
        sequence: int,
        done: Callable[[bool], None],
    ) -> None:
        if self.link is not None:
            key = f"{request_id}.{attempt}"
            self.broker.ask(
                self.link,
                lambda: self.broker.stored(urgency, sequence),
                lambda stored: done(stored == key),
            )

    def tell(self, worker: str, frame: wire.Frame) -> None:
        self.send(subjects.control(worker), frame)

    def echo(self, frame: wire.Echo) -> None:
        self.send(subjects.gateway(self.name), frame)

    def ask_announcements(self) -> None:
        self.send(subjects.ASK, None)


class ChainEngine:
    """Chain mode, a token a job and step; it may hang, with its worker alive."""

    def __init__(self, process: Process, sink: Callable[[list[Output]], None], step: float) -> None:
        self._process = process
        self._sink = sink
        self._step = step
        self._planned = False
        self.steps = 0
        self.hung = False
        self.crashed: Callable[[], None] = lambda: None
        self._work: dict[int, tuple[Job, int, int]] = {}
        self.log: list[tuple[float, int]] = []

    def submit(self, job: Job) -> None:
        ids = job.token_ids or ()
        state = chain_seed(ids)
        for token in job.delivered[0] if job.delivered else ():
            state = chain_after(state, token)
        self._work[job.id] = (job, len(job.delivered[0]) if job.delivered else 0, state)
        self._plan()

    def abort(self, exec_: int) -> None:
        self._work.pop(exec_, None)

    @property
    def running(self) -> int:
        return len(self._work)

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._process.after(self._step, self._do)

    def _do(self) -> None:
        self._planned = False
        if self.hung:
            self._process.after(0.05, self._plan)
            return
        self.steps += 1
        outputs = []
        if any((job.token_ids or (0,))[0] == POISON for job, _, _ in self._work.values()):
            self._process.kill()
            self.crashed()
            return
        for key, (job, count, before) in list(self._work.items()):
            wanted = job.sampling.max_tokens or 1
            first = count == (len(job.delivered[0]) if job.delivered else 0)
            if count >= wanted:
                output = Output(key, [], "", [])
            else:
                token = chain_next(before, chain_tag(key))
                text = f" {token}"
                output = Output(key, [token], text, [len(text)])
                count += 1
                self._work[key] = (job, count, chain_after(before, token))
            if first:
                output.prompt_ids = job.token_ids
            if count >= wanted:
                output.finish, output.completion_tokens = "length", count
                del self._work[key]
            outputs.append(output)
            self.log.append((self._process.world.now, key))
        if outputs:
            self._sink(outputs)
        if self._work:
            self._plan()


class Worker(Member):
    """The real ledger and pulls, with the intake's few lines around them."""

    def __init__(self, world: World, broker: Broker, name: str, step: float, slots: int) -> None:
        self.boot = world.random.getrandbits(32)
        super().__init__(world, broker, f"{name}-{self.boot:08x}")
        self.base = name
        self.slots = slots
        self.ledger = Ledger(self.name, self.boot, self)
        self.ledger.fingerprint = CARD.fingerprint
        self.engine = ChainEngine(self, self.ledger.on_outputs, step)
        self.requests: dict[int, str] = {}
        self.draining = False
        self._pulls = Pulls()
        self._pace = Pace()
        self._open = False
        self._beats = 0
        self._beat_due = self._announce_due = 0.0
        self.ledger.link_lost()

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
        self._open = not self.draining
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

    def on_tick(self) -> None:
        now = self.now()
        self._pace.observe(self.engine.steps, self.ledger.at_work + self.engine.running, now)
        if self.link is not None:
            if now >= self._beat_due:
                self._beat_due = now + BEAT
                self._beats += 1
                state = "draining" if self.draining else "ready"
                beat = wire.Heartbeat(
                    self.name, self._beats, MODEL, state, self.engine.steps, self.ledger.at_work,
                    self.slots,
                )  # fmt: skip
                self.send(subjects.heartbeat(self.name), beat)
            if now >= self._announce_due:
                self._announce()
        self.ledger.tick()
        self.plan()

    def _announce(self, state: str = "") -> None:
        self._announce_due = self.now() + ANNOUNCE
        state = state or ("draining" if self.draining else "ready")
        number = str(self.link.number) if self.link is not None else ""
        frame = wire.Announce(self.name, self.boot, self.base, state, MODEL, CARD, "", number)
        self.send(subjects.announcement(self.name), frame)

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

    def say(self, gateway: str, request_id: str, frame: bytes) -> None:
        self.send(subjects.reply(gateway, request_id), frame)

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        self.send(subjects.gateway(gateway), frame)

    def ack(self, token: str, how: bytes) -> None:
        if self.link is not None:
            self.broker.ask(self.link, lambda: self.broker.acknowledge(token, how), lambda _: None)

    def submit(self, job: Job) -> None:
        execution = self.ledger.execs[job.id]
        self.requests[job.id] = execution.request_id
        self.engine.submit(job)

    def abort(self, exec_: int) -> None:
        self.engine.abort(exec_)

    def flush_later(self) -> None:
        self.after(COALESCE, self.ledger.flush)

    def freed(self) -> None:
        self.after(0.0, self.plan)
