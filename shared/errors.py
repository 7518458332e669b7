"""The error tree: each class carries its gRPC status, its HTTP status and whether a retry helps.

MillstreamError
|-- InvalidRequest        INVALID_ARGUMENT     400   names the field
|   `-- RequestTooLarge   INVALID_ARGUMENT     413   says both sizes
|-- Unauthenticated       UNAUTHENTICATED      401
|-- Forbidden             PERMISSION_DENIED    403
|-- UnknownModel          NOT_FOUND            404
|-- UnknownRequest        NOT_FOUND            404
|-- DuplicateRequest      ALREADY_EXISTS       409
|-- Overloaded            RESOURCE_EXHAUSTED   429   retryable, says when
|-- Unavailable           UNAVAILABLE          503   retryable, says when
|-- DeadlineExceeded      DEADLINE_EXCEEDED    504
|-- Cancelled             CANCELLED            499
|-- Unsupported           UNIMPLEMENTED        501
|-- FunctionError         INTERNAL             500   a served function's, whose own status it has
`-- InternalError         INTERNAL             500
    |-- EngineError       INTERNAL             500   the engine failed this one request
    `-- PoisonRequest     INTERNAL             500   the request kills the workers that run it

An error crosses the wire as (kind, message, details) and comes back as the same class.
"""

from __future__ import annotations

from typing import ClassVar, Self

LONGEST_RETRY = 1e9
"""Seconds; no one waits that long, and protobuf's Duration has room for it."""


class MillstreamError(Exception):
    """Base of every error that a client may see.

    Args:
        message: What was wrong, with the value, and what to do.
        field: The request field at fault, as the proto names it, or "".
        retry_after: Seconds after which a retry may succeed, or None; dropped where it is none.
    """

    grpc_status: ClassVar[int] = 2
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    kinds: ClassVar[dict[str, type[MillstreamError]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class under its name, which is its kind on the wire."""
        MillstreamError.kinds[cls.__name__] = cls

    def __init__(self, message: str, *, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        lawful = retry_after is not None and 0 <= retry_after <= LONGEST_RETRY  # NaN is not.
        self.retry_after = retry_after if lawful else None

    @property
    def kind(self) -> str:
        """The class's name on the wire."""
        return type(self).__name__

    @classmethod
    def from_wire(
        cls,
        kind: str,
        message: str,
        field: str = "",
        retry_after: float | None = None,
        *,
        code: int = 0,
        status: bytes = b"",
    ) -> MillstreamError:
        """Rebuild an error; a kind of a newer version becomes InternalError."""
        if kind == FunctionError.__name__:
            return FunctionError(
                message, status=status, code=code or 13, field=field, retry_after=retry_after
            )
        return cls.kinds.get(kind, InternalError)(message, field=field, retry_after=retry_after)

    def renamed(self, message: str, field: str) -> MillstreamError:
        """The same error in the words of another protocol; what else it carries is kept."""
        return type(self)(message, field=field, retry_after=self.retry_after)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword arguments kept."""
        return (_rebuild, (type(self), self.message, self.field, self.retry_after))


def _rebuild(
    kind: type[MillstreamError], message: str, field: str, retry_after: float | None
) -> MillstreamError:
    return kind(message, field=field, retry_after=retry_after)


class InvalidRequest(MillstreamError):
    """The request cannot be served as it is; `field` says where."""

    grpc_status = 3
    http_status = 400


class RequestTooLarge(InvalidRequest):
    """The request does not fit into what the queue carries."""

    http_status = 413

    @classmethod
    def of(cls, size: int, limit: int) -> Self:
        """Build it from the two sizes, in bytes."""
        return cls(
            f"the request takes {size} bytes and the queue carries at most {limit}: "
            "shorten the prompt, or raise max_payload on the NATS server"
        )


class Unauthenticated(MillstreamError):
    """No credentials, or credentials that are not known."""

    grpc_status = 16
    http_status = 401


class Forbidden(MillstreamError):
    """The caller is known and may not do this."""

    grpc_status = 7
    http_status = 403


class UnknownModel(MillstreamError):
    """No worker serves the model."""

    grpc_status = 5
    http_status = 404


class UnknownRequest(MillstreamError):
    """No gateway runs the request."""

    grpc_status = 5
    http_status = 404


class DuplicateRequest(MillstreamError):
    """A request of the same id is running."""

    grpc_status = 6
    http_status = 409


class Overloaded(MillstreamError):
    """A limit is reached: a queue, a rate, a buffer."""

    grpc_status = 8
    http_status = 429
    retryable = True


class Unavailable(MillstreamError):
    """A part that is needed is away: the broker, every worker, this gateway while it drains."""

    grpc_status = 14
    http_status = 503
    retryable = True


class DeadlineExceeded(MillstreamError):
    """The caller's deadline passed."""

    grpc_status = 4
    http_status = 504


class Cancelled(MillstreamError):
    """Somebody cancelled the request."""

    grpc_status = 1
    http_status = 499


class Unsupported(MillstreamError):
    """The engine that serves the model cannot do what is asked."""

    grpc_status = 12
    http_status = 501


class FunctionError(MillstreamError):
    """What a served function raised deliberately.

    Args:
        message: Its message.
        status: A serialized google.rpc.Status: code, message and details.
        code: Its code, a gRPC status number from 1 to 16.
        field: The parameter at fault, or "".
        retry_after: Seconds after which a retry may succeed, or None.
    """

    grpc_status = 13

    def __init__(
        self,
        message: str,
        *,
        status: bytes = b"",
        code: int = 13,
        field: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, field=field, retry_after=retry_after)
        self.status = status
        self.code = code
        self.grpc_status = code  # type: ignore[misc]  # Its own, not the class's.
        self.http_status = _HTTP_STATUS.get(code, 500)  # type: ignore[misc]
        self.retryable = code == Unavailable.grpc_status  # type: ignore[misc]

    def renamed(self, message: str, field: str) -> FunctionError:
        """The same error in the words of another protocol; its status and code are kept."""
        return FunctionError(
            message, status=self.status, code=self.code, field=field, retry_after=self.retry_after
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the status kept."""
        return (
            _rebuild_function_error,
            (self.message, self.status, self.code, self.field, self.retry_after),
        )


def _rebuild_function_error(
    message: str, status: bytes, code: int, field: str, retry_after: float | None
) -> FunctionError:
    return FunctionError(message, status=status, code=code, field=field, retry_after=retry_after)


_HTTP_STATUS = {
    1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501,
    14: 503, 16: 401,
}  # fmt: skip
"""Of a gRPC status number, as google.rpc.Code gives them."""


class InternalError(MillstreamError):
    """A fault of ours, or of an engine."""

    grpc_status = 13


class EngineError(InternalError):
    """The engine failed this request; its neighbours go on."""


class PoisonRequest(InternalError):
    """The request killed every worker that ran it."""
