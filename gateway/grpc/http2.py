"""h2's connection with guards: stream limit, ping and reset budgets, bounded buffers and tables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from h2.config import H2Configuration
from h2.connection import (
    AllowedStreamIDs,
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    _decode_headers,
)
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.grpc.limits import Limits, TokenBucket

if TYPE_CHECKING:
    from h2._typing import Buffer

MAX_STREAM_ID = 2**31 - 1
RAPID = 1.0
"""Seconds: a call reset when younger than this counts against the reset budget."""

HARD_HEADER_FACTOR = 4
MAX_HEADER_TABLE = 4096
# Looked up once, for this module and its fast twins: a member of an enum costs as much as a call.
SERVER_OPEN = ConnectionState.SERVER_OPEN
SENDABLE = (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)

# latin-1 decodes any byte: a stray one in a header is a call's fault, not the connection's.
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class HostilePeer(DenialOfServiceError):
    """A budget is spent; h2 turns it into GOAWAY with ENHANCE_YOUR_CALM."""

    counter: ClassVar[str]


class PingFlood(HostilePeer):
    """More PING or SETTINGS frames than the budget holds."""

    counter = "ping_floods"


class RapidReset(HostilePeer):
    """More calls opened and reset at once than the budget holds (CVE-2023-44487)."""

    counter = "rapid_resets"


class GuardedH2(H2Connection):
    """Server side of one HTTP/2 connection.

    Attributes:
        data_frames: DATA frames sent; whoever writes one without `send_data` adds to it.
        refusing: Whether new streams are refused, which is so after the last GOAWAY.
        streams_refused: Streams refused since the connection began.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(_CONFIG)
        self.data_frames = 0
        self.refusing = False
        self.streams_refused = 0
        self._max_streams = limits.max_streams
        self._controls = TokenBucket(limits.ping_budget, limits.ping_budget / 10)
        self._resets = TokenBucket(limits.reset_budget, limits.reset_budget / 5)
        self._opened_at: dict[int, float] = {}
        self._sweep_at = 0
        self._last_words = b""
        self._data_frames_at_control = 0
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            },
        )
        # A list over the advertised size is answered with a status; this one ends the connection.
        self.decoder.max_header_list_size = HARD_HEADER_FACTOR * limits.max_header_bytes
        self.initiate_connection()
        self.increment_flow_control_window(
            limits.connection_window - self.inbound_flow_control_window
        )

    @property
    def open(self) -> bool:
        """Whether frames can be sent on streams."""
        return self.state_machine.state is SERVER_OPEN

    @property
    def open_inbound_streams(self) -> int:
        """Open streams, or more by those closed since the last sweep, and never a false refusal.

        h2 walks all streams whenever one opens; here a sweep comes after as many new streams as
        were open at the last one.
        """
        if len(self.streams) < self._sweep_at:
            return len(self.streams)
        count = self._open_streams(1)
        self._sweep_at = min(2 * len(self.streams) + 64, self._max_streams)
        self._opened_at = {i: t for i, t in self._opened_at.items() if i in self.streams}
        return count

    def goaway(self, last_stream_id: int, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Queue a GOAWAY that leaves open streams alone, unlike `close_connection`."""
        self._prepare_for_sending(
            [GoAwayFrame(0, last_stream_id=last_stream_id, error_code=error_code)]
        )

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: int | None = None,
    ) -> None:
        """Queue a DATA frame and count it."""
        super().send_data(stream_id, data, end_stream, pad_length)
        self.data_frames += 1

    def receive_data(self, data: Buffer) -> list[Event]:
        """Feed received bytes; a frame that is too long fails at its header, not at its end."""
        events = super().receive_data(data)
        if len(self.incoming_buffer._data) > self.max_inbound_frame_size + 9:
            self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError("a frame is longer than SETTINGS_MAX_FRAME_SIZE")
        return events

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        self.state_machine.process_input(ConnectionInputs.SEND_GOAWAY)
        last = self.highest_inbound_stream_id
        self._prepare_for_sending([GoAwayFrame(0, last, error_code, self._last_words)])

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        self._opened_at[stream_id] = time.monotonic()
        return stream

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        new = frame.stream_id > self.highest_inbound_stream_id and frame.stream_id % 2 == 1
        if new and (self.refusing or self.open_inbound_streams >= self._max_streams):
            return [self._refuse(frame)], []
        return super()._receive_headers_frame(frame)

    def _refuse(self, frame: HeadersFrame) -> RstStreamFrame:
        """Refuse one stream, which its client may retry; h2 would end the connection."""
        _decode_headers(self.decoder, frame.data)  # the table is shared by all streams
        self.highest_inbound_stream_id = frame.stream_id
        self._closed_streams[frame.stream_id] = StreamClosedBy.SEND_RST_STREAM
        self.streams_refused += 1
        self._spend_reset()
        return RstStreamFrame(frame.stream_id, error_code=ErrorCodes.REFUSED_STREAM)

    def _receive_ping_frame(self, frame: PingFrame) -> tuple[list[Frame], list[Event]]:
        if "ACK" not in frame.flags:
            self._spend_control()
        return super()._receive_ping_frame(frame)

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[Event]]:
        if "ACK" not in frame.flags:
            self._spend_control()
            table = frame.settings.get(SettingCodes.HEADER_TABLE_SIZE, MAX_HEADER_TABLE)
            if table > MAX_HEADER_TABLE:  # its memory is ours
                frame.settings[SettingCodes.HEADER_TABLE_SIZE] = MAX_HEADER_TABLE
        frames, events = super()._receive_settings_frame(frame)
        self._tidy_table_sizes()
        return frames, events

    def _tidy_table_sizes(self) -> None:
        """Let the next block tell the smallest and the last of several sizes (RFC 7541, 4.2).

        hpack tells every one, also what is over the last, and nothing where the last came twice.
        """
        if changes := self.encoder.table_size_changes:
            least, last = min(changes), self.encoder.header_table_size
            self.encoder.table_size_changes = [least, last] if least < last else [last]
            self.encoder.header_table.resized = True

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        opened_at = self._opened_at.pop(frame.stream_id, None)
        stream = self.streams.get(frame.stream_id)
        if (
            opened_at is not None
            and stream is not None
            and stream.state_machine.state in SENDABLE
            and time.monotonic() - opened_at < RAPID
        ):
            self._spend_reset()
        return super()._receive_rst_stream_frame(frame)

    def _receive_window_update_frame(
        self, frame: WindowUpdateFrame
    ) -> tuple[list[Frame], list[Event]]:
        frames, events = super()._receive_window_update_frame(frame)
        if frames:  # an overflow, which makes us reset the stream (CVE-2025-8671)
            self._spend_reset()
        return frames, events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        if frame.error_code != ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        # A client that shuts down gracefully still reads the answers to its open calls.
        event = ConnectionTerminated()
        event.error_code = ErrorCodes.NO_ERROR
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    def _spend_control(self) -> None:
        answered = self.data_frames != self._data_frames_at_control
        self._data_frames_at_control = self.data_frames
        # A client that measures its bandwidth pings with the data that it gets.
        if not answered and not self._controls.spend(time.monotonic()):
            self._last_words = b"too_many_pings"  # on which gRPC clients ping less often
            raise PingFlood("too many PING and SETTINGS frames")

    def _spend_reset(self) -> None:
        if not self._resets.spend(time.monotonic()):
            raise RapidReset("too many streams opened and reset")
