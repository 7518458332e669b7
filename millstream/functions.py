"""Calls of served functions: `client.predict(...)`, `client.stream(...)`, `client.function(...)`.

    embed = client.function("embed", deadline=2.0)
    vector = await embed.predict(text="hello")

    async for frame in client.stream("render", prompt="a cat"):
        show(frame.data)

Values are plain Python: numbers, text, bytes, datetimes, lists, dicts; an enum is its name, a
dataclass or a pydantic model a dict, an array a numpy array (a torch tensor may be given too), an
image, audio or video a `Media(type, data)`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias, TypeVar

from grpclib.client import ServiceMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from millstream.channel import DrainableChannel, told, told_as
from millstream.middleware import Call, called, streamed
from millstream.plain import arrays, plain
from millstream.questions import PRIORITIES, Priority
from millstream.reflected import Deadline, Method, Methods
from millstream.v1 import inference_pb2 as pb
from shared.errors import InternalError, InvalidRequest, UnknownModel, Unsupported
from shared.values import from_message, from_value, to_message, to_value

REQUEST_ID: Final = "x-request-id"
PRIORITY: Final = "x-priority"

STALE: Final = (UnknownModel, Unsupported, InvalidRequest)
"""What a call may fail with where the client's types are old."""

_Call = TypeVar("_Call", bound=ServiceMethod[Any, Any])

Build: TypeAlias = Callable[[Method], Any]  # Makes the request's message.


@dataclass(frozen=True, slots=True)
class Way:
    """What calls of a client have in common.

    Attributes:
        target: For messages.
        connection: The channel, made when first needed.
        methods: How to call which function.
        middleware: Around each call, the outermost first.
    """

    target: str
    connection: Callable[[], DrainableChannel]
    methods: Methods
    middleware: Sequence[object] = ()


class Seen:
    """What is known of a stream under way.

    Attributes:
        request_id: The call's name, given or generated; "" before the first item.
    """

    request_id: str = ""

    def add(self, item: Any, due: int, metadata: Any) -> None:
        """Take note of an item.

        Raises:
            InternalError: It is not the one that was due.
        """
        if item.index != due:
            raise InternalError(f"item {item.index} of the stream came where {due} was due")
        if due == 0 and metadata is not None:
            self.request_id = str(metadata.get(REQUEST_ID, ""))


class Function:
    """One served function, and how to call it; made by `Client.function`.

    Args:
        way: To the gateway.
        name: `name`, which is its default version, or `name@version`.
        deadline: Seconds after which a call ends with `DeadlineExceeded`.
        metadata: Sent with every call.
        request_id: The name of the calls; at one time only one may have it.
        priority: The class they queue in.

    Raises:
        InvalidRequest: An unknown priority.
    """

    def __init__(
        self,
        way: Way,
        name: str,
        *,
        deadline: float | None,
        metadata: Mapping[str, str],
        request_id: str = "",
        priority: Priority | None = None,
    ) -> None:
        self.name = name
        self._way = way
        self._deadline = deadline
        self._metadata = dict(metadata)
        if priority is not None:
            if priority not in PRIORITIES:
                message = f"priority: {priority!r} is not one of {', '.join(PRIORITIES)}"
                raise InvalidRequest(message, field="priority")
            self._metadata[PRIORITY] = priority
        if request_id:
            self._metadata[REQUEST_ID] = request_id

    async def predict(self, /, **inputs: Any) -> Any:
        """Call it and return its result.

        Raises:
            InvalidRequest: An input is wrong, which `field` names; or the function streams.
            FunctionError: What the function itself raised: `code` and `status` are its own.
        """
        build = building(self.name, inputs)
        if not self._way.middleware:
            return result_of(await self.reply(build))
        call = self._noted(streaming=False)

        async def work() -> Any:
            return result_of(await self.reply(build, call.metadata))

        return await called(self._way.middleware, call, work)

    def stream(self, /, **inputs: Any) -> Items:
        """Call it and iterate over what it yields; nothing is sent before that.

        The iteration raises what `predict` raises, and `InternalError` where an item is missing.
        """
        seen = Seen()
        build = building(self.name, inputs)
        if not self._way.middleware:
            return Items(self.replies(build, seen), seen)
        call = self._noted(streaming=True)

        async def results() -> AsyncGenerator[Any, None]:
            async with aclosing(self.replies(build, seen, call.metadata)) as messages:
                async for message in messages:
                    yield result_of(message)

        around = streamed(self._way.middleware, call, results, lambda: seen.request_id)
        return Items(around, seen, read=_as_it_is)

    async def method(self) -> Method:
        """How it is called, and its types."""
        async with told(self._way.target):
            return await self._way.methods.find(self.name, Deadline(self._deadline))

    async def reply(self, build: Build, metadata: Mapping[str, str] | None = None) -> Any:
        """Call it with a message of one's own; returns the response's.

        Args:
            build: Makes the message.
            metadata: Sent with it instead of the function's.
        """
        sent = self._metadata if metadata is None else metadata
        deadline = Deadline(self._deadline)
        async with told(self._way.target):
            method = await self._way.methods.find(self.name, deadline)
            while True:
                try:
                    call = self._call(UnaryUnaryMethod, method, streaming=False)
                    return await call(build(method), timeout=deadline.left(), metadata=sent)
                except (GRPCError, InvalidRequest) as error:
                    method = await self._renewed(method, error, deadline)

    async def replies(
        self, build: Build, seen: Seen, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Any, None]:
        """As `reply`, of a function that streams: its messages in order, none missing."""
        sent = self._metadata if metadata is None else metadata
        deadline = Deadline(self._deadline)
        count = 0
        async with told(self._way.target):
            method = await self._way.methods.find(self.name, deadline)
            while True:
                try:
                    call = self._call(UnaryStreamMethod, method, streaming=True)
                    message = build(method)
                    async with call.open(timeout=deadline.left(), metadata=sent) as stream:
                        await stream.send_message(message, end=True)
                        async for item in stream:
                            seen.add(item, count, stream.initial_metadata)
                            count += 1
                            yield item
                    return
                except (GRPCError, InvalidRequest) as error:
                    if count:
                        raise
                    method = await self._renewed(method, error, deadline)

    def _noted(self, *, streaming: bool) -> Call:
        """A call, as middleware sees it."""
        return Call(self.name, self._metadata.get(REQUEST_ID, ""), dict(self._metadata), streaming)

    def _call(self, kind: type[_Call], method: Method, *, streaming: bool) -> _Call:
        """What calls it by grpclib, where it is of the kind that is asked for."""
        if method.streaming is not streaming:
            how = "streams: call stream" if method.streaming else "does not stream: call predict"
            raise InvalidRequest(f"{method.model} {how}", field="model")
        return kind(self._way.connection(), method.path, method.request, method.response)

    async def _renewed(
        self, method: Method, error: GRPCError | InvalidRequest, deadline: Deadline
    ) -> Method:
        """The function as it is now, where the refusal may come from old types; else raises it."""
        if isinstance(told_as(error) if isinstance(error, GRPCError) else error, STALE):
            renewed = await self._way.methods.renew(self.name, method, deadline)
            if renewed is not None:
                return renewed
        raise error


class Items:
    """What a function yields, in order: `async for item in client.stream(...)`.

    Leaving the loop early cancels the call once nothing refers to this object any more; who keeps
    it uses `async with`, or awaits `cancel`. It checks that no item is missing or comes twice.
    """

    def __init__(
        self,
        messages: AsyncGenerator[Any, None],
        seen: Seen,
        *,
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        # They must not refer to this object: a cycle would put off the cancellation.
        self._messages = messages
        self._seen = seen
        self._read = read or result_of

    @property
    def request_id(self) -> str:
        """The call's name, given or generated; set with the first item."""
        return self._seen.request_id

    def __aiter__(self) -> Self:
        """The items can be iterated over once."""
        return self

    async def __anext__(self) -> Any:
        """Wait for the next item."""
        return self._read(await anext(self._messages))

    async def cancel(self) -> None:
        """End the call; nothing if it is over."""
        await self._messages.aclose()

    aclose = cancel

    async def __aenter__(self) -> Self:
        """Nothing yet: the first item starts the call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is not over."""
        await self.cancel()


def _as_it_is(item: Any) -> Any:
    return item


def building(name: str, inputs: Mapping[str, Any]) -> Build:
    """What makes a request of plain Python values."""

    def build(method: Method) -> Any:
        given = {one: plain(value) for one, value in inputs.items()}
        if method.service:
            return to_message(method.request, given)
        values = {one: to_value(value, one) for one, value in given.items()}
        return pb.PredictRequest(model=name, inputs=values)

    return build


def result_of(message: Any) -> Any:
    """What a response holds, as plain Python; None where the function gives nothing."""
    if isinstance(message, pb.PredictResponse):
        return arrays(from_value(message.result))
    return arrays(from_message(message).get("result"))
