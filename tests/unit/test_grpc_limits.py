from __future__ import annotations

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

from gateway.grpc.headers import Refusal, parse_request
from gateway.grpc.limits import Limits, ServerCounters, TokenBucket

USUAL = [
    (":method", "POST"),
    (":path", "/a.B/C"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
TIMEOUTS = [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9)]


@pytest.mark.parametrize(("text", "seconds"), TIMEOUTS)
def test_timeouts_are_read(text: str, seconds: float) -> None:
    request = parse_request([*USUAL, ("grpc-timeout", text)], 10_000)
    assert request.timeout == pytest.approx(seconds)


@given(st.text(max_size=12), st.sampled_from(["grpc-timeout", "x-bin", "grpc-encoding", "x"]))
def test_any_header_is_read_or_refused(value: str, name: str) -> None:
    try:
        parse_request([*USUAL, (name, value)], 10_000)
    except Refusal as refusal:
        assert refusal.status is not Status.OK
        assert hasattr(ServerCounters(), refusal.counter)


@given(st.lists(st.floats(0, 10), max_size=200))
def test_a_bucket_gives_no_more_than_burst_and_rate(gaps: list[float]) -> None:
    bucket = TokenBucket(5, 2)
    now, spent = 0.0, 0
    for gap in gaps:
        now += gap
        spent += bucket.spend(now)
    assert spent <= 5 + 2 * now + 1e-6


def test_a_bucket_refills() -> None:
    bucket = TokenBucket(1, 1)
    assert [bucket.spend(t) for t in (0.0, 0.5, 1.5, 1.6)] == [True, False, True, False]


@pytest.mark.parametrize(
    "wrong", [{"max_streams": 0}, {"keepalive_interval": -1.0}, {"stream_window": 1000}]
)
def test_a_wrong_limit_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)
