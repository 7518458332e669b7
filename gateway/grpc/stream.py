"""The stream object that handlers get: grpclib's, with capped reads and the fast writer."""

from __future__ import annotations

import time
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from grpclib.const import Handler, Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import ProtocolError
from grpclib.metadata import Deadline
from grpclib.protocol import Stream as Http2Stream
from grpclib.server import Stream

from gateway.grpc.headers import Refusal, Request
from gateway.grpc.messages import InboundBuffer, read_message
from gateway.grpc.writer import ResponseWriter
from gateway.status import DetailsCodec


class MessageCodec(ProtoCodec):
    """Protobuf, and bytes as they are for methods declared with `bytes` for a message type."""

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Serialize, unless it is bytes already."""
        if message_type is bytes:
            return bytes(message)
        return super().encode(message, message_type)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Parse, unless the method takes bytes."""
        return data if message_type is bytes else super().decode(data, message_type)


CODEC = MessageCodec()
DETAILS_CODEC = DetailsCodec()


class RpcStream(Stream[Any, Any]):
    """One call, as its handler sees it.

    Attributes:
        writer: Sends messages that are encoded already.
    """

    def __init__(
        self,
        stream: Http2Stream,
        request: Request,
        method: Handler,
        dispatch: _DispatchServerEvents,
        max_message_bytes: int,
    ) -> None:
        super().__init__(
            stream,
            request.path,
            method.cardinality,
            method.request_type,
            method.reply_type,
            codec=CODEC,
            status_details_codec=DETAILS_CODEC,
            dispatch=dispatch,
            deadline=None if request.timeout is None else Deadline.from_timeout(request.timeout),
            user_agent=request.user_agent,
        )
        self._encoding = request.encoding
        self._max_message_bytes = max_message_bytes
        self.writer = ResponseWriter(self)

    async def recv_message(self) -> Any:
        """Receive the next request message, or None after the last one.

        Raises:
            Refusal: The message is malformed or too large, or there is none where one is due.
        """
        buffer = cast(InboundBuffer, self._stream.buffer)
        data = await read_message(buffer, self._encoding, self._max_message_bytes)
        if data is None:
            if not self._messages_received and not self._cardinality.client_streaming:
                raise Refusal(
                    "refused_message", Status.INVALID_ARGUMENT, "the request has no message"
                )
            return None
        try:
            message = self._codec.decode(data, self._recv_type)
        except DecodeError as error:
            raise Refusal(
                "refused_message",
                Status.INVALID_ARGUMENT,
                f"the request message is no {_name(self._recv_type)}",
            ) from error
        (message,) = await self._dispatch.recv_message(message)
        self._messages_received += 1
        self._stream.connection.messages_received += 1
        self._stream.connection.last_message_received = time.monotonic()
        return message

    async def send_message(self, message: Any) -> None:
        """Send a response message; the headers go first where they are due."""
        if self._send_message_done and not self._cardinality.server_streaming:
            raise ProtocolError("Message was already sent")
        (message,) = await self._dispatch.send_message(message)
        data = [self._codec.encode(message, self._send_type)]
        if not self.writer.write(data):
            await self.writer.send(data)


def _name(message_type: type[Message]) -> str:
    return message_type.DESCRIPTOR.full_name
