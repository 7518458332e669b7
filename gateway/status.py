"""Errors on the gRPC wire: MillstreamError to a status with google.rpc details, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from shared.errors import (
    Cancelled,
    DeadlineExceeded,
    DuplicateRequest,
    Forbidden,
    InternalError,
    InvalidRequest,
    MillstreamError,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    Unsupported,
)

DOMAIN = "millstream"
LONGEST_MESSAGE = 2000
"""Characters; a status travels in headers, which clients bound at 8 KiB."""

_BY_STATUS: dict[Status, type[MillstreamError]] = {
    Status.CANCELLED: Cancelled,
    Status.INVALID_ARGUMENT: InvalidRequest,
    Status.FAILED_PRECONDITION: InvalidRequest,
    Status.OUT_OF_RANGE: InvalidRequest,
    Status.DEADLINE_EXCEEDED: DeadlineExceeded,
    Status.NOT_FOUND: UnknownModel,
    Status.ALREADY_EXISTS: DuplicateRequest,
    Status.PERMISSION_DENIED: Forbidden,
    Status.RESOURCE_EXHAUSTED: Overloaded,
    Status.UNIMPLEMENTED: Unsupported,
    Status.UNAVAILABLE: Unavailable,
    Status.UNAUTHENTICATED: Unauthenticated,
}


def to_grpc(error: MillstreamError) -> GRPCError:
    """Build the status that a client gets for the error."""
    message = error.message
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 3] + "..."
    return GRPCError(Status(error.grpc_status), message, list(_details(error, message)))


def from_grpc(error: GRPCError) -> MillstreamError:
    """Rebuild the error from a status: by its ErrorInfo, or else by the status alone."""
    kind, field, retry_after = "", "", None
    details: Sequence[Any] = error.details or ()
    for detail in details:
        if isinstance(detail, ErrorInfo) and detail.domain == DOMAIN:
            kind = detail.reason
        elif isinstance(detail, BadRequest) and detail.field_violations:
            field = detail.field_violations[0].field
        elif isinstance(detail, RetryInfo):
            retry_after = detail.retry_delay.ToTimedelta().total_seconds()
    message = error.message or error.status.name
    if kind:
        return MillstreamError.from_wire(kind, message, field, retry_after)
    cls = _BY_STATUS.get(error.status, InternalError)
    return cls(message, field=field, retry_after=retry_after)


def _details(error: MillstreamError, message: str) -> Iterator[Any]:
    yield ErrorInfo(reason=error.kind, domain=DOMAIN)
    if isinstance(error, InvalidRequest) and error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=message)
        yield BadRequest(field_violations=[violation])
    if isinstance(error, Overloaded):
        subject = error.field or DOMAIN
        failure = QuotaFailure.Violation(subject=subject, description=message)
        yield QuotaFailure(violations=[failure])
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        yield RetryInfo(retry_delay=delay)
