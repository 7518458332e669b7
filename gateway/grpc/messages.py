"""Length-prefixed request messages: read with a cap on their size, inflated where compressed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.protocol import Buffer

from gateway.grpc.headers import Refusal
from gateway.status import DOMAIN
from shared.errors import RequestTooLarge

_GZIP = 16 + zlib.MAX_WBITS


ACK_BELOW = 64 * 2**10
"""Unread bytes above which a call's client gets no window back: a slow reader's buffer is bounded
by the window and these, however small its messages are."""


class InboundBuffer(Buffer):
    """Bytes received on a stream; the window comes back as a reader asks for them.

    grpclib's own keeps an object per DATA frame, however small, and takes an empty one for the
    end of the stream.
    """

    def __init__(self, ack_callback: Callable[[int], None]) -> None:
        # Not grpclib's `__init__`: the queue that it makes would never hold anything.
        self._ack_callback = ack_callback
        self._eof = False
        self._data = bytearray()
        self._to_ack = 0
        self._reader: asyncio.Future[None] | None = None

    def add(self, data: bytes, ack_size: int) -> None:
        """Take the content of a DATA frame; `ack_size` includes its padding."""
        self._data += data
        self._to_ack += ack_size
        self._wake()

    def eof(self) -> None:
        """Note that the client has ended its side."""
        self._eof = True
        self._wake()

    async def read(self, size: int) -> bytes:
        """Read that many bytes; fewer only where the stream ends before."""
        while len(self._data) < size and not self._eof:
            self._ack()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        with memoryview(self._data) as view:
            taken = bytes(view[:size])
        del self._data[:size]
        if len(self._data) <= ACK_BELOW:
            self._ack()
        return taken

    def unacked_size(self) -> int:
        """Hand over what was not acknowledged yet."""
        size, self._to_ack = self._to_ack, 0
        return size

    def _ack(self) -> None:
        if size := self.unacked_size():
            self._ack_callback(size)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


async def read_message(buffer: InboundBuffer, encoding: str, limit: int) -> bytes | None:
    """Read one message, or None at the end of the stream.

    Raises:
        Refusal: It is malformed, or larger than `limit` bytes before or after decompression.
    """
    prefix = await buffer.read(5)
    if not prefix:
        return None
    if len(prefix) < 5:
        raise _malformed(f"the stream ends after {len(prefix)} of 5 bytes of a message's prefix")
    compressed, size = prefix[0], int.from_bytes(prefix[1:])
    if compressed > 1:
        raise _malformed(f"a message's prefix begins with {compressed}: allowed is 0 or 1")
    if size > limit:
        raise _too_large(f"takes {size} bytes", limit)
    body = await buffer.read(size)
    if len(body) < size:
        raise _malformed(f"the stream ends after {len(body)} of {size} bytes of a message")
    if not compressed:
        return body
    if encoding == "identity":
        # The status is given by gRPC's compression specification.
        raise Refusal(
            "refused_message",
            Status.INTERNAL,
            "a message has its compressed flag set and there is no grpc-encoding",
        )
    return inflate(body, limit)


def inflate(body: bytes, limit: int) -> bytes:
    """Decompress gzip into at most `limit` bytes.

    Raises:
        Refusal: It is no gzip, is cut off, or holds more than that.
    """
    inflater = zlib.decompressobj(_GZIP)
    try:
        message = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise _malformed(f"a message is no gzip: {error}") from error
    if len(message) > limit:
        raise _too_large(f"inflates from {len(body)} bytes to more than {limit}", limit)
    if not inflater.eof or inflater.unused_data:
        raise _malformed("a compressed message is cut off, or something follows it")
    return message


def _malformed(message: str) -> Refusal:
    return Refusal("refused_message", Status.INVALID_ARGUMENT, message)


def _too_large(what: str, limit: int) -> Refusal:
    """With the status that gRPC has for it; by that alone our clients would try again."""
    refusal = Refusal(
        "refused_message_size",
        Status.RESOURCE_EXHAUSTED,
        f"the request message {what} and at most {limit} are allowed: shorten it, or raise the "
        "gateway's --max-message-bytes",
    )
    refusal.details = [ErrorInfo(reason=RequestTooLarge.__name__, domain=DOMAIN)]
    return refusal
