"""The gateway's own events as JSON, for server-sent events and WebSockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gateway.http.errors import openai_body
from gateway.http.sse import SseOutlet, quote
from gateway.outlet import Flusher, Writer
from gateway.pieces import Piece
from gateway.ports import Summary
from shared.errors import MillstreamError


def delta_json(piece: Piece) -> str:
    """The next tokens, without the closing brace."""
    index, ids, text, choice, attempt, logprobs, _ = piece
    tokens = str(ids[0]) if len(ids) == 1 else ",".join(map(str, ids))
    said = (
        f'{{"index":{index},"text":{quote(text)},"token_ids":[{tokens}],"choice":{choice},'
        f'"attempt":{attempt}'
    )
    if logprobs is None:
        return said
    entries = [
        {
            "logprob": logprob,
            "top": [{"token_id": i, "text": t, "logprob": own} for i, t, own in top],
        }
        for logprob, top in logprobs
    ]
    return f'{said},"logprobs":{json.dumps(entries)}'


def finished_fields(summary: Summary) -> dict[str, Any]:
    """The end of a complete answer."""
    return {
        "reason": summary.reasons[0],
        "usage": {
            "prompt_tokens": summary.prompt_tokens,
            "completion_tokens": summary.completion_tokens,
            "cached_tokens": summary.cached_tokens,
        },
        "timing": {
            "queue": summary.queue,
            "first_token": summary.first_token,
            "total": summary.total,
        },
        "attempts": summary.attempts,
        "choices": [
            {"index": index, "reason": reason} for index, reason in enumerate(summary.reasons)
        ],
    }


def failed_message(error: MillstreamError) -> bytes:
    """A failure as a WebSocket message."""
    return json.dumps({"type": "failed", **openai_body(error)}).encode()


class PlainStream(SseOutlet):
    """An answer as events: `started`, deltas without a name, `finished` or `failed`.

    A delta's `id` is the position of its last token. What begins an answer is held until its
    first tokens are there, so that an engine's refusal still is an HTTP status.

    Args:
        writer: The response.
        flusher: Shared by all clients.
        overflowed: Called when the buffer is full.
        request_id: The client's name for the request.
        model: The served name.
    """

    __slots__ = ("_fields", "_held")

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        *,
        request_id: str,
        model: str,
    ) -> None:
        super().__init__(writer, flusher, overflowed)
        self._fields = {"request_id": request_id, "model": model}
        self._held: bytes | None = None

    def started(self, worker: str) -> None:
        """A worker took the request."""
        self._held = self._started({**self._fields, "worker": worker})

    def on_piece(self, piece: Piece) -> None:
        """The next tokens."""
        if self._held is not None:
            self._release()
        last = piece.start + len(piece.ids) - 1
        self._put(f"id: {last}\ndata: {delta_json(piece)}}}\n\n".encode())

    def error_event(self, error: MillstreamError) -> bytes:
        """A failure after the first event."""
        return f"event: failed\ndata: {json.dumps(openai_body(error))}\n\n".encode()

    def _close(self, base: int, summary: Summary) -> None:
        self._release()
        self._put(self._finished(finished_fields(summary)))

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._put(held)

    def _started(self, fields: dict[str, Any]) -> bytes:
        return f"event: started\ndata: {json.dumps(fields)}\n\n".encode()

    def _finished(self, fields: dict[str, Any]) -> bytes:
        return f"event: finished\ndata: {json.dumps(fields)}\n\n".encode()


class SocketStream(PlainStream):
    """The same as WebSocket messages, each with a `type`."""

    __slots__ = ()

    def on_piece(self, piece: Piece) -> None:
        """The next tokens."""
        if self._held is not None:
            self._release()
        self._put(f'{delta_json(piece)},"type":"delta"}}'.encode())

    def error_event(self, error: MillstreamError) -> bytes:
        """A failure."""
        return failed_message(error)

    def _started(self, fields: dict[str, Any]) -> bytes:
        return json.dumps({"type": "started", **fields}).encode()

    def _finished(self, fields: dict[str, Any]) -> bytes:
        return json.dumps({"type": "finished", **fields}).encode()
