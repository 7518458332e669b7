"""A gateway without NATS for the tests of functions: a worker's part is played by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gateway.access import Access
from gateway.catalog import Catalog
from gateway.door import Door
from gateway.health import HealthService
from gateway.link import Link
from gateway.reflection import ReflectionService
from gateway.router import Router
from gateway.server import GrpcServer
from gateway.service import InferenceService
from gateway.typed import untyped
from gateway.typed.call import PlainCall
from gateway.typed.calls import Calls
from gateway.typed.options import Options
from gateway.typed.services import TypedServices
from millstream.v1 import inference_pb2 as pb
from shared import typed, wire
from shared.errors import MillstreamError
from shared.signature import EnumType, Field, ListType, Record, Scalar, Signature, TensorType, Type
from shared.typed import Typed
from shared.wire import Announce, ModelCard

TEXT = Scalar("string")


def signature(
    name: str = "echo",
    version: str = "1",
    *fields: Field,
    output: Type | None = TEXT,
    streaming: bool = False,
    default: bool = False,
    summary: str = "",
) -> Signature:
    """A function that takes a string, unless told otherwise."""
    record = Record("Inputs", fields or (Field("text", 1, TEXT),))
    return Signature(name, version, record, output, streaming, default, summary)


RICH = signature(
    "rich",
    "1",
    Field("text", 1, TEXT),
    Field("times", 2, Scalar("int64"), required=False, default=1),
    Field("tags", 3, ListType(TEXT), required=False),
    Field("vector", 4, TensorType("float32", ("n",)), required=False),
    Field("mood", 5, EnumType("Mood", ("calm", "wild")), required=False),
)


def card(one: Signature, *features: str, data: bytes | None = None) -> ModelCard:
    """As a worker announces it."""
    return ModelCard(
        one.served_name, "app", 0, 0, "", typed.fingerprint(one), ("predict", *features),
        signature=typed.dump(one) if data is None else data,
    )  # fmt: skip


def announce(one: ModelCard, worker: str = "", state: str = "ready", boot: int = 1) -> Announce:
    name = worker or f"w-{one.name}"
    return Announce(f"{name}-{boot}", boot, name, state, one.name, one)


class Io:
    """Takes what is queued and told; publishes succeed at once."""

    def __init__(self) -> None:
        self.queued: asyncio.Queue[wire.Request] = asyncio.Queue()
        self.told: list[wire.Frame] = []
        self.refusal: MillstreamError | None = None

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        self.queued.put_nowait(request)
        outcome: int | MillstreamError = self.refusal or 1
        asyncio.get_running_loop().call_soon(done, outcome)

    def tell(self, worker: str, frame: wire.Frame) -> None:
        self.told.append(frame)

    def now(self) -> float:
        return time.monotonic()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args: None


class Bench:
    """All of a gateway's parts that functions need."""

    def __init__(self, access: Access | None = None) -> None:
        self.io = Io()
        self.router = Router("g", cast(Any, self.io), queue_seconds=60.0)
        link: Any = type("FakeLink", (), {"ready": True, "router": self.router})()
        self.catalog = Catalog(self.router.fleet, count=self.router.count)
        self.door = Door("g", cast(Link, link), self.catalog, access)
        self.health = HealthService()
        self.reflection = ReflectionService()
        self.reflection.add_module(pb.DESCRIPTOR)
        self.server = GrpcServer([self.health, self.reflection])
        self.calls = Calls(self.door, self.catalog)
        self.typed = TypedServices(self.calls, self.server, self.reflection, self.health)
        service_of = self.typed.service_of
        self.server.add(InferenceService(self.door, link, self.catalog, self.calls, service_of))
        self.router.on_models = self.update

    def update(self) -> None:
        self.catalog.refresh()
        self.typed.update(self.catalog, up=True)

    def announce(self, *signatures: Signature, features: Sequence[str] = ()) -> None:
        for one in signatures:
            self.router.on_announce(announce(card(one, *features)))

    def gone(self, one: Signature) -> None:
        self.router.on_announce(announce(card(one), state="gone"))

    async def take(self) -> wire.Request:
        """Take the next queued request, as its worker; it is bound."""
        request = await asyncio.wait_for(self.io.queued.get(), 5.0)
        claim = wire.Claim(request.attempt, 7, f"w-{request.model}-1", 0)
        self.router.on_reply(request.id, claim)
        return request

    def call(
        self, name: str, inputs: Mapping[str, Any], options: Options, *, json: bool = False
    ) -> PlainCall:
        """Call a function with plain values, as HTTP does; whoever asked for it closes it."""
        function = self.calls.function(name)
        message = untyped.request_of(function.typed, inputs, json=json)
        return self.calls.begin(function, message, options)

    def give(self, request: wire.Request, start: int, *items: bytes) -> None:
        """Send whole items, a part each."""
        parts = tuple(bytes([wire.LAST]) + item for item in items)
        self.router.on_reply(request.id, wire.Parts(request.attempt, 7, start, parts))

    def end(self, request: wire.Request, total: int) -> None:
        self.router.on_reply(request.id, wire.Done(request.attempt, 7, (total,), ("stop",), total))

    async def answer(self, one: Signature, *results: Any) -> tuple[wire.Request, Any]:
        """Play a worker for one call; gives the request, and its message parsed."""
        request = await self.take()
        messages = Typed(one)
        extra = [{"index": place} if one.streaming else {} for place in range(len(results))]
        self.give(
            request, 0,
            *(messages.response(result=value, **more).SerializeToString()
              for value, more in zip(results, extra, strict=True)),
        )  # fmt: skip
        self.end(request, len(results))
        assert request.call is not None
        return request, messages.request.FromString(request.call)
