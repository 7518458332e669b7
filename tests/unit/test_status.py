from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from gateway.status import LONGEST_MESSAGE, MOST_DETAILS, DetailsCodec, from_grpc, to_grpc
from shared.errors import (
    FunctionError,
    InternalError,
    InvalidRequest,
    MillstreamError,
    Overloaded,
)

CODEC = DetailsCodec()


def through_the_wire(error: GRPCError) -> GRPCError:
    data = CODEC.encode(error.status, error.message, error.details)
    return GRPCError(error.status, error.message, CODEC.decode(error.status, error.message, data))


@pytest.mark.parametrize("kind", sorted(MillstreamError.kinds))
@pytest.mark.parametrize(("field", "retry_after"), [("", None), ("a.b", 0.0), ("", 2.25)])
def test_every_error_comes_back_as_itself(kind: str, field: str, retry_after: float | None) -> None:
    cls = MillstreamError.kinds[kind]
    field = field if issubclass(cls, InvalidRequest) else ""
    error = cls("what was wrong", field=field, retry_after=retry_after)
    status = through_the_wire(to_grpc(error))
    assert status.status.value == cls.grpc_status
    back = from_grpc(status)
    assert type(back) is cls
    assert (back.message, back.field, back.retry_after) == ("what was wrong", field, retry_after)


def test_details_are_those_that_the_error_has() -> None:
    plain = to_grpc(InternalError("x"))
    assert [type(detail) for detail in plain.details] == [ErrorInfo]
    field = to_grpc(InvalidRequest("x", field="prompt"))
    assert [type(detail) for detail in field.details] == [ErrorInfo, BadRequest]
    busy = to_grpc(Overloaded("x", retry_after=0.5))
    assert [type(detail) for detail in busy.details] == [ErrorInfo, QuotaFailure, RetryInfo]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_status_without_details_becomes_the_nearest_error(status: Status) -> None:
    error = from_grpc(GRPCError(status, "x"))
    if type(error) is not InternalError and status.name not in {
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
    }:
        assert error.grpc_status == status.value
    assert error.message == "x"
    assert from_grpc(GRPCError(status)).message == status.name


def test_another_domains_reason_is_not_taken() -> None:
    error = GRPCError(
        Status.UNAVAILABLE, "x", [ErrorInfo(reason="Overloaded", domain="example.com")]
    )
    assert from_grpc(error).kind == "Unavailable"


def test_a_reason_of_a_newer_version_becomes_internal() -> None:
    error = GRPCError(Status.ABORTED, "x", [ErrorInfo(reason="Newer", domain="millstream")])
    assert type(from_grpc(error)) is InternalError


def test_a_long_message_is_cut() -> None:
    message = to_grpc(InternalError("x" * 10_000)).message
    assert message is not None
    assert len(message) == LONGEST_MESSAGE
    assert message.endswith("...")


def raised(*details: Any, code: int = 5) -> FunctionError:
    status = RpcStatus(code=code, message="no such user", details=details)
    return FunctionError("no such user", status=status.SerializeToString(), code=code)


def packed(message: Message) -> Any:
    found = Any()
    found.Pack(message)
    return found


def test_what_a_function_raised_keeps_its_status_and_details() -> None:
    theirs = [
        packed(ErrorInfo(reason="GONE", domain="example.com")),
        packed(BadRequest(field_violations=[BadRequest.FieldViolation(field="user")])),
    ]
    status = through_the_wire(to_grpc(raised(*theirs)))
    assert (status.status, status.message) == (Status.NOT_FOUND, "no such user")
    back = from_grpc(status)
    assert isinstance(back, FunctionError)
    assert (back.code, back.grpc_status, back.http_status, back.field) == (5, 5, 404, "user")
    assert list(RpcStatus.FromString(back.status).details) == theirs


def test_details_of_unknown_types_pass_as_they_are() -> None:
    own = Any(type_url="type.googleapis.com/acme.Own", value=b"\x08\x01")
    error = to_grpc(raised(own))
    sent = RpcStatus.FromString(CODEC.encode(error.status, error.message, error.details))
    assert sent.details[0] == own
    assert type(error.details[1]) is ErrorInfo


@pytest.mark.parametrize("code", [0, -1, 17, 2**31])
def test_a_code_that_is_none_is_unknown(code: int) -> None:
    assert to_grpc(FunctionError("x", code=code)).status is Status.UNKNOWN


def test_a_broken_status_is_left_out() -> None:
    error = to_grpc(FunctionError("x", code=5, status=b"\xff"))
    assert (error.status, [type(d) for d in error.details]) == (Status.NOT_FOUND, [ErrorInfo])


def test_details_that_no_header_holds_are_left_out() -> None:
    big = Any(type_url="type.googleapis.com/acme.Own", value=b"x" * MOST_DETAILS)
    assert [type(d) for d in to_grpc(raised(big)).details] == [ErrorInfo]
