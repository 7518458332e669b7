"""The request parameters `timeout` and `triton_enable_empty_final_response`."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.kserve import inference_pb2 as pb
from gateway.status import timed_out

EMPTY_FINAL = "triton_enable_empty_final_response"


def seconds_of(request: pb.ModelInferRequest) -> float | None:
    """How long the answer may take; None is for ever."""
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
    return timeout / 1e6 if timeout > 0 else None


def wants_empty_final(request: pb.ModelInferRequest) -> bool:
    """Whether an empty response is to end the answer."""
    return EMPTY_FINAL in request.parameters and request.parameters[EMPTY_FINAL].bool_param


async def until(seconds: float | None, work: Any) -> None:
    """Await work, for so long.

    Raises:
        DeadlineExceeded: It took longer.
    """
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await work
    except TimeoutError:
        if not deadline.expired():
            raise
        assert seconds is not None
        raise timed_out(seconds) from None
