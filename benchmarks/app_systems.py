"""The systems that serve functions: Millstream's three processes, and BlazeRPC's one."""

from __future__ import annotations

import asyncio
import time
from struct import Struct
from typing import ClassVar

from benchmarks.app_client import CallOrder
from benchmarks.child import SystemFault
from benchmarks.loads import Load, Order
from benchmarks.servers.functions import WORDS
from benchmarks.systems import READY_LIMIT, Millstream, System, blazerpc_python
from millstream import Client
from shared.errors import MillstreamError

NAP = 0.3
STREAMS = ("words", "burst")
TEXT = "a short text"
_DOUBLE = Struct("<d")


def varint(number: int) -> bytes:
    """Of protobuf's wire format."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def text_field(text: str) -> bytes:
    """Field 1, a string."""
    return b"\x0a" + varint(len(text.encode())) + text.encode()


class Functions(Millstream):
    """Gateway, NATS server and a worker with the functions."""

    models: ClassVar[int] = 7
    """How many `benchmarks.servers.app` has."""

    def call(self, name: str, load: Load) -> CallOrder:
        """A load of calls of a function, and what each answer must be."""
        kind = name.partition("-")[0]
        service = "".join(part.capitalize() for part in name.split("-"))
        method = "PredictStream" if kind in STREAMS else "Predict"
        path = f"/millstream.models.v1.{service}/{method}"
        return _call(self, path, kind, load, numbered=True)

    def _worker(self) -> list[str]:
        return ["benchmarks.servers.app:app", "--name", "bench"]

    async def _served(self) -> None:
        """Wait until the gateway knows every function."""
        deadline = time.monotonic() + READY_LIMIT
        async with Client(self._address) as client:
            while time.monotonic() < deadline:
                try:
                    if sum(model.workers > 0 for model in await client.models()) == self.models:
                        return
                except MillstreamError:
                    pass
                await asyncio.sleep(0.02)
        raise SystemFault(f"the gateway does not see the functions:\n{self._said('worker')}")


class BlazeFunctions(System):
    """BlazeRPC with the functions, in its own virtual environment; it calls each by itself."""

    name = "blazerpc"
    batching: ClassVar[str] = "0"

    def call(self, name: str, load: Load) -> CallOrder:
        """A load of calls of a function, and what each answer must be."""
        kind = name.partition("-")[0]
        path = f"/blazerpc.InferenceService/Predict{kind.capitalize()}"
        return _call(self, path, kind, load, numbered=False)

    def _start(self) -> None:
        command = [str(blazerpc_python()), "-m", "benchmarks.servers.blaze_app", "READY_FILE"]
        self._address = self._await("server", self._spawn("server", [*command, self.batching]))


class BlazeBatching(BlazeFunctions):
    """The same as it comes: it batches."""

    name = "blazerpc batching"
    batching = "1"


def _call(
    system: Functions | BlazeFunctions, path: str, kind: str, load: Load, *, numbered: bool
) -> CallOrder:
    """An order, whose request and answer are made by hand: both systems number fields alike.

    Args:
        system: Gets the load.
        path: The method.
        kind: The function.
        load: What to do.
        numbered: Whether field 2 of a stream's messages is their position, where it is not 0.
    """
    if kind in STREAMS:
        request = b"\x08" + varint(WORDS)
        texts = [text_field(f"word {index}") for index in range(WORDS)]
        if numbered:
            numbers = [b"\x10" + varint(index) if index else b"" for index in range(WORDS)]
            texts = [text + number for text, number in zip(texts, numbers, strict=True)]
    elif kind == "echo":
        request, texts = text_field(TEXT), [text_field(TEXT)]
    else:
        # BlazeRPC's float has 32 bits, field 1, wire type 5.
        request, texts = _nap(double=isinstance(system, Functions))
    host, port = system._address.rsplit(":", 1)
    order = Order(host, int(port), path, request.hex(), False, load)
    return CallOrder(order, [text.hex() for text in texts])


def _nap(*, double: bool) -> tuple[bytes, list[bytes]]:
    message = b"\x09" + _DOUBLE.pack(NAP) if double else b"\x0d" + Struct("<f").pack(NAP)
    return message, [message]
