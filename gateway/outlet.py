"""From a session to its client: encodes what a session delivers and writes it without waiting.

Everything that arrives for one client within a turn of the event loop goes out as one write. A
client that does not read fills its own bounded buffer and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway.session import Summary
from gateway.writer import ResponseWriter
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError, Overloaded

MOST_UNSENT = 4 * 2**20
"""Bytes that may wait for a client that reads too slowly."""

REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class Flusher:
    """Writes what a turn of the event loop delivered, one write a client, at its end."""

    def __init__(self) -> None:
        self._dirty: list[GenerateOutlet] = []
        self._loop = asyncio.get_running_loop()

    def soon(self, outlet: GenerateOutlet) -> None:
        """Flush an outlet at the end of this turn."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(outlet)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for outlet in dirty:
            outlet.flush()


class GenerateOutlet:
    """The client of one `Generate` call (a `session.Outlet`).

    Args:
        request_id: The client's name for the request.
        model: The served name.
        writer: The call's response stream.
        flusher: Shared by all calls of the gateway.
        overflowed: Called when the client has not read for so long that its buffer is full.
        observe: Called with the number of tokens of each delta, and at the end with the summary.
    """

    __slots__ = (
        "_dirty", "_ended", "_error", "_flusher", "_model", "_overflowed", "_request_id",
        "_size", "_unsent", "_wake", "_writer", "first_delta", "summary", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        model: str,
        writer: ResponseWriter,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
    ) -> None:
        self._request_id = request_id
        self._model = model
        self._writer = writer
        self._flusher = flusher
        self._overflowed = overflowed
        self._unsent: list[bytes] = []
        self._size = 0
        self._dirty = False
        self._ended = False
        self._error: MillstreamError | None = None
        self._wake = asyncio.Event()
        self.summary: Summary | None = None
        self.tokens = 0

    async def run(self) -> None:
        """Write until the session ends; the flush does most of it, this what must wait.

        Raises:
            MillstreamError: What the session failed with.
        """
        while not (self._ended and not self._unsent):
            await self._wake.wait()
            self._wake.clear()
            while self._unsent:
                batch, self._unsent = self._unsent, []
                await self._writer.send(batch)
                self._size -= sum(map(len, batch))
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Write what waits, or wake `run` where that cannot be done at once."""
        self._dirty = False
        if self._unsent and self._writer.write(self._unsent):
            self._unsent = []
            self._size = 0
        if self._unsent or self._ended:
            self._wake.set()

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

    # ---- what the session says (session.Outlet) -------------------------------------------------

    def started(self, worker: str) -> None:
        """A worker took the request."""
        started = pb.Started(request_id=self._request_id, model=self._model, worker=worker)
        self._put(pb.GenerateResponse(started=started).SerializeToString())

    def delta(
        self, index: int, ids: Sequence[int], text: str, choice: int, attempt: int, logprobs: Any
    ) -> None:
        """The next tokens."""
        self.tokens += len(ids)
        delta = pb.Delta(index=index, text=text, token_ids=ids, choice=choice, attempt=attempt)
        if logprobs is not None:
            delta.logprobs.extend(_logprobs(entry) for entry in logprobs)
        self._put(pb.GenerateResponse(delta=delta).SerializeToString())

    def finished(self, summary: Summary) -> None:
        """The answer is complete."""
        self.summary = summary
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
        self._put(pb.GenerateResponse(finished=finished).SerializeToString())
        self._ended = True

    def failed(self, error: MillstreamError) -> None:
        """The request failed; what was delivered before is written first."""
        self._error = error
        self._ended = True
        if not self._dirty:
            self._dirty = True
            self._flusher.soon(self)


def _logprobs(entry: tuple[float, Sequence[tuple[int, str, float]]]) -> pb.TokenLogprobs:
    logprob, top = entry
    return pb.TokenLogprobs(
        logprob=logprob,
        top=[pb.TopLogprob(token_id=token, text=text, logprob=own) for token, text, own in top],
    )
