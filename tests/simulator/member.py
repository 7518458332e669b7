"""A process of a schedule with a connection to the broker."""

from __future__ import annotations

from tests.simulator.broker import Broker, Connection
from tests.simulator.world import Process, World

TICK = 0.03
LATE = 0.01
"""Seconds by which a tick may come too late."""


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
        self.after(self.on_tick(), self._tick)

    def on_connect(self, link: Connection) -> None:
        """The connection stands."""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """The connection is lost."""

    def on_message(self, subject: str, frame: object) -> None:
        """A message came."""
        raise NotImplementedError

    def on_tick(self) -> float:
        """Time passed; returns in how many seconds to say so again."""
        raise NotImplementedError
