"""The gateway's side of NATS: frames in to the router, what the router asks out, time; thin."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import structlog
from nats.errors import Error as NatsError

from gateway.cancels import Cancels
from gateway.frames import Frames
from gateway.queue import Queue
from gateway.router import Router
from shared import subjects, wire
from shared.bus import Bus
from shared.streams import StreamConfigError, ensure_streams
from shared.ticks import Rest

log = structlog.get_logger(__name__)

BEAT_EVERY = 0.5
EARLY = 0.1
"""Seconds by which a beat may come early, with a tick: a wake-up less, here and at every worker."""
TICK_LEAST = 0.05
"""Seconds after a tick from which on the next one comes with a heartbeat, and not by its timer."""
DEAD_BEATS = 4
HEAR_WORKERS = 0.2
"""Seconds that workers get to say what they serve before a new gateway takes requests."""


class Link:
    """One gateway on the bus.

    Attributes:
        router: Who hears what arrives.
        cancels: Ends requests, here and at other gateways.
        ready: Whether NATS is there and the streams exist.
        peers: Other gateways that live, by name, with the time of their last beat.
        publish, unqueue, audit: See `ports.Io`; the queue's own.
    """

    def __init__(
        self,
        bus: Bus,
        gateway: str,
        *,
        max_queue: int,
        queue_seconds: float,
        refuse_late: bool = True,
    ) -> None:
        self._bus = bus
        self._gateway = gateway
        self._max_queue = max_queue
        self._queue = queue = Queue(bus, ttl=max(1, int(queue_seconds) + 1))
        self.publish, self.unqueue, self.audit = queue.publish, queue.unqueue, queue.audit
        self.router: Router = Router(
            gateway, self, queue_seconds=queue_seconds, refuse_late=refuse_late
        )
        bus.client.events = self.router.events  # What befalls the connection is seen there too.
        self._frames = frames = Frames(self.router.events)
        self.ready = False
        self.peers: dict[str, float] = {}
        self._own = subjects.gateway(gateway)
        self._beat_due = 0.0
        self._ticked = 0.0
        self._rest = Rest()
        self._preparing: asyncio.Task[None] | None = None
        self.on_ready: Callable[[bool], None] = lambda _ready: None

        prefix = subjects.reply(gateway, "")
        self._prefix_length = len(prefix)
        bus.listen(subjects.replies(gateway), self._on_reply)
        bus.listen(self._own, frames.every(self.router.on_worker))
        bus.listen(subjects.HEARTBEATS, frames.only(wire.Heartbeat, self._on_heartbeat))
        bus.listen(subjects.ANNOUNCEMENTS, frames.only(wire.Announce, self.router.on_announce))
        bus.listen(subjects.GATEWAY_BEATS, frames.only(wire.GatewayBeat, self._on_gateway_beat))
        self.cancels = Cancels(bus, gateway, self.router, frames, self.peers)
        bus.listen(subjects.DISCONNECTS, self._on_disconnect)
        bus.on_connect.append(self._on_connect)
        bus.on_disconnect.append(self._on_bus_lost)

    # ---- life -----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Connect and keep time until cancelled."""
        await self._bus.start()
        while True:
            pause = self.router.tick()
            if self.now() + EARLY >= self._beat_due:
                self._beat()
            self._ticked = self.now()
            await self._rest.for_(min(pause, self._beat_due - self._ticked))

    async def close(self) -> None:
        """Say good-bye and leave."""
        self._bus.publish(
            subjects.gateway_beat(self._gateway),
            wire.encode(wire.GatewayBeat(self._gateway, gone=True)),
        )
        self._queue.close()
        if self._preparing is not None:
            self._preparing.cancel()
        await self._bus.close()

    def _beat(self) -> None:
        now = self.now()
        self._beat_due = now + BEAT_EVERY
        self._bus.publish(
            subjects.gateway_beat(self._gateway),
            wire.encode(wire.GatewayBeat(self._gateway, slices=True)),
        )
        horizon = now - DEAD_BEATS * BEAT_EVERY
        for name in [name for name, seen in self.peers.items() if seen < horizon]:
            del self.peers[name]

    def _on_connect(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        self._beat()
        self._preparing = asyncio.get_running_loop().create_task(self._prepare())

    def _on_bus_lost(self) -> None:
        self._set_ready(False)

    async def _prepare(self) -> None:
        """After a (re)connect: the streams may be gone with the server's storage."""
        while True:
            try:
                await ensure_streams(self._bus, self._max_queue)
            except StreamConfigError as error:
                log.error("stream_config", error=str(error))
                return
            except (TimeoutError, NatsError, OSError) as error:
                log.warning("streams_not_ready", error=repr(error))
                await asyncio.sleep(0.25)
            else:
                break
        self.router.on_connect()
        if not self.router.fleet.workers:
            await asyncio.sleep(HEAR_WORKERS)
        self._set_ready(True)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.on_ready(ready)

    # ---- what arrives ---------------------------------------------------------------------------

    def _on_reply(self, subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        request_id = subject[self._prefix_length :].decode(errors="replace")
        if wire.is_token(data) and self.router.on_token(request_id, data):
            return
        frame = self._frames.read(subject, data)
        if frame is not None:
            self.router.on_reply(request_id, frame)

    def _on_heartbeat(self, frame: wire.Heartbeat) -> None:
        self.router.on_heartbeat(frame)
        if self.now() - self._ticked > TICK_LEAST:
            self._rest.end()

    def _on_gateway_beat(self, frame: wire.GatewayBeat) -> None:
        if frame.gone:
            self.peers.pop(frame.gateway, None)
        elif frame.gateway != self._gateway:
            if frame.gateway not in self.peers:
                self._beat()  # Who is new hears of this one now.
            self.peers[frame.gateway] = self.now()

    def _on_disconnect(self, subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            event = json.loads(data)
            name = event["client"].get("name", "")
            connection = f"{event['server']['id']}/{event['client']['id']}"
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            self._frames.bad(subject, error)
            return
        self.router.on_disconnect(name, connection)

    # ---- what the router asks (router.Io) -------------------------------------------------------

    now = staticmethod(time.monotonic)

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send to a worker."""
        self._bus.publish(subjects.control(worker), wire.encode(frame))

    def echo(self, frame: wire.Echo) -> None:
        """Send to oneself through the broker."""
        self._bus.publish(self._own, wire.encode(frame))

    def ask_announcements(self) -> None:
        """Ask all workers who they are."""
        self._bus.publish(subjects.ASK, b"")
