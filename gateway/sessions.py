"""The open requests of a gateway, and everything they are found by."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.admission import Admission
from gateway.session import Session, State
from shared.errors import DuplicateRequest

_ENDED = State.ENDED
"""Looked up once: a member of an enum costs as much as a call."""


class Sessions:
    """Open sessions by ULID, by the client's name for them, by worker, and by what is due.

    `settle` keeps all of it true; it is called after every call on a session that may change whose
    worker it is on, when it is due, or whether it is over.

    Args:
        refuse_late: Whether what would not be done in time is refused.

    Attributes:
        by_id: Open sessions by ULID.
        admission: Learns from them how long a request takes.
    """

    def __init__(self, *, refuse_late: bool = True) -> None:
        self.by_id: dict[str, Session] = {}
        self.admission = Admission(refuses=refuse_late)
        self._names: dict[tuple[str, str], Session] = {}
        self._waiting: set[str] = set()
        self._bound: dict[str, str] = {}
        self._by_worker: dict[str, dict[str, Session]] = {}
        self._alert: dict[str, Session] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any request."""
        kept = len(self.by_id) + len(self._names) + len(self._waiting) + len(self._bound)
        return kept + len(self._alert) + len(self._by_worker) == 0

    def find(self, tenant: str, request_id: str) -> Session | None:
        """The session of a client's request name."""
        return self._names.get((tenant, request_id))

    def on(self, worker: str) -> dict[str, Session]:
        """The sessions bound to a worker, by ULID; a copy."""
        return dict(self._by_worker.get(worker, {}))

    def alert(self) -> list[Session]:
        """Those for which something is or was due."""
        return list(self._alert.values())

    def __iter__(self) -> Iterator[Session]:
        """Yield all."""
        return iter(list(self.by_id.values()))

    def check_name(self, tenant: str, request_id: str) -> None:
        """See that a name is free.

        Raises:
            DuplicateRequest: A request of this tenant and name is running here.
        """
        if (tenant, request_id) in self._names:
            raise DuplicateRequest(
                f"request_id {request_id!r} is running; choose another or cancel it",
                field="request_id",
            )

    def add(self, session: Session) -> None:
        """Take a new session, before it is opened."""
        request = session.request
        self.by_id[request.id] = session
        self._names[request.tenant, request.request_id] = session
        self._waiting.add(request.id)
        self.admission.waits(request.model, request.urgency)

    def settle(self, session: Session, now: float) -> None:
        """After a call on a session: note whose worker it is on, and drop it once it ended."""
        key = session.request.id
        if session.state is _ENDED:
            if key in self.by_id:
                self._drop(key, session, now)
            return
        if session.bound_at is not None and key in self._waiting:
            self._stop_waiting(key, session)
        self._bind(key, session, session.worker)
        if session.due is not None:
            self._alert[key] = session
        elif key in self._alert:
            del self._alert[key]

    def _drop(self, key: str, session: Session, now: float) -> None:
        request = session.request
        if key in self._waiting:
            self._stop_waiting(key, session)
        self._bind(key, session, "")
        del self.by_id[key]
        self._names.pop((request.tenant, request.request_id), None)
        self._alert.pop(key, None)
        if session.answer.complete and session.bound_at is not None:
            self.admission.done(request.model, now - session.bound_at)

    def _stop_waiting(self, key: str, session: Session) -> None:
        request = session.request
        self._waiting.discard(key)
        if session.bound_at is not None:
            self.admission.taken(request.model, request.urgency, session.bound_at)
        else:
            self.admission.left(request.model, request.urgency)

    def _bind(self, key: str, session: Session, worker: str) -> None:
        before = self._bound.get(key, "")
        if worker == before:
            return
        if before:
            del self._by_worker[before][key]
            if not self._by_worker[before]:
                del self._by_worker[before]
            del self._bound[key]
        if worker:
            self._bound[key] = worker
            self._by_worker.setdefault(worker, {})[key] = session
