"""Opens calls of functions, whatever protocol they came by, and gives what they answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from gateway.catalog import Catalog, Function
from gateway.door import Door
from gateway.grpc.stream import RpcStream
from gateway.outlet import Flusher
from gateway.session import Session
from gateway.typed import untyped
from gateway.typed.options import Options
from gateway.typed.outlet import Awaited, CallOutlet, Convert
from shared.errors import InvalidRequest, MillstreamError, RequestTooLarge

if TYPE_CHECKING:
    from grpclib.server import Stream


class PlainCall:
    """A call whose items come as the function's response messages; close it when done.

    `async for message in call`, or `await call.result()` where the function does not stream.

    Args:
        door: The way in.
        function: Which.
        request: Its request message.
        session: What runs for it.
        outlet: Gets its items.

    Attributes:
        function: Which.
    """

    def __init__(
        self, door: Door, function: Function, request: Any, session: Session, outlet: Awaited
    ) -> None:
        self.function = function
        self._door = door
        self._request = request
        self._session = session
        self._outlet = outlet

    @property
    def request_id(self) -> str:
        """The client's name for it, or the generated one."""
        return self._session.request.request_id

    async def item(self) -> bytes:
        """The one item of a function that does not stream, serialized.

        Raises:
            MillstreamError: What the call failed with.
        """
        try:
            return await self._outlet.only()
        except RequestTooLarge as error:
            raise too_large(error, self._request) from error

    async def result(self) -> Any:
        """The response message of a function that does not stream.

        Raises:
            MillstreamError: What the call failed with.
        """
        return untyped.parsed(self.function.typed, await self.item())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the response messages as they come.

        Raises:
            MillstreamError: What the call failed with.
        """
        try:
            while (item := await self._outlet.next()) is not None:
                yield untyped.parsed(self.function.typed, item)
        except RequestTooLarge as error:
            raise too_large(error, self._request) from error

    def close(self) -> None:
        """The client is served or gone: what still runs is cancelled."""
        self._outlet.abandon()
        self._door.close(self._session)


class Calls:
    """Opens calls.

    Args:
        door: The way in.
        catalog: The models.
    """

    def __init__(self, door: Door, catalog: Catalog) -> None:
        self._door = door
        self._catalog = catalog
        self._flusher = Flusher()

    def function(self, name: str, *, streaming: bool | None = None) -> Function:
        """A function that can be called now.

        Args:
            name: `name@version`, or a name alone for its default version.
            streaming: Whether the call is for a stream; None where either will do.

        Raises:
            InvalidRequest: It is no function, or one of the other kind; says the right call.
            UnknownModel: Nobody serves it.
            Unavailable: No worker serves it now.
        """
        function = self._catalog.function(name)
        streams = function.typed.signature.streaming
        if streaming is not None and streaming != streams:
            what = "streams" if streams else "does not stream"
            typed = function.typed
            raise InvalidRequest(
                f"function {function.card.name!r} {what}: call {typed.method}, or {typed.path}",
                field="model",
            )
        return function

    def open(
        self,
        name: str,
        inputs: Mapping[str, Any],
        options: Options,
        *,
        json: bool = False,
        streaming: bool | None = None,
    ) -> PlainCall:
        """Call a function with plain values: for HTTP, KServe and whatever else.

        Args:
            name: `name@version`, or a name alone for its default version.
            inputs: Its parameters: Python values (`shared.values.to_message`), or JSON ones.
            options: How it is to be run.
            json: Whether they are JSON (`shared.values.from_json`).
            streaming: Whether the call is for a stream; None where either will do.

        Returns:
            The call, queued; whoever asked for it closes it.

        Raises:
            MillstreamError: What is wrong with it.
        """
        function = self.function(name, streaming=streaming)
        message = untyped.request_of(function.typed, inputs, json=json)
        return self.begin(function, message, options)

    def begin(self, function: Function, message: Any, options: Options) -> PlainCall:
        """Queue a call whose request message is built and checked; see `open`."""
        request = self._door.accept_call(function.card, message.SerializeToString(), options)
        outlet = Awaited()
        session = self._door.open(request, outlet, seconds=options.seconds)
        outlet.taken = session.took
        return PlainCall(self._door, function, message, session, outlet)

    async def stream(
        self,
        rpc: Stream[Any, Any],
        function: Function,
        message: Any,
        options: Options,
        convert: Convert | None = None,
    ) -> None:
        """Run a call and write its items to a gRPC stream until it ends.

        Args:
            rpc: The client's call.
            function: Which.
            message: Its checked request message.
            options: How it is to be run.
            convert: Makes messages of items; None where they are what the client gets.

        Raises:
            MillstreamError: What is wrong with it, or what it failed with.
        """
        request = self._door.accept_call(function.card, message.SerializeToString(), options)
        session: Session | None = None

        def fail(error: MillstreamError) -> None:
            if session is not None:
                session.fail(error)

        writer = cast(RpcStream, rpc).writer
        outlet = CallOutlet(writer, self._flusher, fail, convert)
        session = self._door.open(request, outlet, seconds=options.seconds)
        outlet.taken = session.took
        try:
            writer.begin_with_first(request.request_id)
            self._flusher.begin_soon(writer)
            await outlet.run()
        except RequestTooLarge as error:
            raise too_large(error, message) from error
        finally:
            writer.begin()
            self._door.close(session)

    async def reply(self, rpc: Stream[Any, Any], call: PlainCall, convert: Convert | None) -> None:
        """Give the one item of a call to its gRPC client, and close the call.

        Args:
            rpc: The client's call.
            call: What runs for it.
            convert: Makes a message of the item; None where it is what the client gets.

        Raises:
            MillstreamError: What the call failed with.
        """
        writer = cast(RpcStream, rpc).writer
        writer.begin_with_first(call.request_id)
        try:
            item = await call.item()
            message = item if convert is None else convert(0, item)
            if not writer.write([message]):
                await writer.send([message])
        finally:
            writer.begin()
            call.close()


def too_large(error: RequestTooLarge, message: Any) -> RequestTooLarge:
    """The same error, with the name of the parameter that takes the most room."""
    sizes = {}
    rest = type(message)()
    rest.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        before = rest.ByteSize()
        rest.ClearField(descriptor.name)
        sizes[descriptor.name] = before - rest.ByteSize()
    field = max(sizes, key=sizes.__getitem__, default="")
    what = error.message.partition(":")[0]
    return RequestTooLarge(
        f"{what}, and {field or 'it'} is most of it: send less, or raise max_payload on the NATS "
        "server",
        field=field,
    )
