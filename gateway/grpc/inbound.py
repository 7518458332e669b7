"""The fast way in: a call's HEADERS and DATA frames without h2's and hyperframe's objects for each.

Most calls of a connection begin with the same header block, byte for byte, and bring their message
in one DATA frame; parsing both anew was a tenth of a one-token request. A block that was seen
before, and since which the compression table did not change, means what it meant. What h2 would
note of such frames is noted here. Every other frame is h2's: it gets the frame's bytes alone and in
order, so that errors stay its own.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from h2.connection import AllowedStreamIDs
from h2.events import DataReceived, Event, RequestReceived, StreamEnded
from h2.stream import H2Stream, StreamState

from gateway.grpc.http2 import MAX_STREAM_ID, SERVER_OPEN, GuardedH2
from gateway.grpc.limits import Limits

if TYPE_CHECKING:
    from h2._typing import Buffer

MOST_BLOCKS = 64
LONGEST_BLOCK = 512
_HEADER = Struct(">BHBBI").unpack_from
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 0x1, 0x4
# Looked up once: a member of an enum costs as much as a call.
_OPEN, _HALF_CLOSED_REMOTE = StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE
_ODD = AllowedStreamIDs.ODD

Headers = tuple[tuple[str, str], ...]


class QuickH2(GuardedH2):
    """Server side of one HTTP/2 connection; the headers of a known block come as one tuple."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._blocks: dict[bytes, Headers] = {}
        self._table: tuple[int, int, object] = (0, 0, None)

    def receive_data(self, data: Buffer) -> list[Event]:
        """Feed received bytes."""
        buffer = self.incoming_buffer
        if buffer._data or buffer._preamble_len or buffer._headers_buffer:
            return super().receive_data(data)
        whole = bytes(data)
        events: list[Event] = []
        position, end = 0, len(whole)
        while end - position >= 9:
            high, low, kind, flags, stream_id = _HEADER(whole, position)
            stream_id &= MAX_STREAM_ID  # The bit above it is reserved, and ignored.
            stop = position + 9 + (high << 16 | low)
            if stop > end:
                break
            quick: list[Event] | None = None
            if kind == _DATA and flags <= _END_STREAM:
                quick = self._data_frame(stream_id, whole[position + 9 : stop], flags)
            elif kind == _HEADERS and flags == _END_HEADERS:
                block = whole[position + 9 : stop]
                quick = self._headers_frame(stream_id, block)
                if quick is None:
                    quick = self._learn(block, whole[position:stop])
            events += super().receive_data(whole[position:stop]) if quick is None else quick
            if buffer._headers_buffer:
                position = stop
                break
            position = stop
        if position < end:
            events += super().receive_data(whole[position:])
        return events

    def _headers_frame(self, stream_id: int, block: bytes) -> list[Event] | None:
        """A new call with a known header block; None where it is h2's to look at."""
        headers = self._blocks.get(block)
        if (
            headers is None
            or self._table_changed()
            or self.refusing
            or stream_id <= self.highest_inbound_stream_id
            or stream_id % 2 == 0
            or self.state_machine.state is not SERVER_OPEN
            or self.open_inbound_streams >= self._max_streams
        ):
            return None
        stream: H2Stream = self._begin_new_stream(stream_id, _ODD)
        machine = stream.state_machine  # What it would note of the input RECV_HEADERS.
        machine.state = _OPEN
        machine.client = False
        machine.headers_received = True
        request = RequestReceived(stream_id=stream_id)
        request.headers = headers  # type: ignore[assignment]  # Nobody changes them.
        return [request]

    def _learn(self, block: bytes, frame: bytes) -> list[Event]:
        """Let h2 read a HEADERS frame, and remember what its block means as long as that holds."""
        self._table_changed()
        events = super().receive_data(frame)
        if self._table_changed() or len(block) > LONGEST_BLOCK or len(events) != 1:
            return events
        request = events[0]
        if isinstance(request, RequestReceived):
            headers = tuple([(str(name), str(value)) for name, value in request.headers])
            if "content-length" not in dict(headers):  # Then h2 counts the data.
                if len(self._blocks) >= MOST_BLOCKS:
                    self._blocks.clear()
                self._blocks[block] = headers
        return events

    def _table_changed(self) -> bool:
        """Whether blocks may mean something else than they did; if so all are forgotten."""
        table = self.decoder.header_table
        entries = table.dynamic_entries
        # Whatever is added is a new object, at the front.
        now = (table.maxsize, len(entries), entries[0] if entries else None)
        if now[0] == self._table[0] and now[1] == self._table[1] and now[2] is self._table[2]:
            return False
        self._table = now
        self._blocks.clear()
        return True

    def _data_frame(self, stream_id: int, data: bytes, flags: int) -> list[Event] | None:
        """Data of an open call, within the windows; None where it is h2's to look at."""
        stream = self.streams.get(stream_id)
        size = len(data)
        window = self._inbound_flow_control_window_manager
        if (
            stream is None
            or stream.state_machine.state is not _OPEN
            or stream._expected_content_length is not None
            or self.state_machine.state is not SERVER_OPEN
            or size > self.max_inbound_frame_size
            or size > window.current_window_size
            or size > stream._inbound_window_manager.current_window_size
        ):
            return None
        window.current_window_size -= size
        stream._inbound_window_manager.current_window_size -= size
        received = DataReceived(stream_id=stream_id, data=data, flow_controlled_length=size)
        if not flags:
            return [received]
        stream.state_machine.state = _HALF_CLOSED_REMOTE
        received.stream_ended = StreamEnded(stream_id=stream_id)
        return [received, received.stream_ended]

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Give window back for data that was read.

        A stream that its client has ended needs none, and the connection gets it in large steps:
        between these h2 does no more than count, which is done here.
        """
        stream = self.streams.get(stream_id)
        window = self._inbound_flow_control_window_manager
        processed = window._bytes_processed + acknowledged_size
        if (
            stream is not None
            and stream.state_machine.state is _HALF_CLOSED_REMOTE
            and processed < window.max_window_size // 2
            and window.current_window_size > 0
        ):
            window._bytes_processed = processed
        else:
            super().acknowledge_received_data(acknowledged_size, stream_id)
