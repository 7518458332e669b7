"""Errors as HTTP says them: a status, headers that tell clients about retries, and a body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from shared.errors import FunctionError, MillstreamError, Unsupported

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    499: "cancelled_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

_CODES = {
    "InvalidRequest": "invalid_value",
    "RequestTooLarge": "request_too_large",
    "Unauthenticated": "invalid_api_key",
    "Forbidden": "forbidden",
    "UnknownModel": "model_not_found",
    "UnknownRequest": "request_not_found",
    "DuplicateRequest": "request_is_running",
    "Overloaded": "overloaded",
    "Unavailable": "unavailable",
    "DeadlineExceeded": "deadline_exceeded",
    "Cancelled": "cancelled",
    "Unsupported": "unsupported",
    "EngineError": "engine_error",
    "PoisonRequest": "poison_request",
}

_FUNCTION_CODES = {
    1: "cancelled",
    3: "invalid_argument",
    4: "deadline_exceeded",
    5: "not_found",
    6: "already_exists",
    7: "permission_denied",
    8: "resource_exhausted",
    9: "failed_precondition",
    10: "aborted",
    11: "out_of_range",
    12: "unimplemented",
    13: "internal",
    14: "unavailable",
    15: "data_loss",
    16: "unauthenticated",
}
"""Of the gRPC status that a function raised."""

_TGI_TYPES = {400: "validation", 404: "validation", 429: "overloaded", 503: "overloaded"}


def status(error: MillstreamError) -> int:
    """The HTTP status.

    What an engine cannot do is the request's fault here (400): clients take every status from 500
    on for one worth a retry.
    """
    return 400 if isinstance(error, Unsupported) else error.http_status


def headers(error: MillstreamError) -> dict[str, str]:
    """Whether and when to try again, as the OpenAI clients and others read it."""
    told = {"x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after is not None:
        told["retry-after"] = str(math.ceil(error.retry_after))
        told["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    return told


def renamed(error: MillstreamError, names: Mapping[str, str] | None) -> MillstreamError:
    """The error with its field named as the client's protocol names it.

    Args:
        error: With a field of `GenerateRequest`, or none.
        names: What a field is called; `sampling.` is left out of those not listed. None where the
            names are the same.
    """
    field = error.field
    if names is None or not field:
        return error
    name = names.get(field, field.removeprefix("sampling."))
    # A field without a dot is a word that the message may use as such.
    message = error.message.replace(field, name) if "." in field else error.message
    return error.renamed(message, name)


def openai_body(error: MillstreamError) -> dict[str, Any]:
    """The body that the OpenAI clients expect."""
    return openai_fields(error.message, status(error), param=error.field or None, code=code(error))


def code(error: MillstreamError) -> str:
    """What clients tell errors apart by; one that a function raised has its status's name."""
    if isinstance(error, FunctionError):
        return _FUNCTION_CODES.get(error.code, "unknown")
    return _CODES.get(error.kind, "internal_error")


def openai_fields(
    message: str, number: int, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The same from its parts."""
    kind = _TYPES.get(number, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def openai_response(error: MillstreamError) -> Response:
    """The answer of the OpenAI and plain endpoints to a failed request."""
    return JSONResponse(openai_body(error), status(error), headers(error))


def tgi_body(error: MillstreamError) -> dict[str, Any]:
    """The body that TGI's clients expect."""
    return {"error": error.message, "error_type": _TGI_TYPES.get(status(error), "generation")}


def tgi_response(error: MillstreamError) -> Response:
    """The answer of the TGI endpoints to a failed request; TGI says 422 for a bad one."""
    number = status(error)
    return JSONResponse(tgi_body(error), 422 if number == 400 else number, headers(error))
