"""A model of NATS: core messages, two JetStream work queues, and what goes wrong with them.

Modelled, since the protocol leans on it or must survive it: order within a connection; acks that
are lost; redelivery after ack_wait; pulls that outlive the process that made them; the duplicate
window that forgets consumed ids at a restart; sequences that start over when storage is lost, so
that a late ack may hit another message; DISCONNECT events that come late or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from shared import subjects
from tests.simulator.world import Process, World

ACK_WAIT = {True: 0.15, False: 1.0}
STALE_AFTER = 5.0
LARGE = 2**14
BANDWIDTH = 1e8
"""Bytes from which on a message takes time, and bytes a second: its sender may die meanwhile."""

Deliver = Callable[[str, object], None]
OnStatus = Callable[[int, str], None]
"""Takes the pull's number and the code."""


@dataclass(slots=True)
class Weather:
    """What the network does to a message."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class Connection:
    """One process's connection."""

    process: Process
    number: int
    deliver: Deliver
    lost: Callable[[], None]
    open: bool = True
    dark: bool = False
    order: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Stored:
    """A queued message."""

    urgency: int
    message_id: str
    gateway: str
    body: bytes
    deaths: int = 0
    deadline: float | None = None
    deliveries: int = 0


OnMessage = Callable[[str, Stored], None]
"""Takes the ack's token and the message."""


@dataclass(slots=True, eq=False)
class Pull:
    """A pull that waits."""

    connection: Connection
    number: int
    left: int
    until: float
    on_message: OnMessage
    on_status: OnStatus


class Stream:
    """One work queue with a consumer a class."""

    def __init__(self) -> None:
        self.messages: dict[int, Stored] = {}
        self.last = 0
        self.known: dict[str, int] = {}
        self.pulls: dict[int, deque[Pull]] = {urgency: deque() for urgency in range(4)}


class Broker:
    """One nats-server.

    Args:
        world: The clock.
        events: Whether it tells of lost connections.
        most: Queued messages a class.
    """

    def __init__(self, world: World, *, events: bool, most: int = 1000) -> None:
        self.world = world
        self.weather = Weather()
        self.up = True
        self.streams: dict[bool, Stream] | None = None
        self._events = events
        self._most = most
        self._connections: list[Connection] = []
        self._numbers = 0
        self._life = 0

    # ---- connections ----------------------------------------------------------------------------

    def connect(
        self, process: Process, deliver: Deliver, lost: Callable[[], None]
    ) -> Connection | None:
        """A process dials in; None while nobody answers."""
        if not self.up:
            return None
        self._numbers += 1
        connection = Connection(process, self._numbers, deliver, lost)
        self._connections.append(connection)
        return connection

    def close(self, connection: Connection, *, told_after: float = 0.002) -> None:
        """A connection ends; both ends notice, and the others hear of it."""
        if not connection.open:
            return
        connection.open = False
        self._connections.remove(connection)
        if self.streams is not None:
            for stream in self.streams.values():
                for urgency, pulls in stream.pulls.items():
                    stream.pulls[urgency] = deque(p for p in pulls if p.connection.open)
        connection.process.receive(connection.lost)
        if self._events:
            self.world.after(
                told_after, self._tell_gone, connection.process.name, str(connection.number)
            )

    def _tell_gone(self, name: str, number: str) -> None:
        if self.up:
            self._fan_out(None, "gone", (name, number))

    def darken(self, connection: Connection) -> None:
        """A black hole: nothing passes, and each end finds out in its own time."""
        connection.dark = True
        self.world.after(1.3, connection.process.receive, connection.lost)
        self.world.after(STALE_AFTER, self.close, connection)

    def kill(self) -> None:
        """The server dies."""
        self.up = False
        self._life += 1
        for connection in list(self._connections):
            connection.open = False
            connection.process.receive(connection.lost)
        self._connections.clear()
        if self.streams is not None:
            for stream in self.streams.values():
                stream.pulls = {urgency: deque() for urgency in range(4)}

    def restart(self, *, lose: bool) -> None:
        """It comes back, with its storage or without."""
        self.up = True
        if lose or self.streams is None:
            self.streams = None
            return
        for resume, stream in self.streams.items():
            stream.known = {m.message_id: seq for seq, m in stream.messages.items()}
            for message in stream.messages.values():
                if message.deadline is not None:
                    message.deadline = self.world.now + ACK_WAIT[resume]
        self.pump()

    def create(self) -> None:
        """The streams are made, if they are missing."""
        if self.streams is None:
            self.streams = {True: Stream(), False: Stream()}

    # ---- core -----------------------------------------------------------------------------------

    def publish(self, connection: Connection, subject: str, frame: object) -> None:
        """A core message."""
        if connection.open and not connection.dark:
            self._fan_out(connection, subject, frame)

    def _fan_out(self, source: Connection | None, subject: str, frame: object) -> None:
        for target in self._connections:
            if _wants(target.process.name, subject) and not target.dark:
                if isinstance(frame, bytes) and len(frame) >= LARGE and source is not None:
                    self._carry_slowly(source, target, subject, frame)
                else:
                    self._carry(source, target, subject, frame)

    def _carry_slowly(
        self, source: Connection, target: Connection, subject: str, frame: bytes
    ) -> None:
        """What is large waits for a sender that stops, and is lost with its connection."""
        begin = max(self.world.now, target.order.get(source.number, 0.0))
        end = target.order[source.number] = begin + len(frame) / BANDWIDTH

        def through() -> None:
            if source.open and not source.dark:
                self._carry(source, target, subject, frame)

        self.world.at(end, source.process.receive, through)

    def _carry(
        self, source: Connection | None, target: Connection, subject: str, frame: object
    ) -> None:
        key = source.number if source is not None else 0
        chance = self.world.random.random
        weather = self.weather
        if chance() < weather.drop:
            return
        arrival = self.world.now + 0.0003 + 0.0007 * chance()
        if chance() < weather.delay:
            arrival += 0.2 * chance()  # Overtaken by what is said later.
        else:
            arrival = max(arrival, target.order.get(key, 0.0))
            target.order[key] = arrival
        self.world.at(arrival, self._arrive, target, subject, frame)
        if chance() < weather.duplicate:
            self.world.at(arrival + 0.05 * chance(), self._arrive, target, subject, frame)

    def _arrive(self, target: Connection, subject: str, frame: object) -> None:
        if target.open and not target.dark:
            target.process.receive(self._hand_over, target, subject, frame)

    def _hand_over(self, target: Connection, subject: str, frame: object) -> None:
        if target.open:  # What waited in a socket that was reset meanwhile is gone.
            target.deliver(subject, frame)

    # ---- requests to JetStream ------------------------------------------------------------------

    def ask(
        self, connection: Connection, call: Callable[[], object], reply: Callable[..., None]
    ) -> None:
        """Have the server do something and answer; either way may be lost."""
        if not connection.open or connection.dark or self._lost():
            return
        self.world.after(0.0004, self._answer, connection, call, reply, self._life)

    def _answer(
        self,
        connection: Connection,
        call: Callable[[], object],
        reply: Callable[..., None],
        life: int,
    ) -> None:
        if life != self._life or not self.up:
            return
        result = call()
        if connection.open and not connection.dark and not self._lost():
            self.world.after(0.0004, connection.process.receive, reply, result)

    def _lost(self) -> bool:
        return self.world.random.random() < self.weather.drop

    def store(
        self, urgency: int, message_id: str, gateway: str, body: bytes, deaths: int
    ) -> int | str:
        """Queue a message; its sequence, or what is wrong."""
        if self.streams is None:
            return "away"
        stream = self.streams[urgency == 0]
        known = stream.known.get(message_id)
        if known is not None:
            return known
        if urgency and sum(m.urgency == urgency for m in stream.messages.values()) >= self._most:
            return "full"
        stream.last += 1
        stream.known[message_id] = stream.last
        stream.messages[stream.last] = Stored(urgency, message_id, gateway, body, deaths)
        self.pump()
        return stream.last

    def stored(self, urgency: int, sequence: int) -> str | None:
        """The message id under a sequence."""
        if self.streams is None:
            return None
        message = self.streams[urgency == 0].messages.get(sequence)
        return message.message_id if message is not None else None

    def delete(self, urgency: int, sequence: int, message_id: str) -> None:
        """Take a message out, if it is the one."""
        if self.stored(urgency, sequence) == message_id and self.streams is not None:
            del self.streams[urgency == 0].messages[sequence]

    def pull(
        self,
        connection: Connection,
        number: int,
        urgency: int,
        batch: int,
        expires: float | None,
        on_message: OnMessage,
        on_status: OnStatus,
    ) -> str:
        """Ask for messages; without `expires` only for what is there."""
        if self.streams is None:
            return "503"
        if not connection.open:
            return ""
        until = self.world.now + (expires or 0.0)
        pull = Pull(connection, number, batch, until, on_message, on_status)
        pulls = self.streams[urgency == 0].pulls[urgency]
        pulls.append(pull)
        self.pump()
        if expires is None and pull.left:
            pulls.remove(pull)
            return "404"
        if expires is not None:
            self.world.after(expires, self._expire, pull, urgency, self._life)
        return ""

    def _expire(self, pull: Pull, urgency: int, life: int) -> None:
        if life != self._life or self.streams is None:
            return
        pulls = self.streams[urgency == 0].pulls[urgency]
        if pull in pulls:
            pulls.remove(pull)
            if pull.connection.open and not pull.connection.dark:
                pull.connection.process.receive(pull.on_status, pull.number, "408")

    def acknowledge(self, token: str, how: bytes) -> None:
        """An ack, a nak, a term or word of progress for a delivery."""
        if self.streams is None:
            return
        resume, sequence = token.split(".")[0] == "R", int(token.split(".")[1])
        stream = self.streams[resume]
        message = stream.messages.get(sequence)
        if message is None or message.deadline is None:
            return
        if how.startswith((b"+ACK", b"+TERM")):
            del stream.messages[sequence]
        elif how.startswith(b"+WPI"):
            self._await_ack(stream, sequence, message, ACK_WAIT[resume])
        else:
            delay = int(how.split(b":")[1].strip(b" }")) / 1e9 if b":" in how else 0.0
            self._await_ack(stream, sequence, message, delay)

    def _await_ack(self, stream: Stream, sequence: int, message: Stored, wait: float) -> None:
        message.deadline = self.world.now + wait
        self.world.after(wait, self._due, stream, sequence)

    def _due(self, stream: Stream, sequence: int) -> None:
        if self.up and self.streams is not None and stream in self.streams.values():
            self.pump()

    def pump(self) -> None:
        """Give what is there to whom waits, oldest first."""
        if not self.up or self.streams is None:
            return
        now = self.world.now
        for resume, stream in self.streams.items():
            for sequence, message in list(stream.messages.items()):
                if message.deadline is not None and message.deadline > now + 1e-9:
                    continue
                pull = self._oldest(stream, message.urgency)
                if pull is None:
                    continue
                self._await_ack(stream, sequence, message, ACK_WAIT[resume])
                if pull.connection.dark or self._lost():
                    continue
                message.deliveries += 1
                token = f"{'R' if resume else 'Q'}.{sequence}.{message.deliveries}"
                self.world.after(
                    0.0004, pull.connection.process.receive, self._offer, pull, token, message
                )

    def _offer(self, pull: Pull, token: str, message: Stored) -> None:
        if pull.connection.open:
            pull.on_message(token, message)

    def _oldest(self, stream: Stream, urgency: int) -> Pull | None:
        pulls = stream.pulls[urgency]
        while pulls:
            pull = pulls[0]
            if not pull.connection.open:
                pulls.popleft()
                continue
            pull.left -= 1
            if pull.left == 0:
                pulls.popleft()
            return pull
        return None


def _wants(name: str, subject: str) -> bool:
    """Whether a process listens to a subject: gateways are `g...`, workers `w...`."""
    kind, _, rest = subject.removeprefix("ms.").partition(".")
    gateway = name.startswith("g")
    if kind == "rep":
        return gateway and rest.startswith(f"{name}.")
    if kind in ("gw", "ctl"):
        return rest == name
    if subject == subjects.ASK:
        return not gateway
    return gateway or kind == "gwhb"
