"""The NATS text protocol, read without an object, a queue or an await a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from shared.telemetry import rare

if TYPE_CHECKING:
    from shared.natsio import LeanClient

log = structlog.get_logger(__name__)

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes subject, reply subject, header block (or b"") and payload."""

MAX_CONTROL_LINE = 4096


class LeanParser(Parser):
    """Hands each message to the handler of its subscription, of `LeanClient.handlers`."""

    nc: LeanClient

    def reset(self) -> None:
        """Forget what was read of the old connection."""
        super().reset()
        self._data = b""

    async def parse(self, data: bytes = b"") -> None:
        """Dispatch every complete message in what was left over plus `data`."""
        data = self._data + data if self._data else data
        self._data = b""
        handlers, find = self.nc.handlers, data.find
        position, end = 0, len(data)
        while position < end:
            line_end = find(b"\r\n", position)
            if line_end < 0:
                if end - position > MAX_CONTROL_LINE:
                    raise ProtocolError
                break
            body = start = line_end + 2
            fields = data[position:line_end].split(b" ")  # Subjects may hold other blanks.
            kind = fields[0]
            if kind != b"MSG" and kind != b"HMSG":
                line = data[position:line_end]
                position = start
                await self._control(line)
                continue
            try:
                if kind == b"HMSG":
                    body += int(fields.pop(-2))
                if len(fields) == 4:
                    _, subject, sid, size = fields
                    reply = b""
                else:
                    _, subject, sid, reply, size = fields
                stop = start + int(size)
            except (ValueError, IndexError):
                raise ProtocolError from None
            if stop + 2 > end:
                break
            position = stop + 2
            handler = handlers.get(sid)
            if handler is not None:
                try:
                    handler(subject, reply, data[start:body], data[body:stop])
                except Exception:  # A handler's fault must not end the read loop.
                    self._report(subject)
            else:
                await self._hand_on(sid, subject, reply, data[body:stop], data[start:body])
        if position < end:
            self._data = data[position:]

    def _report(self, subject: bytes) -> None:
        self.nc.events["handler_error"] += 1
        if rare(self.nc.events["handler_error"]):
            log.exception("nats_handler_failed", subject=subject.decode(errors="replace"))

    async def _hand_on(
        self, sid: bytes, subject: bytes, reply: bytes, payload: bytes, headers: bytes
    ) -> None:
        """Leave a message of any other subscription to the library."""
        try:
            number = int(sid)
        except ValueError:
            raise ProtocolError from None
        await self.nc._process_msg(number, subject, reply, payload, headers)

    async def _control(self, line: bytes) -> None:
        operation = line[:4].upper()
        if operation == b"PING":
            await self.nc._process_ping()
        elif operation == b"PONG":
            await self.nc._process_pong()
        elif operation == b"INFO":
            await self.nc._process_info(json.loads(line[5:]))
        elif operation == b"-ERR":
            await self.nc._process_err(line[5:].decode(errors="replace").lower())
        elif not line.startswith(b"+OK"):
            raise ProtocolError
