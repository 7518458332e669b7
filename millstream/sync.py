"""The client for code that does not use asyncio: one background thread a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Self, TypeVar, Unpack

from millstream.answers import Completion, Model
from millstream.client import Client
from millstream.questions import Options, Priority, Turn
from millstream.sync_answers import SyncFunction, SyncGeneration, SyncItems

__all__ = ["SyncClient", "SyncFunction", "SyncGeneration", "SyncItems"]

T = TypeVar("T")


class SyncClient:
    """As `Client`, blocking. May be used from several threads at once.

    Args:
        target: `HOST:PORT`.
        tls: True for the system's authorities, or a context.
        metadata: Sent with every call.
        api_key: Sent as `authorization: Bearer`.
        middleware: As of `Client`; its hooks run on the client's thread.
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
        self._client = Client(
            target, tls=tls, metadata=metadata, api_key=api_key, middleware=middleware
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Nothing yet: the first call starts the thread and connects."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Cancel what is under way, close the connection and end the thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Iterable[Turn] | None = None,
        token_ids: Iterable[int] | None = None,
        model: str = "",
        deadline: float | None = None,
        **options: Unpack[Options],
    ) -> SyncGeneration:
        """Stream one generation; arguments as of `Client.generate`."""
        answer = self._client.generate(
            prompt,
            messages=messages,
            token_ids=token_ids,
            model=model,
            deadline=deadline,
            **options,
        )
        return SyncGeneration(self, answer)

    def complete(
        self,
        prompt: str | None = None,
        *,
        messages: Iterable[Turn] | None = None,
        token_ids: Iterable[int] | None = None,
        model: str = "",
        deadline: float | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """Generate and return the whole answer; arguments as of `Client.generate`."""
        return self.run(
            self._client.complete(
                prompt,
                messages=messages,
                token_ids=token_ids,
                model=model,
                deadline=deadline,
                **options,
            )
        )

    def predict(self, name: str, /, **inputs: Any) -> Any:
        """Call a served function; see `Function.predict`."""
        return self.function(name).predict(**inputs)

    def stream(self, name: str, /, **inputs: Any) -> SyncItems:
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
    ) -> SyncFunction:
        """A served function with options for its calls; arguments as of `Client.function`."""
        function = self._client.function(
            name, deadline=deadline, request_id=request_id, priority=priority, metadata=metadata
        )
        return SyncFunction(self, function)

    def cancel(self, request_id: str, *, deadline: float | None = None) -> None:
        """End a request by its id, from anywhere."""
        self.run(self._client.cancel(request_id, deadline=deadline))

    def models(self, *, deadline: float | None = None) -> list[Model]:
        """List what workers serve now."""
        return self.run(self._client.models(deadline=deadline))

    def model(self, name: str, *, deadline: float | None = None) -> Model:
        """Describe one model."""
        return self.run(self._client.model(name, deadline=deadline))

    def health(self, service: str = "", *, deadline: float | None = None) -> bool:
        """Whether the gateway, a service or a model says SERVING."""
        return self.run(self._client.health(service, deadline=deadline))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the client's thread and wait; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="millstream-client", daemon=True
                )
                self._thread.start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
