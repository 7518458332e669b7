"""A stream with a pace, through the whole stack, beside one without."""

from __future__ import annotations

import time

import pytest

from millstream.v1 import inference_pb2 as pb
from tests.bad_input import request
from tests.e2e.running import RunningStack
from tests.e2e.test_bad_input import Caller

pytestmark = pytest.mark.alone


def test_a_paced_stream_is_smooth_and_complete(stack: RunningStack) -> None:
    caller = Caller(stack.target)
    message = request(pace=50.0, sampling=pb.Sampling(max_tokens=30))
    ids: list[int] = []
    times: list[float] = []
    finished = False
    asked = time.monotonic()
    for answer in caller.generate(message):
        ids.extend(answer.delta.token_ids)
        times.extend([time.monotonic()] * len(answer.delta.token_ids))
        finished = finished or answer.HasField("finished")
    assert ids == list(range(30))
    assert finished
    # 29 gaps of 20 ms; the engine alone would take 2 ms a token. The first token may be seen late,
    # and the others then follow it closer: what counts begins with the question.
    assert times[-1] - asked >= 29 * 0.02
    caller.channel.close()
