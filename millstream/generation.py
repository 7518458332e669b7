"""One streamed answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Self

from millstream.answers import Delta, Finished, Started, delta_of, finished_of, started_of
from millstream.channel import told
from millstream.middleware import Call, streamed
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub
from shared.errors import InternalError


class _Ends:
    """How an answer began and ended."""

    started: Started | None = None
    finished: Finished | None = None


class Generation:
    """The pieces of one answer, in order: `async for delta in generation`.

    Leaving the loop early cancels the call once nothing refers to this object any more; who keeps
    it uses `async with`, or awaits `cancel`. It checks that the pieces join without a gap and that
    the answer is complete.
    """

    def __init__(
        self,
        stub: Callable[[], InferenceStub],
        metadata: Mapping[str, str],
        target: str,
        request: pb.GenerateRequest,
        deadline: float | None,
        middleware: Sequence[object] = (),
    ) -> None:
        ends = self._ends = _Ends()
        # The generator must not refer to this object: a cycle would put off the cancellation.
        if not middleware:
            self._deltas = _stream(stub, metadata, target, request, deadline, ends)
            return
        call = Call(request.model, request.request_id, dict(metadata), streaming=True)
        self._deltas = streamed(
            middleware,
            call,
            lambda: _stream(stub, call.metadata, target, request, deadline, ends),
            lambda: ends.started.request_id if ends.started is not None else "",
        )

    @property
    def started(self) -> Started | None:
        """Set before the first piece."""
        return self._ends.started

    @property
    def finished(self) -> Finished | None:
        """Set once the answer is complete."""
        return self._ends.finished

    def __aiter__(self) -> Self:
        """The pieces can be iterated over once."""
        return self

    async def __anext__(self) -> Delta:
        """Wait for the next piece."""
        return await anext(self._deltas)

    async def cancel(self) -> None:
        """End the call; nothing if it is over."""
        await self._deltas.aclose()

    async def __aenter__(self) -> Self:
        """Nothing yet: the first piece starts the call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is not over."""
        await self.cancel()


async def _stream(
    stub: Callable[[], InferenceStub],
    metadata: Mapping[str, str],
    target: str,
    request: pb.GenerateRequest,
    deadline: float | None,
    ends: _Ends,
) -> AsyncGenerator[Delta, None]:
    joint: defaultdict[int, int] = defaultdict(int)
    async with (
        told(target),
        stub().Generate.open(timeout=deadline, metadata=metadata) as stream,
    ):
        await stream.send_message(request, end=True)
        async for response in stream:
            event = response.WhichOneof("event")
            if ends.finished is not None:
                raise InternalError(f"the gateway sent {event} after the end")
            if event == "started":
                ends.started = started_of(response.started)
            elif event == "delta":
                delta = delta_of(response.delta)
                if delta.index != joint[delta.choice]:
                    raise InternalError(
                        f"a piece begins at token {delta.index} of choice {delta.choice}, "
                        f"the one before ended at {joint[delta.choice]}"
                    )
                joint[delta.choice] += len(delta.token_ids)
                yield delta
            elif event == "finished":
                ends.finished = finished_of(response.finished)
    if ends.finished is None or ends.started is None:
        raise InternalError("the gateway ended the stream before the answer was complete")
