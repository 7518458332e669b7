"""One call from its headers to its trailers, and the calls of one connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from grpclib.const import Handler, Status
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import AbstractHandler
from grpclib.protocol import Stream as Http2Stream
from h2.exceptions import ProtocolError as Http2Error

from gateway.grpc.headers import Headers, Metadata, Refusal, Request, parse_request
from gateway.grpc.limits import Limits, ServerCounters
from gateway.grpc.stream import RpcStream
from gateway.status import to_grpc
from shared.errors import MillstreamError

if TYPE_CHECKING:
    from gateway.grpc.connection import GrpcProtocol

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ServerState:
    """What all connections of one server share.

    Attributes:
        methods: `/package.Service/Method` to its handler; may change while the server runs.
        unknown: Finds the handler of a path that is not among them, or None.
        admit: Lets a call of a path in, or raises; it may change the metadata. No listener of
            grpclib's, whose event alone would be 3% of a one-token request.
        background: Those of the methods whose calls a drain does not wait for.
        calls: Tasks of the calls that a drain waits for.
        draining: No connection is accepted any more.
        closing: Calls that are cancelled now end with UNAVAILABLE.
    """

    limits: Limits
    counters: ServerCounters
    dispatch: _DispatchServerEvents
    methods: dict[str, Handler] = field(default_factory=dict)
    unknown: Callable[[str], Handler | None] = lambda _path: None
    admit: Callable[[str, Metadata], None] = lambda _path, _metadata: None
    background: set[str] = field(default_factory=set)
    connections: set[GrpcProtocol] = field(default_factory=set)
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    draining: bool = False
    closing: bool = False


class Calls(AbstractHandler):
    """The calls of one connection; each is a task that ends, whatever happens to the connection.

    Args:
        state: What the server's connections share.
        on_idle: Called when the last call that a drain waits for has ended.
    """

    def __init__(self, state: ServerState, on_idle: Callable[[], None]) -> None:
        self._state = state
        self._on_idle = on_idle
        self._tasks: dict[Http2Stream, asyncio.Task[None]] = {}
        self._foreground = 0

    @property
    def idle(self) -> bool:
        """Whether no call is open that a drain waits for."""
        return not self._foreground

    @property
    def empty(self) -> bool:
        """Whether no call is open."""
        return not self._tasks

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of the open calls."""
        return list(self._tasks.values())

    def accept(
        self, stream: Http2Stream, headers: Headers, release_stream: Callable[[], Any]
    ) -> None:
        """Start serving a call."""
        task = asyncio.get_running_loop().create_task(_serve(self._state, stream, headers))
        self._tasks[stream] = task
        foreground = dict(headers).get(":path") not in self._state.background
        if foreground:
            self._foreground += 1
            self._state.calls.add(task)
        # A callback, not the task's own end: a task cancelled before it begins has none.
        task.add_done_callback(partial(self._ended, stream, release_stream, foreground))

    def cancel(self, stream: Http2Stream) -> None:
        """End a call that the client has reset."""
        task = self._tasks.get(stream)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """End all calls."""
        for task in self._tasks.values():
            task.cancel()

    def _ended(
        self,
        stream: Http2Stream,
        release_stream: Callable[[], Any],
        foreground: bool,
        task: asyncio.Task[None],
    ) -> None:
        del self._tasks[stream]
        release_stream()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call ended in a fault of the server", exc_info=error)
        if foreground:
            self._foreground -= 1
            self._state.calls.discard(task)
        if not self._foreground:
            self._on_idle()


async def _serve(state: ServerState, stream: Http2Stream, headers: Headers) -> None:
    state.counters.calls += 1
    try:
        request = parse_request(headers, state.limits.max_header_bytes)
        method = state.methods.get(request.path) or state.unknown(request.path)
        if method is None:
            raise Refusal("refused_method", Status.UNIMPLEMENTED, "Method not found")
    except Refusal as refusal:
        state.counters.count(refusal.counter)
        await _refuse(stream, refusal)
        return
    rpc = RpcStream(stream, request, method, state.dispatch, state.limits.max_message_bytes)
    try:
        await _answer(state, rpc, request, method)
    finally:
        del rpc.writer  # It holds the stream: both are freed without the garbage collector.


async def _answer(state: ServerState, rpc: RpcStream, request: Request, method: Handler) -> None:
    stream = rpc._stream
    try:
        await _run(state, rpc, request, method)
        error = _missing_reply(rpc)
    except asyncio.CancelledError:
        if not stream.closable:
            state.counters.calls_cancelled += 1
            raise
        error = _cancelled_by_us(state)
    except (StreamTerminatedError, Http2Error) as exception:
        if not stream.closable:
            state.counters.calls_cancelled += 1
            return
        error = _to_status(exception)
    except Exception as exception:  # every fault of a handler becomes a status
        error = _to_status(exception)
    if error is not None:
        _count(state.counters, error)
    await _finish(rpc, error)


async def _run(state: ServerState, rpc: RpcStream, request: Request, method: Handler) -> None:
    """Run the handler; its time is bounded by the client's deadline."""
    if request.timeout is None:
        await _handle(state, rpc, request, method)
        return
    deadline = asyncio.timeout(request.timeout)
    try:
        async with deadline:
            await _handle(state, rpc, request, method)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise GRPCError(
            Status.DEADLINE_EXCEEDED, f"the deadline of {request.timeout:g} s has passed"
        ) from None


async def _handle(state: ServerState, rpc: RpcStream, request: Request, method: Handler) -> None:
    metadata = request.metadata.copy()
    state.admit(request.path, metadata)
    rpc.metadata, handle = await state.dispatch.recv_request(
        metadata,
        method.func,
        method_name=request.path,
        deadline=rpc.deadline,
        content_type=request.content_type,
        user_agent=request.user_agent,
        peer=rpc.peer,
    )
    await handle(rpc)


async def _refuse(stream: Http2Stream, refusal: Refusal) -> None:
    """Answer with trailers only."""
    answer = [
        (":status", str(refusal.http_status)),
        ("content-type", "application/grpc+proto"),
        ("grpc-status", str(refusal.status.value)),
        ("grpc-message", encode_grpc_message(refusal.message or "")),
        *refusal.headers,
    ]
    try:
        await stream.send_headers(answer, end_stream=True)
        if stream.closable:
            stream.reset_nowait()
    except Http2Error:
        log.debug("the client went away before it was refused", exc_info=True)


async def _finish(rpc: RpcStream, error: GRPCError | None) -> None:
    """Send the trailers, unless the handler did or the client is gone."""
    if rpc._send_trailing_metadata_done or rpc._cancel_done or not rpc._stream.closable:
        return
    try:
        if error is None:
            if not rpc.writer.finish():
                await rpc.send_trailing_metadata()
        else:
            await rpc.send_trailing_metadata(
                status=error.status, status_message=error.message, status_details=error.details
            )
    except Http2Error:
        log.debug("the client went away before the trailers", exc_info=True)


def _missing_reply(rpc: RpcStream) -> GRPCError | None:
    if (
        rpc._cardinality.server_streaming
        or rpc._send_message_done
        or rpc._send_trailing_metadata_done
    ):
        return None
    log.error("the handler of %s returned without a reply", rpc._method_name)
    return GRPCError(Status.INTERNAL, "internal error")


def _cancelled_by_us(state: ServerState) -> GRPCError:
    if state.closing:
        return GRPCError(Status.UNAVAILABLE, "the server is shutting down")
    return GRPCError(Status.CANCELLED, "the call was cancelled by the server")


def _to_status(exception: Exception) -> GRPCError:
    if isinstance(exception, GRPCError):
        return exception
    if isinstance(exception, MillstreamError):
        return to_grpc(exception)
    log.error("a handler failed", exc_info=exception)
    return GRPCError(Status.INTERNAL, "internal error")


def _count(counters: ServerCounters, error: GRPCError) -> None:
    if isinstance(error, Refusal):
        counters.count(error.counter)
    elif error.status is Status.DEADLINE_EXCEEDED:
        counters.deadlines_exceeded += 1
    elif error.status is Status.INTERNAL:
        counters.handler_errors += 1
