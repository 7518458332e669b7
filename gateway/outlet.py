"""From a session to its client: a bounded buffer that is written without waiting.

What arrives for one client within a turn of the event loop goes out as one write; the tokens of
`Generate` are written at once while nothing waits, since a gRPC connection joins what its streams
write. A client that does not read fills its own buffer and nobody else's. What a message looks like
is the subclass's business: here those of `Generate`, in `gateway.http` and `gateway.kserve` others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.ports import Summary, TextOnly
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError, Overloaded
from shared.wire.delta import encode_delta

MOST_UNSENT = 4 * 2**20
"""Bytes that may wait for a client that reads too slowly."""

BEGIN_WITHIN = 0.02
"""Seconds after which a client whose request waits gets the headers, which name the request; an
answer that begins before spares the write."""

REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class Writer(Protocol):
    """A client's connection."""

    def write(self, messages: Sequence[bytes]) -> bool:
        """Write all messages now and return True, or none of them; never waits.

        None while a `send` is under way: what that has comes first.
        """

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write all messages as the client takes them."""


class Named(Protocol):
    """A client's connection whose answer begins with headers."""

    def begin(self) -> bool:
        """Send the headers if they are not sent."""


class Answering(Writer, Protocol):
    """A client's connection whose answer ends with trailers."""

    def finish(self) -> bool:
        """Send those of an answer that went well; False is for whoever serves the call."""


class Flusher:
    """Writes what a turn of the event loop delivered, one write a client, at its end."""

    def __init__(self) -> None:
        self._dirty: list[Buffered] = []
        self._unbegun: list[Named] = []
        self._loop = asyncio.get_running_loop()

    def begin_soon(self, writer: Named) -> None:
        """Begin an answer within `BEGIN_WITHIN` seconds, if its first message does not before."""
        if not self._unbegun:
            self._loop.call_later(BEGIN_WITHIN, self._begin)
        self._unbegun.append(writer)

    def _begin(self) -> None:
        unbegun, self._unbegun = self._unbegun, []
        for writer in unbegun:
            writer.begin()

    def soon(self, outlet: Buffered) -> None:
        """Flush an outlet at the end of this turn."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(outlet)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        begun = 0
        try:
            for outlet in dirty:
                begun += 1
                outlet.flush()
        finally:
            if begun < len(dirty):  # One of them failed; the others must not wait for ever.
                self._dirty[:0] = dirty[begun:]
                self._loop.call_soon(self._flush)


def nobody_to_tell(_error: MillstreamError) -> None:
    """Nobody waits any more."""


def _nothing_to_add() -> None:
    pass


class Buffered(TextOnly):
    """What waits for one client.

    Args:
        writer: The client's connection.
        flusher: Shared by all clients of the gateway.
        overflowed: Called when the client has not read for so long that its buffer is full.
        conclude: Called when all of an answer that went well is written: what it adds travels
            along, and waits for no task.
    """

    __slots__ = (
        "_conclude", "_dirty", "_ended", "_error", "_flusher", "_overflowed", "_size", "_unsent",
        "_wake", "_writer",
    )  # fmt: skip

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        conclude: Callable[[], object] = _nothing_to_add,
    ) -> None:
        self._writer = writer
        self._conclude = conclude
        self._flusher = flusher
        self._overflowed = overflowed
        self._unsent: list[bytes] = []
        self._size = 0
        self._dirty = False
        self._ended = False
        self._error: MillstreamError | None = None
        self._wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and more may come."""
        return not self._unsent and not self._ended

    async def run(self) -> None:
        """Write until the session ends; the flush does what it can, this what must wait.

        Raises:
            MillstreamError: What the session failed with.
        """
        try:
            while not (self._ended and not self._unsent):
                await self._wake.wait()
                self._wake.clear()
                while self._unsent:
                    batch, self._unsent = self._unsent, []
                    await self._writer.send(batch)
                    self._size -= sum(map(len, batch))
        finally:
            self._overflowed = nobody_to_tell  # It holds the session, which holds this.
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Write what waits, or wake `run` where that cannot be done at once."""
        self._dirty = False
        if self._unsent and self._writer.write(self._unsent):
            self._unsent = []
            self._size = 0
        if self._unsent or self._ended:
            self._go_on()

    def _go_on(self) -> None:
        """End the answer where all is written, and leave to `run` what remains to be done."""
        if self._ended and self._error is None and not self._unsent:
            self._conclude()
        self._wake.set()

    def failed(self, error: MillstreamError) -> None:
        """The request failed; what was delivered before is written first."""
        self._error = error
        self._end()

    def abandon(self) -> None:
        """The client is gone: nothing is written any more, and `run` returns."""
        self._unsent = []
        self._conclude = _nothing_to_add
        self._end()

    def _put(self, message: bytes) -> None:
        self._unsent.append(message)
        self._size += len(message)
        if not self._dirty:
            self._dirty = True
            self._flusher.soon(self)
        if self._size > MOST_UNSENT and self._error is None:
            self._overflowed(
                Overloaded(
                    f"the client left {self._size} bytes unread: read faster or ask for less"
                )
            )

    def _end(self) -> None:
        self._ended = True
        if not self._dirty:  # Else the flush goes on.
            self._go_on()


class GenerateOutlet(Buffered):
    """The client of one `Generate` call (a `ports.Outlet`).

    Args:
        request_id: The client's name for the request.
        model: The served name.
        writer: The call's response stream.
        flusher: Shared by all clients of the gateway.
        overflowed: Called when the client has not read for so long that its buffer is full.
    """

    __slots__ = ("_model", "_request_id")

    def __init__(
        self,
        request_id: str,
        model: str,
        writer: Answering,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
    ) -> None:
        super().__init__(writer, flusher, overflowed, writer.finish)
        self._request_id = request_id
        self._model = model

    def started(self, worker: str) -> None:
        """A worker took the request."""
        started = pb.Started(request_id=self._request_id, model=self._model, worker=worker)
        self._put(pb.GenerateResponse(started=started).SerializeToString())

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        """The next tokens."""
        if logprobs is None:
            self.forward(encode_delta(index, ids, text, choice, attempt))
            return
        delta = pb.Delta(index=index, text=text, token_ids=ids, choice=choice, attempt=attempt)
        delta.logprobs.extend(_logprobs(entry) for entry in logprobs)
        self.forward(pb.GenerateResponse(delta=delta).SerializeToString())

    def finished(self, summary: Summary) -> None:
        """The answer is complete."""
        finished = pb.Finished(
            reason=REASONS[summary.reasons[0]],
            usage=pb.Usage(
                prompt_tokens=summary.prompt_tokens,
                completion_tokens=summary.completion_tokens,
                cached_tokens=summary.cached_tokens,
            ),
            timing=pb.Timing(
                queue=summary.queue, first_token=summary.first_token, total=summary.total
            ),
            attempts=summary.attempts,
        )
        if len(summary.reasons) > 1:
            finished.choices.extend(
                pb.Choice(index=index, reason=REASONS[reason])
                for index, reason in enumerate(summary.reasons)
            )
        self.forward(pb.GenerateResponse(finished=finished).SerializeToString())
        self._end()

    def forward(self, message: bytes) -> None:
        """Write now, where nothing waits: the connection joins what a turn writes."""
        if self._size or not self._writer.write((message,)):
            self._put(message)


def _logprobs(entry: tuple[float, Sequence[tuple[int, str, float]]]) -> pb.TokenLogprobs:
    logprob, top = entry
    return pb.TokenLogprobs(
        logprob=logprob,
        top=[pb.TopLogprob(token_id=token, text=text, logprob=own) for token, text, own in top],
    )
