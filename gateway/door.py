"""Where requests come in, whatever protocol they came by: validated, named, and given a session."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial

from gateway import validate
from gateway.access import Access
from gateway.catalog import Catalog
from gateway.link import Link
from gateway.metrics import Answers, Counted
from gateway.pace import Paced
from gateway.session import Outlet, Session, State
from gateway.traces import Traces
from gateway.typed.options import Options
from millstream.v1 import inference_pb2 as pb
from shared import wire
from shared.bus import nats_away
from shared.tracing import Tracing

LONGEST = 1e9
"""Seconds until a deadline, 30 years; what is longer fits neither a frame nor a calendar."""

_NO_SAMPLING = wire.Sampling()
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


class Door:
    """The one way in: `accept`, then `open`, and `close` when the client is served or gone.

    Attributes:
        answers: What became of requests, for metrics.
        access: Who may do what.

    Args:
        gateway: This gateway's id.
        link: The way to NATS.
        catalog: The models.
        access: Who may do what; by default everybody everything.
        tracing: Where spans go, or None.
    """

    def __init__(
        self,
        gateway: str,
        link: Link,
        catalog: Catalog,
        access: Access | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.answers = Answers()
        self.access = access or Access(None)
        self._traces = Traces(tracing)
        self._gateway = gateway
        self._link = link
        self._catalog = catalog
        self._paced: dict[str, Paced] = {}

    def accept(
        self,
        message: pb.GenerateRequest,
        *,
        request_id: str = "",
        traceparent: str = "",
        tenant: str = "",
        ready: bool = False,
    ) -> wire.Request:
        """Validate a request and give it its identity.

        Args:
            message: What the client asks.
            request_id: The name to use where the message has none; generated where both are empty.
            traceparent: W3C trace context, or "".
            tenant: Whose it is.
            ready: Whether the client gets `GenerateResponse`s, which a worker may make then.

        Raises:
            MillstreamError: What is wrong with it.
        """
        urgency = validate.urgency(message.priority)
        name = _name(message.request_id or request_id)
        labels = validate.check_labels(message.labels)
        validate.check_pace(message)
        card = self._catalog.card(message.model, partial(self.access.visible, tenant))
        prompt, messages, token_ids = validate.prompt_of(message, card)
        known = len(token_ids) if token_ids is not None else 1
        return wire.Request(
            id=ulid(),
            attempt=0,
            gateway=self._gateway,
            request_id=name,
            model=card.name,
            prompt=prompt,
            messages=messages,
            token_ids=token_ids,
            sampling=validate.sampling_of(message, card, known),
            urgency=urgency,
            labels=labels,
            traceparent=traceparent,
            tenant=tenant,
            structured=validate.structured_of(message, card),
            adapter=message.adapter,
            ready=ready,
        )

    def accept_call(self, card: wire.ModelCard, call: bytes, options: Options) -> wire.Request:
        """Give the call of a function its identity.

        Args:
            card: The function's.
            call: Its request message, checked and serialized.
            options: How it is to be run.

        Raises:
            InvalidRequest: The request id could not be a name.
        """
        name = _name(options.request_id)
        return wire.Request(
            id=ulid(),
            attempt=0,
            gateway=self._gateway,
            request_id=name,
            model=card.name,
            prompt=None,
            messages=None,
            token_ids=None,
            sampling=_NO_SAMPLING,
            urgency=options.urgency,
            fingerprint=card.fingerprint,
            labels=options.labels,
            traceparent=options.traceparent,
            tenant=options.tenant,
            call=call,
            metadata=options.metadata,
        )

    def open(
        self,
        request: wire.Request,
        outlet: Outlet,
        *,
        seconds: float | None,
        pace: float | None = None,
    ) -> Session:
        """Queue an accepted request.

        Args:
            request: From `accept`.
            outlet: Gets the answer.
            seconds: Until the client's deadline, or None.
            pace: Most tokens a second at which the answer is released, or None.

        Raises:
            Unavailable: NATS is away.
            DuplicateRequest: A request of this name is running.
            Forbidden: The tenant may not use the model or the priority.
            Overloaded: The tenant has reached a limit.
        """
        if not self._link.ready:
            raise nats_away()
        deadline = None if seconds is None else time.monotonic() + min(seconds, LONGEST)
        if pace is not None:
            outlet = Paced(outlet, pace, asyncio.get_running_loop())
        self.access.begin(request)
        request, traced = self._traces.begin(request, outlet)
        counted = Counted(traced, request.model, self.answers)
        try:
            session = self._link.router.open(request, counted, deadline=deadline)
        except BaseException:
            self._end(request.id, 0)
            raise
        if isinstance(outlet, Paced):
            self._paced[request.id] = outlet
        return session

    def close(self, session: Session) -> None:
        """The client is served or gone: what still runs for it is cancelled."""
        paced = self._paced.pop(session.request.id, None)
        if paced is not None:
            paced.close()
        if session.state is not State.ENDED:
            self.answers.left(session.request.model)
        self._link.router.close(session)
        answer = session.answer
        prompt = answer.begun.prompt_tokens if answer.begun is not None else 0
        tokens = prompt + answer.reached if session.request.call is None else 0
        self._end(session.request.id, tokens)

    def _end(self, request_id: str, tokens: int) -> None:
        self.access.end(request_id, tokens)
        self._traces.end(request_id)


def _name(given: str) -> str:
    """The client's name for a request, or a new one where it gave none."""
    if not given:
        return os.urandom(12).hex()
    validate.check_request_id(given)
    return given


def ulid() -> str:
    """A ULID: 48 bits of time, 80 bits of chance, in Crockford's base 32 (26 characters)."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
