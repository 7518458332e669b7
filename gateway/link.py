"""The gateway's side of NATS: frames in to the router, what the router asks out; thin."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from nats.errors import Error as NatsError

from gateway.router import Router
from shared import subjects, wire
from shared.bus import Bus, parse_puback
from shared.errors import Cancelled, MillstreamError, Unavailable
from shared.natsio import rare
from shared.streams import StreamConfigError, ensure_streams
from shared.ticks import Rest

log = structlog.get_logger(__name__)

BEAT_EVERY = 0.5
EARLY = 0.1
"""Seconds by which a beat may come early, with a tick: a wake-up less, here and at every worker."""
TICK_LEAST = 0.05
"""Seconds after a tick from which on the next one comes with a heartbeat, and not by its timer."""
DEAD_BEATS = 4
SCATTER_LIMIT = 1.0
HEAR_WORKERS = 0.2
"""Seconds that workers get to say what they serve before a new gateway takes requests."""


class Link:
    """One gateway on the bus.

    Attributes:
        router: Who hears what arrives; set by `attach` before `start`.
        malformed: Frames that could not be read.
        ready: Whether NATS is there and the streams exist.
        peers: Other gateways that live, by name, with the time of their last beat.
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
        self._ttl = max(1, int(queue_seconds) + 1)
        self.router: Router = Router(
            gateway, self, queue_seconds=queue_seconds, refuse_late=refuse_late
        )
        self.malformed = 0
        self.ready = False
        self.peers: dict[str, float] = {}
        self._own = subjects.gateway(gateway)
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat_due = 0.0
        self._ticked = 0.0
        self._rest = Rest()
        self._preparing: asyncio.Task[None] | None = None
        self.on_ready: Callable[[bool], None] = lambda _ready: None

        prefix = subjects.reply(gateway, "")
        self._prefix_length = len(prefix)
        bus.listen(subjects.replies(gateway), self._on_reply)
        bus.listen(self._own, self._decoded(self.router.on_worker))
        bus.listen(subjects.HEARTBEATS, self._decoded(self._on_heartbeat))
        bus.listen(subjects.ANNOUNCEMENTS, self._decoded(self._on_announce))
        bus.listen(subjects.GATEWAY_BEATS, self._decoded(self._on_gateway_beat))
        bus.listen(subjects.CANCEL, self._on_cancel)
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
        for task in (*self._tasks, *([self._preparing] if self._preparing else [])):
            task.cancel()
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
        try:
            frame = wire.decode(data)
        except wire.WireError as error:
            self._bad(subject, error)
            return
        self.router.on_reply(subject[self._prefix_length :].decode(), frame)

    def _decoded(
        self, handle: Callable[[wire.Frame], None]
    ) -> Callable[[bytes, bytes, bytes, bytes], None]:
        def handler(subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
            try:
                frame = wire.decode(data)
            except wire.WireError as error:
                self._bad(subject, error)
                return
            handle(frame)

        return handler

    def _bad(self, subject: bytes, error: Exception) -> None:
        self.malformed += 1
        if rare(self.malformed):
            log.warning(
                "malformed_frame",
                subject=subject.decode(errors="replace"),
                error=str(error),
                count=self.malformed,
            )

    def _on_heartbeat(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Heartbeat):
            self.router.on_heartbeat(frame)
            if self.now() - self._ticked > TICK_LEAST:
                self._rest.end()
        else:
            self.malformed += 1

    def _on_announce(self, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Announce):
            self.router.on_announce(frame)
        else:
            self.malformed += 1

    def _on_gateway_beat(self, frame: wire.Frame) -> None:
        if not isinstance(frame, wire.GatewayBeat):
            self.malformed += 1
        elif frame.gone:
            self.peers.pop(frame.gateway, None)
        elif frame.gateway != self._gateway:
            if frame.gateway not in self.peers:
                self._beat()  # Who is new hears of this one now.
            self.peers[frame.gateway] = time.monotonic()

    def _on_disconnect(self, subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            event = json.loads(data)
            name = event["client"].get("name", "")
            connection = f"{event['server']['id']}/{event['client']['id']}"
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            self._bad(subject, error)
            return
        self.router.on_disconnect(name, connection)

    # ---- cancel from any gateway ----------------------------------------------------------------

    def _on_cancel(self, subject: bytes, reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            ask = wire.decode(data)
        except wire.WireError as error:
            self._bad(subject, error)
            return
        if not isinstance(ask, wire.CancelAsk) or not reply:
            self.malformed += 1
            return
        found = self.cancel_here(ask.tenant, ask.request_id)
        answer = wire.encode(wire.CancelAnswer(self._gateway, found))
        self._bus.publish(reply.decode(), answer)

    def cancel_here(self, tenant: str, request_id: str) -> bool:
        """End a request of this gateway; the client sees CANCELLED."""
        session = self.router.find(tenant, request_id)
        if session is None:
            return False
        session.fail(Cancelled(f"request {request_id!r} was cancelled by Cancel"))
        self.router.close(session)
        return True

    async def cancel_anywhere(self, tenant: str, request_id: str) -> bool:
        """Ask every gateway; True at the first hit, False once all that live have denied.

        Raises:
            Unavailable: One that lives stayed silent, or NATS is away.
        """
        if self.cancel_here(tenant, request_id):
            return True
        waiting = set(self.peers)
        answers: asyncio.Queue[wire.CancelAnswer] = asyncio.Queue()

        def on_answer(data: bytes) -> None:
            try:
                frame = wire.decode(data)
            except wire.WireError as error:
                self._bad(b"cancel answer", error)
                return
            if isinstance(frame, wire.CancelAnswer):
                answers.put_nowait(frame)

        inbox = self._bus.collect(on_answer)
        try:
            ask = wire.encode(wire.CancelAsk(tenant, request_id))
            if not self._bus.publish(subjects.CANCEL, ask, reply=inbox):
                raise Unavailable("NATS is away", retry_after=1.0)
            async with asyncio.timeout(SCATTER_LIMIT):
                while waiting:
                    answer = await answers.get()
                    if answer.found:
                        return True
                    waiting.discard(answer.gateway)
        except TimeoutError:
            raise Unavailable(
                f"gateways {', '.join(sorted(waiting))} did not answer", retry_after=1.0
            ) from None
        finally:
            self._bus.stop_collecting(inbox)
        return False

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

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        """Queue an attempt under its own message id, so that saying it twice queues it once."""
        payload = wire.encode(request)
        headers = (
            f"NATS/1.0\r\nNats-Msg-Id: {request.id}.{request.attempt}\r\n"
            f"Nats-TTL: {self._ttl}\r\nMs-Gateway: {request.gateway}\r\n"
            f"Ms-Deaths: {request.deaths}\r\n\r\n"
        ).encode()
        try:
            self._bus.check_size(len(payload) + len(headers))
            self._bus.ask(
                subjects.request(request.model, request.urgency),
                payload,
                lambda answer: done(parse_puback(answer)),
                headers,
            )
        except MillstreamError as error:
            asyncio.get_running_loop().call_soon(done, error)

    def unqueue(self, request_id: str, attempt: int, urgency: int, sequence: int) -> None:
        """Delete an attempt from its stream."""
        self._run(self._unqueue(f"{request_id}.{attempt}", subjects.stream_of(urgency), sequence))

    async def _unqueue(self, message_id: str, stream: str, sequence: int) -> None:
        try:
            if await self._stored_id(stream, sequence) == message_id:
                await self._bus.request(
                    f"$JS.API.STREAM.MSG.DELETE.{stream}",
                    json.dumps({"seq": sequence, "no_erase": True}).encode(),
                    2.0,
                )
        except (TimeoutError, MillstreamError) as error:
            log.warning("unqueue_failed", message=message_id, error=repr(error))

    def audit(
        self,
        request_id: str,
        attempt: int,
        urgency: int,
        sequence: int,
        done: Callable[[bool], None],
    ) -> None:
        """Look for an attempt in its stream."""
        self._run(
            self._audit(f"{request_id}.{attempt}", subjects.stream_of(urgency), sequence, done)
        )

    async def _audit(
        self, message_id: str, stream: str, sequence: int, done: Callable[[bool], None]
    ) -> None:
        try:
            stored = await self._stored_id(stream, sequence)
        except (TimeoutError, MillstreamError) as error:
            log.warning("audit_failed", message=message_id, error=repr(error))
            return
        done(stored == message_id)

    async def _stored_id(self, stream: str, sequence: int) -> str | None:
        """The message id stored under a sequence, which restarts when storage is lost."""
        answer = await self._bus.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": sequence}).encode(), 2.0
        )
        try:
            reply = json.loads(answer)
        except ValueError:
            raise Unavailable(f"JetStream answered {answer[:80]!r}") from None
        if "message" not in reply:
            return None
        for line in base64.b64decode(reply["message"].get("hdrs", "")).splitlines():
            name, _, value = line.partition(b": ")
            if name == b"Nats-Msg-Id":
                return value.decode()
        return None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
