from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pace import Paced
from gateway.ports import Summary, TextOnly
from shared.errors import DeadlineExceeded, MillstreamError

SUMMARY = Summary(("stop",), 3, 4, 0, 0.1, 0.2, 0.3, 1)


class Call:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self._now = 100.0
        self._calls: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Call:
        call = Call(callback)
        heapq.heappush(self._calls, (when, next(self._numbers), call))
        return call

    def pass_time(self, seconds: float) -> None:
        end = self._now + seconds
        while self._calls and self._calls[0][0] <= end:
            when, _, call = heapq.heappop(self._calls)
            self._now = max(self._now, when)
            if not call.cancelled:
                call.callback()
        self._now = end

    @property
    def pending(self) -> int:
        return sum(not call.cancelled for _, _, call in self._calls)


class Recorder(TextOnly):
    """An outlet that notes what it gets, and when."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.tokens: list[tuple[float, int, int, str]] = []
        self.logprobs: list[Any] = []
        self.ends: list[tuple[float, object]] = []
        self.begun: list[str] = []

    def started(self, worker: str) -> None:
        self.begun.append(worker)

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        now = self._clock.time()
        self.tokens += [(now, choice, index + place, text) for place in range(len(ids))]
        self.logprobs.append(logprobs)

    def finished(self, summary: Summary) -> None:
        self.ends.append((self._clock.time(), summary))

    def failed(self, error: MillstreamError) -> None:
        self.ends.append((self._clock.time(), error))

    @property
    def times(self) -> list[float]:
        return [round(moment - 100.0, 6) for moment, *_ in self.tokens]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def reader(clock: VirtualClock) -> Recorder:
    return Recorder(clock)


def burst(outlet: Paced, first: int, count: int, choice: int = 0) -> None:
    """Tokens that come together, each with one letter."""
    outlet.delta(
        first, tuple(range(first, first + count)), "abcdefghij"[:count], choice, 0,
        [(-1.0 * place, ()) for place in range(count)], tuple(range(1, count + 1)),
    )  # fmt: skip


def test_a_burst_is_spread_evenly(clock: VirtualClock, reader: Recorder) -> None:
    outlet = Paced(reader, 10.0, clock)
    outlet.started("w")
    burst(outlet, 0, 5)
    outlet.finished(SUMMARY)
    assert outlet.waiting == 4
    clock.pass_time(1.0)
    assert reader.begun == ["w"]
    assert reader.times == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert "".join(text for *_, text in reader.tokens) == "abcde"
    assert reader.logprobs == [[(-1.0 * place, ())] for place in range(5)]
    assert [end for _, end in reader.ends] == [SUMMARY]
    assert reader.ends[0][0] == pytest.approx(100.4)
    assert clock.pending == 0


def test_a_slower_stream_goes_through_untouched(clock: VirtualClock, reader: Recorder) -> None:
    outlet = Paced(reader, 10.0, clock)
    for token in range(4):
        burst(outlet, token, 1)
        clock.pass_time(0.25)
    outlet.finished(SUMMARY)
    assert reader.times == [0.0, 0.25, 0.5, 0.75]
    assert reader.ends == [(101.0, SUMMARY)]


def test_a_pause_earns_no_burst(clock: VirtualClock, reader: Recorder) -> None:
    outlet = Paced(reader, 10.0, clock)
    burst(outlet, 0, 1)
    clock.pass_time(5.0)
    burst(outlet, 1, 3)
    clock.pass_time(1.0)
    assert reader.times == [0.0, 5.0, 5.1, 5.2]


def test_tokens_whose_texts_are_not_told_apart_stay_together(
    clock: VirtualClock, reader: Recorder
) -> None:
    outlet = Paced(reader, 10.0, clock)
    outlet.delta(0, (1, 2, 3), "abc", 0, 0, None)
    burst(outlet, 3, 1)
    clock.pass_time(1.0)
    assert reader.times == [0.0, 0.0, 0.0, 0.3]


def test_an_error_waits_for_nobody(clock: VirtualClock, reader: Recorder) -> None:
    outlet = Paced(reader, 1.0, clock)
    burst(outlet, 0, 5)
    error = DeadlineExceeded("too late")
    outlet.failed(error)
    assert len(reader.tokens) == 5
    assert reader.ends == [(100.0, error)]
    assert clock.pending == 0


def test_who_left_gets_nothing_more(clock: VirtualClock, reader: Recorder) -> None:
    outlet = Paced(reader, 1.0, clock)
    burst(outlet, 0, 5)
    outlet.finished(SUMMARY)
    outlet.close()
    clock.pass_time(10.0)
    assert len(reader.tokens) == 1
    assert not reader.ends
    assert clock.pending == 0


@given(
    pace=st.floats(0.5, 500.0),
    steps=st.lists(
        st.tuples(st.floats(0.0, 0.5), st.integers(1, 8), st.integers(0, 1)), min_size=1
    ),
)
def test_nothing_is_lost_and_nothing_is_early(
    pace: float, steps: list[tuple[float, int, int]]
) -> None:
    clock = VirtualClock()
    reader = Recorder(clock)
    outlet = Paced(reader, pace, clock)
    frontier = [0, 0]
    for wait, count, choice in steps:
        burst(outlet, frontier[choice], count, choice)
        frontier[choice] += count
        clock.pass_time(wait)
    outlet.finished(SUMMARY)
    total = sum(frontier)
    clock.pass_time(total / pace + 1.0)
    assert len(reader.ends) == 1
    for choice in (0, 1):
        own = [index for _, who, index, _ in reader.tokens if who == choice]
        assert own == list(range(frontier[choice]))
    for (before, *_), (after, *_) in itertools.pairwise(reader.tokens):
        assert after - before >= 1 / pace - 1e-6
