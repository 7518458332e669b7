"""The errors that a client may meet, for `except`: see `shared.errors` for their tree.

Each has `message`, `field` (the part of the request at fault, or ""), `retryable`, `retry_after`
(seconds, or None) and its gRPC and HTTP status; a `FunctionError` has the function's own `code`.
"""

from __future__ import annotations

from shared.errors import (
    Cancelled,
    DeadlineExceeded,
    DuplicateRequest,
    EngineError,
    Forbidden,
    FunctionError,
    InternalError,
    InvalidRequest,
    MillstreamError,
    Overloaded,
    PoisonRequest,
    RequestTooLarge,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnknownRequest,
    Unsupported,
)

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "DuplicateRequest",
    "EngineError",
    "Forbidden",
    "FunctionError",
    "InternalError",
    "InvalidRequest",
    "MillstreamError",
    "Overloaded",
    "PoisonRequest",
    "RequestTooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownModel",
    "UnknownRequest",
    "Unsupported",
]
