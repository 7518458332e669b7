"""A connection's writes joined: what a turn of the event loop sends goes out as few system calls.

uvloop tries the socket at every `write`, and each of many streams writes its own frame: the send
was a third of a paced token's cost. Joined without bound, the first answer of a burst would wait
for the last one, so a batch goes out once its first write has waited for `LONGEST`: that is one
answer or a hundred, as they cost. At the latest it goes out before the tasks that this turn woke:
what they have to tidy up is nothing that others should wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

LONGEST = 0.001
"""Seconds that a write may wait for company."""
LOOK_EVERY = 8
"""Writes between two looks at the clock."""
MOST_BYTES = 32 * 2**10


class JoinedTransport(asyncio.Transport):
    """A transport in front of the socket's own; the bytes and their order are the same.

    Args:
        transport: The socket's.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self.is_closing = transport.is_closing  # type: ignore[method-assign]  # Asked a token.
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._size = 0
        self._since = 0.0
        self._planned = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send soon, or now where enough waits."""
        waiting = self._waiting
        waiting.append(data if type(data) is bytes else bytes(data))
        self._size += len(data)
        if len(waiting) == 1:
            self._since = monotonic()
        elif not len(waiting) % LOOK_EVERY and monotonic() - self._since > LONGEST:
            self.flush()
            return
        if self._size >= MOST_BYTES:
            self.flush()
        elif not self._planned:
            self._planned = True
            self._loop.call_soon(self._end_turn)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all of these."""
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """Send what waits."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._size = 0
            if not self._transport.is_closing():
                self._transport.write(b"".join(waiting) if len(waiting) > 1 else waiting[0])

    def _end_turn(self) -> None:
        self._planned = False
        self.flush()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait here or for the socket."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close once everything is sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close now; what waits is lost."""
        self._waiting.clear()
        self._size = 0
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the socket."""
        return self._transport.get_extra_info(name, default)
