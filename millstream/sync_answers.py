"""What the blocking client gives: a generation, the items of a stream, a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from millstream.answers import Delta, Finished, Started
from millstream.functions import Function, Items
from millstream.generation import Generation

if TYPE_CHECKING:
    from millstream.sync import SyncClient

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Pieces(Protocol[T_co]):
    """What is iterated over: a `Generation` or `Items`."""

    async def __anext__(self) -> T_co: ...

    async def cancel(self) -> None: ...


class _SyncPieces(Generic[T]):
    """Pieces, in order, by blocking. Who leaves the loop early uses `with`, or calls `cancel`."""

    def __init__(self, client: SyncClient, pieces: _Pieces[T]) -> None:
        self._client = client
        self._pieces = pieces

    def __iter__(self) -> Self:
        """The pieces can be iterated over once."""
        return self

    def __next__(self) -> T:
        """Wait for the next piece."""
        found = self._client.run(_next(self._pieces))
        if not found:
            raise StopIteration
        return found[0]

    def cancel(self) -> None:
        """End the call; nothing if it is over."""
        self._client.run(self._pieces.cancel())

    def __enter__(self) -> Self:
        """Nothing yet: the first piece starts the call."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what is not over."""
        self.cancel()


class SyncGeneration(_SyncPieces[Delta]):
    """The pieces of one answer: `for delta in generation`."""

    def __init__(self, client: SyncClient, answer: Generation) -> None:
        super().__init__(client, answer)
        self._answer = answer

    @property
    def started(self) -> Started | None:
        """Set before the first piece."""
        return self._answer.started

    @property
    def finished(self) -> Finished | None:
        """Set once the answer is complete."""
        return self._answer.finished


class SyncItems(_SyncPieces[Any]):
    """What a function yields: `for item in client.stream(...)`."""

    def __init__(self, client: SyncClient, items: Items) -> None:
        super().__init__(client, items)
        self._items = items

    @property
    def request_id(self) -> str:
        """The call's name; set with the first item."""
        return self._items.request_id


class SyncFunction:
    """One served function: as `Function`, blocking."""

    def __init__(self, client: SyncClient, function: Function) -> None:
        self._client = client
        self._function = function

    def predict(self, /, **inputs: Any) -> Any:
        """Call it and return its result."""
        return self._client.run(self._function.predict(**inputs))

    def stream(self, /, **inputs: Any) -> SyncItems:
        """Call it and iterate over what it yields."""
        return SyncItems(self._client, self._function.stream(**inputs))


async def _next(pieces: _Pieces[T]) -> tuple[T] | tuple[()]:
    """The next piece, which may be None; the empty tuple at the end."""
    try:
        return (await pieces.__anext__(),)
    except StopAsyncIteration:
        return ()
