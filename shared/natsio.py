"""nats-py's client with its hazards mended and a lean path for messages in both directions.

What differs from the library, and why (measured, see docs/decisions/0002-lean-nats.md):

- Messages of a subscription made with `listen` go straight from the parser to a synchronous
  handler: no message object, queue or task switch. A handler that raises is reported and never
  stops the read loop, which in the library leaves a connection that is dead and says it is not.
- `send` joins what one turn of the event loop publishes: each write is a system call and wakes
  the server, which on a quiet machine costs more than all else that a message costs.
- Nothing is published while disconnected, so that no stale heartbeat or cancel goes out later.
- Reconnecting never ends, is jittered, and aborts the old transport first: with a write backlog
  towards a black hole the library waits for the backlog.
- A connection that is lost half way through connecting is one more failed attempt: uvloop's error
  ended the library's reconnecting, an end of file passed for an answer, and tasks were left behind.
- A protocol error from the server leads to a reconnect; the library closes for good.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import structlog
from nats.aio.client import Client, Server, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from shared.natsparser import Handler, LeanParser

log = structlog.get_logger(__name__)

MAX_UNSENT = 32 * 1024 * 1024
MOST_JOINED = 72
"""So many messages go out together; the first of a burst must not wait for the last. With 16, paced
streams cost worker and broker an eighth more; with time as the bound, bursts a third. Some more
than a round number: a heartbeat travels with the tokens of so many streams."""
LAZY = 0.005
CLOSE_LIMIT = 0.5
RETRY_SOON = 0.1
SOON = 16
"""So many attempts are made within `RETRY_SOON` of each other before they grow rarer."""


class LeanClient(Client):
    """A NATS client whose hot paths are synchronous.

    Attributes:
        handlers: What `listen` was given, by subscription.
        events: Counts of messages that could not be sent (refused_send), and of handlers that
            raised (handler_error); an owner that counts too may put its own counter here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps: LeanParser = LeanParser(self)
        self.handlers: dict[bytes, Handler] = {}
        self.events: Counter[str] = Counter()
        self._unsent: list[bytes] = []
        self._flush_scheduled = False
        self._flush_planned = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def identity(self) -> str:
        """Server id and client id of the present connection."""
        return f"{self._server_info.get('server_id', '')}/{self.client_id}"

    async def listen(self, subject: str, handler: Handler) -> None:
        """Subscribe, for the life of the client, with a synchronous handler."""
        subscription = await self.subscribe(subject)
        self.handlers[b"%d" % subscription._id] = handler

    def send(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: bytes = b"",
        *,
        lazy: bool = False,
    ) -> bool:
        """Publish soon: what tasks say that this turn of the loop woke travels along.

        Args:
            subject: Where.
            payload: What.
            reply: Where answers go, or "".
            headers: A NATS header block, or b"".
            lazy: It may wait for company, `LAZY` seconds at most.

        Returns:
            False while disconnected or when 32 MiB wait already: nothing was sent, and whoever
            sends has it in a record, or says it again at its next tick.
        """
        # The property, which knows of draining too, is two calls: not for every message.
        if self._status != Client.CONNECTED and not self.is_connected:
            self.events["refused_send"] += 1
            return False
        if headers:
            size, total = len(headers), len(headers) + len(payload)
            line = f"HPUB {subject} {reply} {size} {total}\r\n".encode()
            self._unsent.append(b"".join((line, headers, payload, b"\r\n")))
        else:
            line = f"PUB {subject} {reply} {len(payload)}\r\n".encode()
            self._unsent.append(b"".join((line, payload, b"\r\n")))
        if not self._flush_scheduled:
            self._plan_flush(lazy=lazy)
        elif len(self._unsent) >= MOST_JOINED:
            self.flush_now()
        return True

    def _plan_flush(self, *, lazy: bool) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if not lazy:
            self._flush_scheduled = True
            self._loop.call_soon(self._loop.call_soon, self._end_turn)
        elif not self._flush_planned:
            self._flush_planned = True
            self._loop.call_later(LAZY, self._end_wait)

    def _end_turn(self) -> None:
        self._flush_scheduled = False
        self.flush_now()

    def _end_wait(self) -> None:
        self._flush_planned = False
        self.flush_now()

    def flush_now(self) -> None:
        """Write what `send` collected."""
        unsent, self._unsent = self._unsent, []
        if not self.is_connected or self._transport is None or not unsent:
            return
        transport = self._tcp()
        # It may be closed a turn before the library knows; uvloop's raises where one writes to it.
        if transport is not None and (
            transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT
        ):
            self.events["refused_send"] += len(unsent)
            return
        self._transport.write(b"".join(unsent))

    def _tcp(self) -> asyncio.WriteTransport | None:
        writer = getattr(self._transport, "_io_writer", None)
        return writer.transport if writer is not None else None

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
            return
        log.warning("nats_server_error", error=err_msg.strip("'"))
        await self._process_op_err(NatsError(f"nats: {err_msg}"))

    async def _attempt_reconnect(self) -> None:
        transport = self._tcp()
        if transport is not None:
            transport.abort()
        self._unsent.clear()
        for pong in self._pongs:  # Of a connection that is gone: who waits in `flush` is told.
            if not pong.done():
                pong.set_exception(ConnectionResetError("the connection was lost"))
                pong.exception()  # Nobody may wait; that is no fault.
        self._pongs.clear()
        with suppress(asyncio.InvalidStateError):  # At its end, where another took its place.
            await super()._attempt_reconnect()

    async def close(self) -> None:
        """Close for good, also while it connects again."""
        while (
            (task := self._reconnection_task) is not None
            and not task.done()
            and task is not asyncio.current_task()
        ):
            task.cancel()  # Again until it ends: `asyncio.wait_for` may lose one.
            await asyncio.wait({task}, timeout=RETRY_SOON)
        if not self.is_connected:
            self._pending.clear()
            self._pending_data_size = 0
        await super().close()

    async def _connect_to_server(self, s: Srv) -> None:
        if self._transport is None and s.uri.scheme not in ("ws", "wss"):
            self._transport = LeanTransport()  # type: ignore[no-untyped-call]
        former = self._tcp()
        if former is not None:
            former.abort()  # An attempt that failed leaves it open.
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        # An attempt that failed late, while it subscribed again, leaves its tasks.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        await super()._process_connect_init()
        if not self.is_connected:  # The library takes an end of file for a PONG.
            raise ConnectionResetError("the server closed the connection")


class LeanTransport(TcpTransport):
    """TCP that drops what is written after a reset; `drain` and reading report the reset.

    So do asyncio's transports, which the library is written for. uvloop's raise RuntimeError, which
    ended the task that reconnects: the process stayed away for good.
    """

    def __bool__(self) -> bool:
        return True  # Else the client makes one of its own.

    def write(self, payload: bytes) -> None:
        """Write, unless the connection is lost."""
        writer = self._io_writer
        if writer is not None and not writer.transport.is_closing():
            writer.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Write, unless the connection is lost."""
        writer = self._io_writer
        if writer is not None and not writer.transport.is_closing():
            writer.writelines(payload)

    async def wait_closed(self) -> None:
        """Wait for the end, but not for ever: one whose handshake was cut never tells of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await super().wait_closed()  # type: ignore[no-untyped-call]

    async def connect_tls(self, *args: Any) -> None:
        """Go on in TLS.

        Raises:
            ConnectionResetError: The connection was reset before.
        """
        try:
            await super().connect_tls(*args)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error


def next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """Choose where to reconnect and how long to wait: soon at first, since most restarts are short.

    Jittered, and up to two seconds once a server has been away for about one.
    """
    server = min(servers, key=lambda one: one.reconnects)
    ceiling = min(2.0, RETRY_SOON * 2 ** max(0, min(server.reconnects, 32) - SOON))
    return server, random.uniform(0.2, 1.0) * ceiling
