"""Attempts in the queue: put there, looked for, taken out again, through JetStream's API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from shared import subjects, wire
from shared.bus import Bus, parse_puback
from shared.errors import MillstreamError, Unavailable
from shared.wire import envelope

log = structlog.get_logger(__name__)

ANSWER_LIMIT = 2.0
"""Seconds that JetStream gets to answer about a stored message."""


class Queue:
    """What `ports.Io` says of the queue.

    Args:
        bus: The connection.
        ttl: Seconds after which the server drops what is still queued.
    """

    def __init__(self, bus: Bus, ttl: int) -> None:
        self._bus = bus
        self._ttl = ttl
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Wait for no answer any more."""
        for task in self._tasks:
            task.cancel()

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        """Queue an attempt under its own message id, so that saying it twice queues it once."""
        payload = wire.encode(request)
        headers = envelope.headers(request, self._ttl)
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
        own = envelope.message_id(request_id, attempt)
        self._run(self._unqueue(own, subjects.stream_of(urgency), sequence))

    async def _unqueue(self, own: str, stream: str, sequence: int) -> None:
        try:
            if await self._stored_id(stream, sequence) == own:
                await self._bus.request(
                    f"$JS.API.STREAM.MSG.DELETE.{stream}",
                    json.dumps({"seq": sequence, "no_erase": True}).encode(),
                    ANSWER_LIMIT,
                )
        except (TimeoutError, MillstreamError) as error:
            log.warning("unqueue_failed", message=own, error=repr(error))

    def audit(
        self,
        request_id: str,
        attempt: int,
        urgency: int,
        sequence: int,
        done: Callable[[bool], None],
    ) -> None:
        """Look for an attempt in its stream."""
        own = envelope.message_id(request_id, attempt)
        self._run(self._audit(own, subjects.stream_of(urgency), sequence, done))

    async def _audit(
        self, own: str, stream: str, sequence: int, done: Callable[[bool], None]
    ) -> None:
        try:
            stored = await self._stored_id(stream, sequence)
        except (TimeoutError, MillstreamError) as error:
            log.warning("audit_failed", message=own, error=repr(error))
            return
        done(stored == own)

    async def _stored_id(self, stream: str, sequence: int) -> str | None:
        """The message id stored under a sequence, which restarts when storage is lost."""
        answer = await self._bus.request(
            f"$JS.API.STREAM.MSG.GET.{stream}",
            json.dumps({"seq": sequence}).encode(),
            ANSWER_LIMIT,
        )
        try:
            message = json.loads(answer).get("message")
            if message is None:
                return None
            return envelope.stored_id(base64.b64decode(message.get("hdrs", "")))
        except (ValueError, AttributeError, TypeError):
            raise Unavailable(f"JetStream answered {answer[:80]!r}") from None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
