"""Opens calls of functions, whatever protocol they came by, and gives what they answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gateway.catalog import Catalog, Function
from gateway.door import Door
from gateway.grpc.stream import RpcStream
from gateway.outlet import Flusher
from gateway.session import Session
from gateway.typed.awaited import Awaited
from gateway.typed.call import PlainCall, too_large
from gateway.typed.options import Options
from gateway.typed.outlet import CallOutlet, Convert
from shared.errors import InvalidRequest, MillstreamError, RequestTooLarge

if TYPE_CHECKING:
    from grpclib.server import Stream


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

    def function(self, name: str, *, tenant: str = "", streaming: bool | None = None) -> Function:
        """A function that can be called now.

        Args:
            name: `name@version`, or a name alone for its default version.
            tenant: Who calls, admitted.
            streaming: Whether the call is for a stream; None where either will do.

        Raises:
            InvalidRequest: It is no function, or one of the other kind; says the right call.
            UnknownModel: Nobody serves it.
            Unavailable: No worker serves it now.
        """
        function = self._catalog.function(name, partial(self._door.access.visible, tenant))
        streams = function.typed.signature.streaming
        if streaming is not None and streaming != streams:
            what = "streams" if streams else "does not stream"
            typed = function.typed
            raise InvalidRequest(
                f"function {function.card.name!r} {what}: call {typed.method}, or {typed.path}",
                field="model",
            )
        return function

    def begin(self, function: Function, message: Any, options: Options) -> PlainCall:
        """Queue a call: for HTTP, KServe and all else whose answer is not the items themselves.

        Args:
            function: Which.
            message: Its checked request message.
            options: How it is to be run.

        Returns:
            The call, queued; whoever asked for it closes it.

        Raises:
            MillstreamError: What is wrong with it.
        """
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
