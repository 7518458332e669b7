"""Errors on the gRPC wire: MillstreamError to a status with google.rpc details, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.symbol_database import Default
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError

from shared.errors import (
    Cancelled,
    DeadlineExceeded,
    DuplicateRequest,
    Forbidden,
    FunctionError,
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

MOST_DETAILS = 5000
"""Bytes of a function's own details, for the same reason; what is beyond is left out."""

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


class DetailsCodec(ProtoStatusDetailsCodec):
    """grpclib's, but for details that are an `Any` already: those are not wrapped in another."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        """Serialize a status with its details."""
        told = RpcStatus(code=status.value, message=message)
        for detail in details or ():
            if isinstance(detail, AnyMessage):
                told.details.append(detail)
            else:
                told.details.add().Pack(detail)
        return bytes(told.SerializeToString())


def stopping() -> Unavailable:
    """What a caller is told, whatever it speaks, while the gateway drains."""
    return Unavailable("this gateway is stopping", retry_after=1.0)


def timed_out(seconds: float) -> DeadlineExceeded:
    """What a caller is told who gave so many seconds and no deadline by gRPC's own means."""
    return DeadlineExceeded(f"the timeout of {seconds:g} s has passed")


def to_grpc(error: MillstreamError) -> GRPCError:
    """Build the status that a client gets for the error; what a function raised keeps its own."""
    message = error.message
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 3] + "..."
    own = _own_details(error) if isinstance(error, FunctionError) else []
    given = {type(detail) for detail in own}
    ours = [detail for detail in _details(error, message) if type(detail) not in given]
    if ErrorInfo in given:  # Theirs stays, and ours says what kind of error it is.
        ours.append(ErrorInfo(reason=error.kind, domain=DOMAIN))
    return GRPCError(_status(error.grpc_status), message, [*own, *ours])


def from_grpc(error: GRPCError) -> MillstreamError:
    """Rebuild the error from a status: by its ErrorInfo, or else by the status alone.

    What a function raised comes back as FunctionError, with its code and the details that are
    known here.
    """
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
    if kind == FunctionError.__name__:
        status = RpcStatus(code=error.status.value, message=message)
        for detail in details:
            if isinstance(detail, Message) and not _is_ours(detail):
                status.details.add().Pack(detail)
        return FunctionError(
            message,
            status=status.SerializeToString(),
            code=error.status.value,
            field=field,
            retry_after=retry_after,
        )
    if kind:
        return MillstreamError.from_wire(kind, message, field, retry_after)
    cls = _BY_STATUS.get(error.status, InternalError)
    return cls(message, field=field, retry_after=retry_after)


def _details(error: MillstreamError, message: str) -> Iterator[Any]:
    yield ErrorInfo(reason=error.kind, domain=DOMAIN)
    if isinstance(error, InvalidRequest | FunctionError) and error.field:
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


def _own_details(error: FunctionError) -> list[Any]:
    """What a function put into its status, as messages where their types are known here."""
    try:
        status = RpcStatus.FromString(error.status)
    except DecodeError:
        return []
    own: list[Any] = []
    size = 0
    for packed in status.details:
        size += packed.ByteSize()
        if size > MOST_DETAILS:
            break
        own.append(_unpacked(packed))
    return own


def _unpacked(packed: AnyMessage) -> Any:
    try:
        detail = Default().GetSymbol(packed.TypeName())()
        packed.Unpack(detail)
    except (KeyError, DecodeError):
        return packed
    return detail


def _is_ours(detail: Message) -> bool:
    return isinstance(detail, ErrorInfo) and detail.domain == DOMAIN


def _status(code: int) -> Status:
    """A function's code comes over the network."""
    return Status(code) if 0 < code <= Status.UNAUTHENTICATED.value else Status.UNKNOWN
