"""What a function may know of the call it serves."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from google.protobuf.message import Message
from multidict import CIMultiDict, CIMultiDictProxy

from workers.app.failures import AppError
from workers.engines.base import Job


class State:
    """What the functions of an app share: attributes, set by its lifespan."""

    def __getattr__(self, name: str) -> Any:
        """Say what is missing, and where it would come from."""
        raise AttributeError(f"the app's state has no {name!r}: set it in the app's lifespan")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class Cancellation:
    """True once the call is cancelled: by its client, a disconnect, or its deadline.

    An async function gets CancelledError at its await; this is for functions in a thread.
    """

    __slots__ = ("_event", "_set")

    _lock = threading.Lock()

    def __init__(self) -> None:
        self._set = False
        self._event: threading.Event | None = None

    def __bool__(self) -> bool:
        return self._set

    def is_set(self) -> bool:
        """Whether the call is cancelled."""
        return self._set

    def set(self) -> None:
        """Cancel, and wake who waits."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until it is cancelled; whether it is."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
        return self._set or self._event.wait(timeout)


class Context:
    """A call, as its function sees it: ask for one by a parameter annotated `Context`.

    Args:
        job: What the worker was given.
        model: The served name, `echo@1`.
        state: The app's.

    Attributes:
        model: The served name.
        state: The app's state.
        cancelled: True once nobody wants the answer any more.
        started: When the call was given to this worker, in monotonic seconds.
        scope: For middleware and dependencies, to keep things of this call.
    """

    __slots__ = ("_job", "_metadata", "cancelled", "model", "scope", "started", "state")

    def __init__(self, job: Job, model: str, state: State) -> None:
        self._job = job
        self._metadata: CIMultiDictProxy[str] | None = None
        self.model = model
        self.state = state
        self.cancelled = Cancellation()
        self.started = time.monotonic()
        self.scope: dict[str, Any] = {}

    @property
    def request_id(self) -> str:
        """The request's id, as its client and every log knows it."""
        return self._job.request_id

    @property
    def metadata(self) -> CIMultiDictProxy[str]:
        """The client's metadata; names in any case, some perhaps several times."""
        if self._metadata is None:
            self._metadata = CIMultiDictProxy(CIMultiDict(self._job.metadata))
        return self._metadata

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the request, or ""."""
        return self._job.traceparent

    def remaining(self) -> float | None:
        """Seconds until the deadline, not below 0; None where there is none, or not known yet."""
        left = None if self._job.remaining is None else self._job.remaining()
        return None if left is None else max(0.0, left)

    @property
    def deadline(self) -> datetime | None:
        """When the answer must be there; None where there is none, or it is not known yet."""
        left = self.remaining()
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)

    def abort(self, status: str | int, message: str = "", *details: Message) -> NoReturn:
        """End the call with an error; see `AppError`."""
        raise AppError(status, message, details)
