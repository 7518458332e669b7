"""The fast way out of a call: headers, messages and trailers past grpclib's and h2's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, cast

from grpclib.events import SendInitialMetadata, SendTrailingMetadata, _Event
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import ProtocolError

from gateway.grpc import blocks
from gateway.grpc.http2 import SENDABLE, SERVER_OPEN, GuardedH2

if TYPE_CHECKING:
    from gateway.grpc.stream import RpcStream

MAX_FRAME = 64 * 2**10
"""Bytes; peers may allow frames of 16 MiB, and one write must not overfill the buffer."""

_PREFIX = Struct(">BI").pack
_FRAME_HEADER = Struct(">BHBBI").pack
_PREFIX_SIZE = 5
_ONE_MESSAGE = Struct(">BHBBIBI").pack
"""Both, where a frame carries one message."""


def _prefixed(messages: Sequence[bytes]) -> bytes:
    return b"".join([_PREFIX(0, len(message)) + message for message in messages])


def _frame(stream_id: int, size: int, messages: Sequence[bytes]) -> bytes:
    """One DATA frame (type 0) of that size without flags; its length takes 24 bits."""
    if len(messages) == 1:  # A token of a paced stream.
        length = size - _PREFIX_SIZE
        return _ONE_MESSAGE(size >> 16, size & 0xFFFF, 0, 0, stream_id, 0, length) + messages[0]
    return _FRAME_HEADER(size >> 16, size & 0xFFFF, 0, 0, stream_id) + _prefixed(messages)


class ResponseWriter:
    """Writes the response messages of one call.

    `write` never waits and either takes all messages or none; `send` waits for room. Call
    `write`, and where it refuses, `send` what it refused (and all that follows, in order). Both
    may be called from different tasks; while a `send` is under way `write` refuses. So do `begin`
    and `finish`, which send the headers and trailers of a call that goes well. Without
    `begin_with_first`, the first `send` brings the headers.

    Args:
        stream: The server's side of the call.
    """

    __slots__ = (
        "_connection", "_h2", "_raw", "_request_id", "_said", "_sending", "_sends", "_state",
        "_stream", "_transport",
    )  # fmt: skip

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._raw = stream._stream
        self._connection = self._raw.connection
        self._h2 = cast(GuardedH2, self._raw._h2_connection)
        self._transport = self._raw._transport
        # None where the client has reset the call before its handler began.
        self._state = self._h2.streams.get(self._raw.id or 0)
        self._said = False
        self._sending = asyncio.Lock()
        self._sends = 0
        self._request_id = ""

    def begin_with_first(self, request_id: str) -> None:
        """Let the first messages bring the headers, with nothing but `x-request-id` in them."""
        self._request_id = request_id

    def begin(self) -> bool:
        """Send the headers of `begin_with_first` now.

        Returns:
            Whether they were sent; False is for `send`.
        """
        stream, request_id = self._stream, self._request_id
        if (
            not request_id
            or stream._send_initial_metadata_done
            or not self._free(SendInitialMetadata)
        ):
            return False
        sent = blocks.begin(self._h2, self._state, request_id)
        if sent is None:
            return False
        self._put(sent)
        stream._send_initial_metadata_done = True
        return True

    def finish(self) -> bool:
        """End the call with status OK now.

        Returns:
            Whether it was ended; False is for grpclib's `send_trailing_metadata`.
        """
        stream = self._stream
        if not stream._send_initial_metadata_done or not self._free(SendTrailingMetadata):
            return False
        sent = blocks.finish(self._h2, self._state)
        if sent is None:
            return False
        self._put(sent)
        stream._send_trailing_metadata_done = True
        return True

    def write(self, messages: Sequence[bytes]) -> bool:
        """Send the encoded messages now, as one DATA frame.

        Returns:
            Whether they were sent. Not before the headers are, where it cannot send them, not
            while a flow-control window or the socket's buffer has no room for all of them, and
            not after the stream's end.
        """
        h2, state = self._h2, self._state
        if (
            not (self._said or self._stream._send_initial_metadata_done or self.begin())
            or self._sends
            or state is None
            or not self._connection.write_ready.is_set()
            # What `_open` asks, without a call a token.
            or state.state_machine.state not in SENDABLE
            or h2.state_machine.state is not SERVER_OPEN
            or self._transport.is_closing()
        ):
            return False
        size = sum(map(len, messages)) + _PREFIX_SIZE * len(messages)
        if (
            size > state.outbound_flow_control_window
            or size > h2.outbound_flow_control_window
            or size > h2.max_outbound_frame_size
            or size > MAX_FRAME
        ):
            return False
        if not size:
            return True
        state.outbound_flow_control_window -= size
        h2.outbound_flow_control_window -= size
        h2.data_frames += 1
        self._put(_frame(state.stream_id, size, messages))
        if not self._said:  # The stream's own note is memory that a token need not touch.
            self._said = self._stream._send_message_done = True
        return True

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send the encoded messages, after the headers where these are due, as room permits.

        Raises:
            StreamTerminatedError: The stream or its connection has ended.
        """
        self._sends += 1
        try:
            async with self._sending:
                await self._send(messages)
        finally:
            self._sends -= 1

    async def _send(self, messages: Sequence[bytes]) -> None:
        if not self._stream._send_initial_metadata_done:
            await self._send_headers()
        data = memoryview(_prefixed(messages))
        while data:
            room = await self._room()
            self._h2.send_data(self._raw.id or 0, data[:room])
            self._transport.write(self._h2.data_to_send())
            data = data[room:]
        self._stream._send_message_done = True

    async def _send_headers(self) -> None:
        try:
            named = {"x-request-id": self._request_id} if self._request_id else None
            await self._stream.send_initial_metadata(metadata=named)
        except ProtocolError as error:
            raise StreamTerminatedError("the stream has ended") from error

    async def _room(self) -> int:
        """Wait until the socket's buffer and both windows take a byte; how many they take."""
        while True:
            # Checked anew after each wait: others that woke with us may have filled the buffer.
            while not self._connection.write_ready.is_set():
                await self._connection.write_ready.wait()
            if not self._open():
                raise StreamTerminatedError("the stream has ended")
            window = self._window()
            if window > 0:
                return min(window, self._h2.max_outbound_frame_size, MAX_FRAME)
            self._raw.window_updated.clear()
            await self._raw.window_updated.wait()

    def _put(self, frame: bytes) -> None:
        if self._h2._data_to_send:  # frames that h2 has ready come first
            self._connection.flush()
        self._transport.write(frame)

    def _free(self, event: type[_Event]) -> bool:
        """Whether headers can go past grpclib: nobody listens, and nothing is to be waited for."""
        return (
            not self._stream._dispatch._listeners.get(event)
            and self._connection.write_ready.is_set()
            and not self._sends
            and not self._transport.is_closing()
        )

    def _open(self) -> bool:
        state = self._state
        return (
            state is not None
            and state.state_machine.state in SENDABLE
            and self._h2.state_machine.state is SERVER_OPEN
            and not self._transport.is_closing()
        )

    def _window(self) -> int:
        """Bytes that both flow-control windows allow; may be below 0."""
        assert self._state is not None
        return min(self._state.outbound_flow_control_window, self._h2.outbound_flow_control_window)
