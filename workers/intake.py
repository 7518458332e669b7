"""Pulls requests from the queues: JetStream pull requests of our own, standing at the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import structlog
from nats.errors import Error as NatsError

from shared import subjects
from shared.bus import Bus
from shared.streams import StreamConfigError, ensure_consumers, ensure_streams
from shared.telemetry import rare
from shared.wire import envelope
from workers.acks import TERM, deliveries, nak
from workers.pulls import Pull, Pulls

log = structlog.get_logger(__name__)

SURPLUS_DELAY = 0.01
"""Seconds for which what came when no slot was free is offered to nobody."""
_SURPLUS_NAK = nak(SURPLUS_DELAY)


class Take(Protocol):
    """Gets each message: see `Ledger.take`."""

    def __call__(
        self,
        gateway: str,
        request_id: str,
        attempt: int,
        token: str,
        body: bytes,
        *,
        fresh: bool,
        deaths: int,
    ) -> None:
        """Take it."""


class Intake:
    """The pulls of one worker.

    Args:
        bus: The connection.
        model: The served name.
        free: Says how many requests could start now.
        take: Gets each message.
        events: Counts, by name, the messages that were given back because no slot was free when
            they came (surplus), and those that name no gateway and attempt (malformed).
        floor: See `Pulls`.
        signature: A function's fingerprint, or "".
        replace: See `ensure_consumers`.
        spare: Says how many more would rather be taken than given back; as `free` if not given.
    """

    def __init__(
        self,
        bus: Bus,
        model: str,
        free: Callable[[], int],
        take: Take,
        events: Counter[str],
        *,
        floor: float = 0.05,
        signature: str = "",
        replace: bool = False,
        spare: Callable[[], int] | None = None,
    ) -> None:
        self._bus = bus
        self._model = model
        self._signature = signature
        self._replace = replace
        self._free = free
        self._spare = free if spare is None else spare
        self._take = take
        self._events = events
        self._stopped = False
        self._pulls = Pulls(floor)
        self._inbox = ""
        self._open = False
        self._planned = False
        self._preparing: asyncio.Task[None] | None = None
        self._next = [
            f"$JS.API.CONSUMER.MSG.NEXT.{subjects.stream_of(urgency)}."
            f"{subjects.consumer(model, urgency)}"
            for urgency in range(len(subjects.CLASSES))
        ]

    async def start(self) -> None:
        """Listen, create what is missing, and begin to pull.

        Raises:
            StreamConfigError: A stream or consumer exists that is not ours.
        """
        self._inbox = self._bus.new_inbox()
        await self._bus.client.listen(f"{self._inbox}.*", self._on_message)
        self._bus.on_connect.append(self._reconnected)
        self._bus.on_disconnect.append(self._disconnected)
        await self._prepare()

    def stop(self) -> None:
        """Pull no more; what still arrives is given back."""
        self._stopped = True
        self._open = False
        if self._preparing is not None:
            self._preparing.cancel()

    def plan_soon(self) -> None:
        """A slot may be free, or a pull used up: plan once all that came with it is seen."""
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._plan_now)

    def _plan_now(self) -> None:
        self._planned = False
        self.plan()

    def plan(self) -> None:
        """Ask for what can be started; called now and then too."""
        if not self._open:
            return
        free = self._free()
        if free <= 0:
            self._pulls.saturated()
            return
        for pull in self._pulls.plan(free, time.monotonic()):
            self._ask(pull)

    def _ask(self, pull: Pull) -> None:
        body: dict[str, object] = {"batch": pull.batch}
        if pull.expires is None:
            body["no_wait"] = True
        else:
            body["expires"] = int(pull.expires * 1e9)
        reply = f"{self._inbox}.{pull.number}"
        self._bus.publish(self._next[pull.urgency], json.dumps(body).encode(), reply=reply)

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        last = subject.rsplit(b".", 1)[1].decode()
        if not reply:
            self._on_status(int(last), headers)
            return
        self._pulls.arrived(subjects.CLASSES.index(last))  # It comes under its own subject.
        token = reply.decode()
        if not self._open or self._spare() <= 0:
            self._events["surplus"] += 1
            self._bus.publish(token, _SURPLUS_NAK)
            return
        try:
            gateway, request_id, attempt, deaths = envelope.identity(headers)
            fresh = deliveries(token) == 1
        except ValueError as error:
            self._events["malformed"] += 1
            count = self._events["malformed"]
            if rare(count):
                log.warning("malformed_request", error=str(error), count=count)
            self._bus.publish(token, TERM)
        else:
            self._take(gateway, request_id, attempt, token, data, fresh=fresh, deaths=deaths)
        self.plan_soon()

    def _on_status(self, number: int, headers: bytes) -> None:
        """404 nothing there, 408 expired, 409 leader or consumer changed, 503 no consumer."""
        code = headers[9:12]
        self._pulls.ended(number, time.monotonic(), failed=code not in (b"404", b"408"))
        if code in (b"409", b"503"):
            self._prepare_soon()
        self.plan_soon()

    # ---- the connection -------------------------------------------------------------------------

    def _disconnected(self) -> None:
        self._open = False
        self._pulls.reset()

    def _reconnected(self) -> None:
        self._pulls.reset()
        self._prepare_soon()

    def _prepare_soon(self) -> None:
        if not self._stopped and (self._preparing is None or self._preparing.done()):
            self._preparing = asyncio.get_running_loop().create_task(self._prepare_again())

    async def _prepare_again(self) -> None:
        try:
            await self._prepare()
        except StreamConfigError as error:
            log.error("stream_config", error=str(error))

    async def _prepare(self) -> None:
        """Make sure that streams and consumers exist: a server may have lost its storage."""
        while True:
            try:
                await ensure_streams(self._bus)
                await ensure_consumers(
                    self._bus, self._model, self._signature, replace=self._replace
                )
            except (TimeoutError, NatsError, OSError) as error:
                log.warning("queues_not_ready", error=repr(error))
                await asyncio.sleep(0.25)
            else:
                self._open = not self._stopped and self._bus.connected
                self.plan()
                return
