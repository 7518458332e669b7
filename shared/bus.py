"""The bus: one NATS connection of a process, what it may be asked, and when it is up.

Synchronous where the request path is (`publish`, `ask`, handlers), asynchronous only at
start and stop. Owners register with `listen` before `start`; subscriptions outlive reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from nats.errors import ConnectionClosedError, NoServersError
from nats.errors import Error as NatsError

from shared.errors import MillstreamError, Overloaded, RequestTooLarge, Unavailable
from shared.natsio import LeanClient, next_server
from shared.natsparser import Handler
from shared.settings import without_password
from shared.telemetry import rare

log = structlog.get_logger(__name__)

_QUEUE_FULL = 10077
_STREAM_AWAY = frozenset({10008, 10059, 10076})
RETRY = 0.1
"""Seconds between two looks at whether a new connection answers."""
ANSWER_LIMIT = 5.0
"""Seconds after which an answer to `ask` is not waited for any more."""


@dataclass(frozen=True, slots=True)
class BusOptions:
    """How to reach NATS.

    Attributes:
        servers: URLs, tried in any order.
        name: The connection's name, which the server's DISCONNECT events carry.
        connect: Further options of nats-py's `connect` (credentials, TLS).
    """

    servers: tuple[str, ...] = field(repr=False)
    name: str
    connect: tuple[tuple[str, Any], ...] = field(default=(), repr=False)


class Bus:
    """One connection to NATS.

    Attributes:
        on_connect: Called after every connect and reconnect, once subscriptions stand again.
        on_disconnect: Called when the connection is lost.
    """

    def __init__(self, options: BusOptions) -> None:
        self._options = options
        self._client = LeanClient()
        self._listeners: list[tuple[str, Handler]] = []
        self._waiting: dict[int, tuple[float, Callable[[bytes], None]]] = {}
        self._collecting: dict[int, Callable[[bytes], None]] = {}
        self._next_reply = 0
        self._inbox = ""
        self._up = False
        self._failures = 0
        self.on_connect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether a publish would go out now."""
        return self._up and self._client.is_connected

    @property
    def client(self) -> LeanClient:
        """The client itself, for JetStream management."""
        return self._client

    @property
    def max_payload(self) -> int:
        """The largest message, in bytes, that the server takes."""
        return int(self._client.max_payload)

    @property
    def connection(self) -> str:
        """The connection as the server's disconnect events name it, or "" while away."""
        return self._client.identity if self.connected else ""

    def new_inbox(self) -> str:
        """A subject that only this connection knows."""
        return str(self._client.new_inbox())

    def listen(self, subject: str, handler: Handler) -> None:
        """Register a handler; before `start`."""
        self._listeners.append((subject, handler))

    async def start(self) -> None:
        """Connect, however long that takes, and subscribe.

        Raises:
            nats.errors.Error: The server refuses the credentials.
        """
        await self._client.connect(
            servers=list(self._options.servers),
            name=self._options.name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            reconnect_to_server_handler=next_server,
            connect_timeout=2,
            ping_interval=0.5,  # type: ignore[arg-type]  # The library takes any number.
            max_outstanding_pings=2,
            pending_size=0,
            flush_timeout=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            **dict(self._options.connect),
        )
        self._inbox = self.new_inbox()
        await self._client.listen(f"{self._inbox}.*", self._on_reply)
        for subject, handler in self._listeners:
            await self._client.listen(subject, handler)
        while not (self._client.is_connected and await self._answered()):
            if self._client.is_closed:
                raise ConnectionClosedError
            await asyncio.sleep(RETRY)
        self._set_connected()

    async def close(self) -> None:
        """Send what waits and close."""
        if not self._inbox:
            return  # It never came up: there is nothing to send, and the library would object.
        if self._client.is_connected:
            self._client.flush_now()
            with contextlib.suppress(OSError, NatsError):  # A server that does not answer.
                await self._barrier()
        self._up = False
        self._waiting.clear()
        await self._client.close()

    async def _answered(self) -> bool:
        """Whether the server has all that was sent, and is still there."""
        try:
            await self._barrier()
        except (TimeoutError, OSError) as error:
            log.warning("nats_not_ready", error=repr(error))
            return False
        return self._client.is_connected

    async def _barrier(self) -> None:
        await asyncio.sleep(0)  # The library writes its PING before what waits to be published.
        await self._client.flush(timeout=2)

    def publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: bytes = b"",
        *,
        lazy: bool = False,
    ) -> bool:
        """Send without an answer; False while away (see `LeanClient.send`)."""
        return self._client.send(subject, payload, reply, headers, lazy=lazy)

    def ask(
        self, subject: str, payload: bytes, answered: Callable[[bytes], None], headers: bytes = b""
    ) -> None:
        """Send, and be called with the first answer: its payload, or its status line if it has one.

        There is no call where no answer comes; who waits looks at the clock.

        Raises:
            Unavailable: NATS is away.
        """
        now = time.monotonic()
        waiting = self._waiting
        while waiting and (oldest := next(iter(waiting.items())))[1][0] < now:
            del waiting[oldest[0]]
        self._next_reply += 1
        if not self._client.send(subject, payload, f"{self._inbox}.{self._next_reply}", headers):
            raise nats_away()
        waiting[self._next_reply] = (now + ANSWER_LIMIT, answered)

    async def request(
        self, subject: str, payload: bytes, limit: float, headers: bytes = b""
    ) -> bytes:
        """Ask and wait for the answer, `limit` seconds at most.

        Raises:
            Unavailable: NATS is away.
            TimeoutError: Nobody answered.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(data: bytes) -> None:
            if not answer.done():
                answer.set_result(data)

        self.ask(subject, payload, answered, headers)
        async with asyncio.timeout(limit):
            return await answer

    def collect(self, handler: Callable[[bytes], None]) -> str:
        """Open an inbox for any number of answers, until `stop_collecting`."""
        self._next_reply += 1
        self._collecting[self._next_reply] = handler
        return f"{self._inbox}.{self._next_reply}"

    def stop_collecting(self, inbox: str) -> None:
        """Close an inbox of `collect`."""
        del self._collecting[int(inbox.rsplit(".", 1)[1])]

    def check_size(self, size: int) -> None:
        """Refuse what the server would refuse.

        Raises:
            RequestTooLarge: It says both sizes.
        """
        if size > self.max_payload:
            raise RequestTooLarge.of(size, self.max_payload)

    def _on_reply(self, subject: bytes, _reply: bytes, headers: bytes, data: bytes) -> None:
        number = int(subject.rsplit(b".", 1)[1])
        if number in self._collecting:
            self._collecting[number](data)
            return
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting[1](data if data or not headers else headers)

    def _set_connected(self) -> None:
        if self._up:
            return  # Lost and found again while it started.
        self._up = True
        self._failures = 0
        for callback in self.on_connect:
            callback()

    async def _on_reconnect(self) -> None:
        log.info("nats_reconnected")
        self._set_connected()

    async def _on_disconnect(self) -> None:
        if not self._up:
            return
        self._up = False
        log.warning("nats_disconnected")
        for callback in self.on_disconnect:
            callback()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, NoServersError | ConnectionClosedError):
            return
        if self._up or not isinstance(error, OSError):
            log.warning("nats_error", error=repr(error))
            return
        self._failures += 1
        if rare(self._failures):
            servers = [without_password(url) for url in self._options.servers]
            log.warning(
                "nats_unreachable", servers=servers, error=repr(error), failures=self._failures
            )


def nats_away() -> Unavailable:
    """What a caller is told while there is no connection."""
    return Unavailable("NATS is away; the request was not accepted", retry_after=1.0)


def parse_puback(answer: bytes) -> int | MillstreamError:
    """Read JetStream's answer to a publish.

    Args:
        answer: Its payload, or the status line of a message without one.

    Returns:
        The message's sequence in its stream, or the error to tell the client: Overloaded where
        the queue is full, Unavailable where the stream is away.
    """
    if answer.startswith(b"NATS/1.0"):
        return Unavailable(
            "the request stream is away: JetStream is off or the server is starting",
            retry_after=1.0,
        )
    try:
        reply = json.loads(answer.decode())
        error = reply.get("error")
        if error is None:
            return int(reply["seq"])
        code, text = int(error.get("err_code", 0)), str(error.get("description", ""))
    except (ValueError, KeyError, AttributeError, TypeError):
        return Unavailable(f"JetStream answered {answer[:80]!r}", retry_after=1.0)
    if code == _QUEUE_FULL:
        return Overloaded("the queue of this model and priority is full", retry_after=1.0)
    if code in _STREAM_AWAY or error.get("code") == 503:
        return Unavailable(f"the request stream is away: {text}", retry_after=1.0)
    return Unavailable(f"JetStream refused the request: {text} ({code})", retry_after=1.0)
