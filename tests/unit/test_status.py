from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError

from gateway.status import LONGEST_MESSAGE, from_grpc, to_grpc
from shared.errors import InternalError, InvalidRequest, MillstreamError, Overloaded

CODEC = ProtoStatusDetailsCodec()


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
