"""A gateway of a schedule: the real router, with the model of NATS for its I/O."""

from __future__ import annotations

from collections.abc import Callable

from gateway.router import Router
from gateway.session import Session, State
from shared import subjects, wire
from shared.errors import MillstreamError, Overloaded, Unavailable
from tests.simulator.broker import Broker, Connection
from tests.simulator.clients import CallClient, Client
from tests.simulator.member import LATE, Member
from tests.simulator.world import World

GATEWAY_BEAT = 0.5
ASK_LIMIT = 2.0


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
        client.opened_by(self, session)
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
            request_id = subject.rsplit(".", 1)[1]
            if request_id in self.clients:
                self._look(*self.clients[request_id])
            if not (wire.is_token(frame) and self.router.on_token(request_id, frame)):
                self._on_reply(request_id, wire.decode(frame))
        elif isinstance(frame, wire.Heartbeat):
            self.router.on_heartbeat(frame)
        elif isinstance(frame, wire.Announce):
            self.router.on_announce(frame)
        elif not isinstance(frame, wire.GatewayBeat):
            self.router.on_worker(frame)  # type: ignore[arg-type]

    def _look(self, client: Client, session: Session) -> None:
        """What a ready token does not ask for, since it follows from there being no gap."""
        answer = session.answer
        if session.state is State.BOUND and answer.gap_since is None:
            if session.due is not None:
                client.breaks.append("no gap, and something is due")
            if answer.done is not None:
                client.breaks.append("no gap, and the end is known")

    def _on_reply(self, request_id: str, frame: wire.Frame) -> None:
        self.router.on_reply(request_id, frame)
        if isinstance(frame, wire.Parts) and request_id in self.clients:
            client, _ = self.clients[request_id]
            if isinstance(client, CallClient):
                client.watch()

    def on_tick(self) -> float:
        pause = self.router.tick()
        if self.now() >= self._beat:
            self._beat = self.now() + GATEWAY_BEAT
            self.send(subjects.gateway_beat(self.name), wire.GatewayBeat(self.name, slices=True))
        return pause + self.world.random.uniform(0.0, LATE)

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
