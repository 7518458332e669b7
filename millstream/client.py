"""The typed asynchronous client.

async with Client("127.0.0.1:50051") as client:
    async for delta in client.generate(prompt="Once upon a time", max_tokens=64):
        print(delta.text, end="", flush=True)
    label = await client.predict("classify", image=pixels)
    async for frame in client.stream("render", prompt="a cat"):
        show(frame.data)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Self, Unpack

from millstream.answers import (
    Completion,
    Delta,
    Finished,
    Model,
    Started,
    Timing,
    TokenLogprobs,
    Usage,
    model_of,
)
from millstream.channel import DrainableChannel, split_target, told
from millstream.functions import Function, Items, Way
from millstream.generation import Generation
from millstream.questions import Options, Priority, Turn, question
from millstream.reflected import Methods
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub

__all__ = [
    "Client",
    "Completion",
    "Delta",
    "Finished",
    "Function",
    "Generation",
    "Items",
    "Model",
    "Options",
    "Priority",
    "Started",
    "Timing",
    "TokenLogprobs",
    "Turn",
    "Usage",
]


class Client:
    """Calls one gateway, over one connection made when it is first needed.

    Event loops have a connection each: a client may outlive one, and serve the next.

    Every method raises the classes of `millstream.errors`: `Unavailable` where no gateway answers,
    `InvalidRequest` with the field at fault, `Overloaded` with the time to wait, and so on.

    Args:
        target: `HOST:PORT`.
        tls: True for the system's authorities, or a context (own authority, client certificate).
        metadata: Sent with every call.
        api_key: Sent as `authorization: Bearer`.
        middleware: Around each call, the outermost first; see `millstream.middleware`.

    Attributes:
        target: As given.
        methods: How served functions are called, for tools.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: bool | SSLContext = False,
        metadata: Mapping[str, str] | None = None,
        api_key: str | None = None,
        middleware: Sequence[object] = (),
    ) -> None:
        self.target = target
        self._host, self._port = split_target(target)
        self._tls = tls
        self._metadata = dict(metadata or {})
        if api_key is not None:
            self._metadata["authorization"] = f"Bearer {api_key}"
        self._channels: dict[asyncio.AbstractEventLoop, DrainableChannel] = {}
        self.methods = Methods(self._connection, self._metadata)
        self._middleware = tuple(middleware)
        self._way = Way(target, self._connection, self.methods, self._middleware)

    async def __aenter__(self) -> Self:
        """Nothing yet: the first call connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way end with `Unavailable`."""
        channels, self._channels = self._channels, {}
        own = channels.pop(asyncio.get_running_loop(), None)
        for channel in channels.values():
            channel.close_from_afar()
        if own is not None:
            await own.wait_closed()

    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Iterable[Turn] | None = None,
        token_ids: Iterable[int] | None = None,
        model: str = "",
        deadline: float | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Stream one generation; nothing is sent before the first piece is asked for.

        Args:
            prompt: Text to continue; or give one of the next two.
            messages: A conversation: mappings or pairs of role and content.
            token_ids: A prompt tokenized already.
            model: The served name; may be empty where exactly one is served.
            deadline: Seconds after which the call ends with `DeadlineExceeded`.
            **options: See `Options`.
        """
        request = question(model, prompt, messages, token_ids, options)
        return self._generation(request, deadline)

    async def complete(
        self,
        prompt: str | None = None,
        *,
        messages: Iterable[Turn] | None = None,
        token_ids: Iterable[int] | None = None,
        model: str = "",
        deadline: float | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """Generate and return the whole answer; arguments as of `generate`."""
        request = question(model, prompt, messages, token_ids, options)
        answer = self._generation(request, deadline)
        count = max(1, request.sampling.n)
        texts: list[list[str]] = [[] for _ in range(count)]
        ids: list[list[int]] = [[] for _ in range(count)]
        async with answer:
            async for delta in answer:
                texts[delta.choice].append(delta.text)
                ids[delta.choice].extend(delta.token_ids)
        assert answer.started is not None
        assert answer.finished is not None
        joined = tuple("".join(pieces) for pieces in texts)
        return Completion(
            joined[0], joined, tuple(tuple(one) for one in ids), answer.started, answer.finished
        )

    async def predict(self, name: str, /, **inputs: Any) -> Any:
        """Call a served function; see `Function.predict`, and `function` for options."""
        return await self.function(name).predict(**inputs)

    def stream(self, name: str, /, **inputs: Any) -> Items:
        """Iterate over what a served function yields; see `Function.stream`."""
        return self.function(name).stream(**inputs)

    def function(
        self,
        name: str,
        *,
        deadline: float | None = None,
        request_id: str = "",
        priority: Priority | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Function:
        """A served function with options for its calls; nothing is sent yet.

        Args:
            name: `name`, which is its default version, or `name@version`.
            deadline: Seconds after which a call ends with `DeadlineExceeded`.
            request_id: The name of the calls; at one time only one may have it.
            priority: The class they queue in.
            metadata: Sent with every call; the function finds it in its context.
        """
        return Function(
            self._way,
            name,
            deadline=deadline,
            metadata={**self._metadata, **(metadata or {})},
            request_id=request_id,
            priority=priority,
        )

    async def cancel(self, request_id: str, *, deadline: float | None = None) -> None:
        """End a request by its id, from anywhere.

        Raises:
            UnknownRequest: No gateway runs it.
        """
        async with told(self.target):
            await self._stub().Cancel(
                pb.CancelRequest(request_id=request_id), timeout=deadline, metadata=self._metadata
            )

    async def models(self, *, deadline: float | None = None) -> list[Model]:
        """List what workers serve now."""
        async with told(self.target):
            response = await self._stub().ListModels(
                pb.ListModelsRequest(), timeout=deadline, metadata=self._metadata
            )
            return [model_of(one) for one in response.models]

    async def model(self, name: str, *, deadline: float | None = None) -> Model:
        """Describe one model.

        Raises:
            UnknownModel: No worker serves it.
        """
        async with told(self.target):
            response = await self._stub().GetModel(
                pb.GetModelRequest(name=name), timeout=deadline, metadata=self._metadata
            )
            return model_of(response.model)

    async def health(self, service: str = "", *, deadline: float | None = None) -> bool:
        """Whether the gateway, a service or a model says SERVING."""
        from grpclib.health.v1.health_grpc import HealthStub
        from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

        async with told(self.target):
            response = await HealthStub(self._connection()).Check(
                HealthCheckRequest(service=service), timeout=deadline, metadata=self._metadata
            )
            return bool(response.status == HealthCheckResponse.SERVING)

    def _generation(self, request: pb.GenerateRequest, deadline: float | None) -> Generation:
        return Generation(
            self._stub, self._metadata, self.target, request, deadline, self._middleware
        )

    def _connection(self) -> DrainableChannel:
        loop = asyncio.get_running_loop()
        channel = self._channels.get(loop)
        if channel is None:
            self._forget_closed_loops()
            channel = self._channels[loop] = DrainableChannel(self._host, self._port, self._tls)
        return channel

    def _forget_closed_loops(self) -> None:
        for loop in list(self._channels):
            # Another thread may be at it too.
            if loop.is_closed() and (channel := self._channels.pop(loop, None)) is not None:
                channel.close_from_afar()

    def _stub(self) -> InferenceStub:
        return InferenceStub(self._connection())
