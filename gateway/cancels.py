"""Ending a request at the gateway that runs it, whichever the client asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.frames import Frames
from gateway.router import Router
from shared import subjects, wire
from shared.bus import Bus
from shared.errors import Cancelled, Unavailable

SCATTER_LIMIT = 1.0
"""Seconds that the other gateways get to say whether they run a request."""


class Cancels:
    """The `Cancel` of one gateway, asked by its clients and by other gateways.

    Args:
        bus: The connection; before it starts.
        gateway: This gateway's id.
        router: Its requests.
        frames: Reads what others ask.
        peers: Other gateways that live.
    """

    def __init__(
        self, bus: Bus, gateway: str, router: Router, frames: Frames, peers: Iterable[str]
    ) -> None:
        self._bus = bus
        self._gateway = gateway
        self._router = router
        self._frames = frames
        self._peers = peers
        bus.listen(subjects.CANCEL, self._on_ask)

    def here(self, tenant: str, request_id: str) -> bool:
        """End a request of this gateway; the client sees CANCELLED."""
        session = self._router.find(tenant, request_id)
        if session is None:
            return False
        session.fail(Cancelled(f"request {request_id!r} was cancelled by Cancel"))
        self._router.close(session)
        return True

    async def anywhere(self, tenant: str, request_id: str) -> bool:
        """Ask every gateway; True at the first hit, False once all that live have denied.

        Raises:
            Unavailable: One that lives stayed silent, or NATS is away.
        """
        if self.here(tenant, request_id):
            return True
        waiting = set(self._peers)
        answers: asyncio.Queue[wire.CancelAnswer] = asyncio.Queue()

        def on_answer(data: bytes) -> None:
            frame = self._frames.read(b"cancel answer", data)
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

    def _on_ask(self, subject: bytes, reply: bytes, _headers: bytes, data: bytes) -> None:
        ask = self._frames.read(subject, data)
        if ask is None:
            return
        if not isinstance(ask, wire.CancelAsk) or not reply:
            self._frames.bad(subject, "want a CancelAsk, and where to answer it")
            return
        found = self.here(ask.tenant, ask.request_id)
        answer = wire.encode(wire.CancelAnswer(self._gateway, found))
        self._bus.publish(reply.decode(), answer)
