"""What a function raises, and what its client gets told of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import structlog
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from shared.errors import EngineError, FunctionError, MillstreamError

log = structlog.get_logger(__name__)

MESSAGE_MOST = 2048
"""Characters of a message: it travels in a trailer, and clients bound those."""

DETAILS_MOST = 4096
"""Bytes of message and details, for the same reason."""

FIELD_MOST = 256
"""Characters of a field's name, for the same reason."""


class AppError(Exception):
    """What a function tells its client: a status, a message, details.

    Args:
        status: A gRPC status by name or number: NOT_FOUND, 5.
        message: For the client.
        details: Protobuf messages, such as those of google.rpc.error_details_pb2.
        field: The parameter at fault, or "".
        retry_after: Seconds after which a retry may succeed, or None.

    Raises:
        ValueError: There is no such status, or it is OK.
    """

    def __init__(
        self,
        status: str | int,
        message: str = "",
        details: Iterable[Message] = (),
        *,
        field: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = _code(status)
        self.message = message
        self.details = tuple(details)
        self.field = field
        self.retry_after = retry_after


class ContractError(Exception):
    """The function gave what its annotations do not promise; the message has no values."""


def told(error: BaseException, *, model: str, request_id: str) -> MillstreamError:
    """What the client gets told; what was not meant for it is logged, and only referred to."""
    try:
        meant = _meant(error)
    except Exception as fault:  # A message that is none, say: the call ends all the same.
        log.error("error_malformed", model=model, request_id=request_id, exc_info=fault)
        meant = None
    if meant is not None:
        return meant
    if isinstance(error, ContractError):
        log.error("contract_broken", model=model, request_id=request_id, reason=str(error))
        return EngineError(f"the function broke its contract: {error}")
    log.error("function_failed", model=model, request_id=request_id, exc_info=error)
    return EngineError(
        f"the function failed: {type(error).__name__}; "
        f"see the worker's log for request {request_id}"
    )


def _meant(error: BaseException) -> MillstreamError | None:
    """What was raised for the client, as a frame can carry it; None where it was not."""
    if isinstance(error, AppError):
        return _deliberate(error.code, error.message, error.details, error.field, error.retry_after)
    if isinstance(error, MillstreamError):
        error.message, error.field = _text(error.message), _text(error.field)
        return error
    return _grpclib(error) or _grpc(error)


def _text(given: object) -> str:
    """Text that UTF-8 has."""
    return str(given).encode(errors="replace").decode()


def _code(status: str | int) -> int:
    names = code_pb2.Code.DESCRIPTOR.values_by_name
    numbers = code_pb2.Code.DESCRIPTOR.values_by_number
    code = names[status].number if isinstance(status, str) and status in names else status
    if not isinstance(code, int) or code not in numbers or code == 0:
        raise ValueError(f"no error status: {status!r}; want one of {', '.join(list(names)[1:])}")
    return int(code)


def _deliberate(
    code: int,
    message: str | None,
    details: Iterable[Message] = (),
    field: str = "",
    retry_after: float | None = None,
) -> FunctionError:
    message = "" if message is None else _text(message)[:MESSAGE_MOST]
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    if status.ByteSize() > DETAILS_MOST:
        log.warning("error_details_dropped", size=status.ByteSize(), most=DETAILS_MOST)
        del status.details[:]
    return FunctionError(
        message, status=status.SerializeToString(), code=code, field=_text(field)[:FIELD_MOST],
        retry_after=retry_after,
    )  # fmt: skip


def _grpclib(error: BaseException) -> FunctionError | None:
    """Of a grpclib.GRPCError; a function that raises one has imported it."""
    module: Any = sys.modules.get("grpclib.exceptions")
    if module is None or not isinstance(error, module.GRPCError) or not error.status.value:
        return None
    details = error.details if isinstance(error.details, list | tuple) else ()
    return _deliberate(
        error.status.value, error.message or "", [d for d in details if isinstance(d, Message)]
    )


def _grpc(error: BaseException) -> FunctionError | None:
    """Of a grpc.RpcError: its code is a method, whose result's value is (number, name)."""
    module: Any = sys.modules.get("grpc")
    if module is None or not isinstance(error, module.RpcError):
        return None
    code = getattr(error, "code", lambda: None)()
    if not isinstance(code, module.StatusCode) or not code.value[0]:
        return None
    return _deliberate(code.value[0], getattr(error, "details", lambda: "")() or "")
