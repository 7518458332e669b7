"""What the gateway asks about its callers: who is this, may this begin, it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gateway.access.keys import KeyBook, KeyFileError, read
from gateway.access.tenants import Lease, Tenant
from shared import wire
from shared.errors import Unauthenticated
from shared.watch import Watch

log = structlog.get_logger(__name__)

_SCHEME = "bearer "


class Access:
    """Checks callers against a file of keys, which is read again when it changes.

    A file that becomes unreadable changes nothing: what was read last holds, and a line in the log
    says so. Without a file everybody is the tenant "" and may do everything.

    Args:
        path: The file, or None.
        clock: Monotonic seconds.

    Raises:
        KeyFileError: The file is not as it must be at the start.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._watch = Watch([path] if path is not None else [], clock=clock)
        self._book = read(path) if path is not None else KeyBook()
        self._tenants: dict[str, Tenant] = {}
        self._leases: dict[str, tuple[Tenant, Lease]] = {}

    def admit(self, authorization: str) -> str:
        """Tell whose call it is by its `authorization` header.

        Raises:
            Unauthenticated: There is no key, or none that is known; the message says which, and
                never shows the key.
        """
        if self._path is None:
            return ""
        self._reload()
        if not authorization:
            raise Unauthenticated("this gateway needs an API key: authorization: Bearer ms_...")
        if not authorization[: len(_SCHEME)].lower() == _SCHEME:
            raise Unauthenticated("authorization must be `Bearer` and an API key")
        key = self._book.find(authorization[len(_SCHEME) :].strip(), datetime.now(UTC))
        if key is None:
            raise Unauthenticated("the API key is not known, was revoked or has expired")
        return key.tenant

    def visible(self, tenant: str, model: str) -> bool:
        """Whether an admitted tenant may know of a model: of those it may use, and no other."""
        if self._path is None:
            return True
        limits = self._book.tenants.get(tenant)
        return limits is not None and limits.allows(model)

    def begin(self, request: wire.Request) -> None:
        """Let a request of an admitted tenant in; `end` gives it back.

        Raises:
            Unauthenticated: The tenant is not known.
            Forbidden: It may not use the model or the priority.
            Overloaded: One of its limits is reached.
        """
        if self._path is None:
            return
        now = self._clock()
        tenant = self._tenant(request.tenant, now)
        sampling = request.sampling
        most = None if sampling.max_tokens is None else sampling.max_tokens * sampling.n
        if request.call is not None:
            most = 0  # Functions take no tokens.
        lease = tenant.begin(request.model, request.urgency, most, now)
        self._leases[request.id] = (tenant, lease)

    def end(self, request_id: str, tokens: int) -> None:
        """A request (its ULID) ended after so many tokens; said twice, it counts once."""
        entry = self._leases.pop(request_id, None)
        if entry is not None:
            tenant, lease = entry
            tenant.end(lease, tokens, self._clock())

    def _tenant(self, name: str, now: float) -> Tenant:
        limits = self._book.tenants.get(name)
        if limits is None:
            raise Unauthenticated("the request's tenant is not known (any more)")
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name, limits, now)
        return tenant

    def _reload(self) -> None:
        if self._path is None or not self._watch.changed():
            return
        try:
            self._book = read(self._path)
        except KeyFileError as error:
            log.error("keys_not_reloaded", reason=str(error))
            return
        now = self._clock()
        for name in [name for name in self._tenants if name not in self._book.tenants]:
            if not self._tenants[name].open:
                del self._tenants[name]
        for name, limits in self._book.tenants.items():
            if name in self._tenants:
                self._tenants[name].change(limits, now)
        log.info("keys_reloaded", keys=len(self._book.keys), tenants=len(self._book.tenants))
