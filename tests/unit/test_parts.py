"""A function's items in parts: the record at the worker, and whole items at the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.items import TELL_AFTER, Items
from gateway.ports import Summary
from gateway.typed.outlet import ItemsOnly
from shared import wire
from shared.errors import MillstreamError
from workers.parts import PartsPublisher

BIG = wire.PART_MOST * 2 + 17


class Out(ItemsOnly):
    """Writes down the items it gets."""

    def __init__(self) -> None:
        self.items_: list[bytes] = []
        self.attempts: list[int] = []

    def started(self, worker: str) -> None:
        raise AssertionError(worker)

    def delta(self, *given: Any) -> None:
        raise AssertionError(given)

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        assert index == len(self.items_)
        self.items_.extend(items)
        self.attempts.append(attempt)

    def finished(self, summary: Summary) -> None:
        raise AssertionError(summary)

    def failed(self, error: MillstreamError) -> None:
        raise error


def answer(out: Out, asked: list[tuple[int, int, bool]] | None = None) -> Items:
    def ask(choice: int, index: int, begun: bool) -> None:
        if asked is not None:
            asked.append((choice, index, begun))

    return Items(out, ask, lambda _event: None)


def frames(data: list[bytes]) -> list[wire.Parts]:
    decoded = [wire.decode(frame) for frame in data]
    assert all(isinstance(frame, wire.Parts) for frame in decoded)
    return decoded  # type: ignore[return-value]


@given(st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=8))
def test_items_arrive_as_they_were_given(turns: list[list[bytes]]) -> None:
    publisher, out = PartsPublisher(0, 7, 0), Out()
    got = answer(out)
    for turn in turns:
        publisher.add(turn)
        for frame in frames(publisher.flush()):
            got.on_chunk(frame, 0.0)
    assert out.items_ == [item for turn in turns for item in turn]
    assert publisher.totals == (len(out.items_),)


def test_a_long_item_travels_in_parts_of_bounded_size() -> None:
    publisher, out = PartsPublisher(0, 7, 0), Out()
    item = bytes(range(256)) * (BIG // 256)
    publisher.add([b"a", item, b"b"])
    data = publisher.flush()
    assert max(map(len, data)) <= 2 * wire.PART_MOST + 64
    got = answer(out)
    for frame in frames(data):
        got.on_chunk(frame, 0.0)
    assert out.items_ == [b"a", item, b"b"]
    assert publisher.totals == (got.lanes[0].frontier,)


def test_what_the_client_took_is_forgotten() -> None:
    publisher = PartsPublisher(0, 7, 0)
    publisher.add([b"x" * 100] * 10)
    held = publisher.held
    assert publisher.acknowledge((5,)) == 0
    assert publisher.held == held, "nothing was sent yet"
    publisher.flush()
    publisher.acknowledge((4,))
    assert publisher.held == held * 6 // 10
    assert [frame.index for frame in frames(publisher.resend(0, 0))] == [4]
    publisher.acknowledge((10,))
    assert publisher.held == 0
    assert publisher.resend(0, 0) == []
    assert publisher.resend(1, 0) == []


def test_a_lost_part_is_asked_for_and_the_rest_waits() -> None:
    publisher, out = PartsPublisher(0, 7, 0), Out()
    asked: list[tuple[int, int, bool]] = []
    got = answer(out, asked)
    sent = []
    for item in (b"a", b"b", b"c"):
        publisher.add([item])
        sent.extend(frames(publisher.flush()))
    got.on_chunk(sent[0], 0.0)
    got.on_chunk(sent[2], 0.0)
    assert out.items_ == [b"a"]
    assert asked == [(0, 1, False)]
    for frame in frames(publisher.resend(0, 1)):
        got.on_chunk(frame, 0.1)
    assert out.items_ == [b"a", b"b", b"c"]
    got.on_chunk(sent[1], 0.2)  # A duplicate.
    assert out.items_ == [b"a", b"b", b"c"]


def test_a_continuation_begins_at_the_start_of_an_item() -> None:
    first, out = PartsPublisher(0, 7, 0), Out()
    got = answer(out)
    item = b"i" * BIG
    first.add([b"a", item])
    (begin, *_) = frames(first.flush())
    got.on_chunk(begin, 0.0)  # The item's end is lost with its worker.
    assert got.lanes[0].frontier > 1
    got.freeze()
    request = got.continuation(_request())
    assert (request.after_items, request.after_parts) == (1, 1)
    second = PartsPublisher(1, 8, request.after_parts)
    second.add([item, b"z"])
    for frame in frames(second.flush()):
        got.on_chunk(frame, 1.0)
    assert out.items_ == [b"a", item, b"z"]
    assert got.reached == 3
    assert set(out.attempts) == {0, 1}


def test_the_window_moves_when_the_client_takes_items() -> None:
    out = Out()
    got = answer(out)
    publisher = PartsPublisher(0, 7, 0)
    size = 1000 + wire.ITEM_OVERHEAD
    publisher.add([b"x" * 1000] * 600)
    for frame in frames(publisher.flush()):
        got.on_chunk(frame, 0.0)
    assert got.frontiers == (0,), "delivered is not taken"
    assert got.took(10) is None, "too little to tell"
    assert got.frontiers == (10,), "digests tell it all the same"
    enough = TELL_AFTER // size + 1
    assert got.took(enough) == enough
    assert got.took(enough) is None
    assert got.took(10_000) == 600


def test_a_continuation_is_told_what_is_not_taken_and_when_it_is() -> None:
    out = Out()
    got = answer(out)
    publisher = PartsPublisher(0, 7, 0)
    publisher.add([b"x" * 100] * 3)
    for frame in frames(publisher.flush()):
        got.on_chunk(frame, 0.0)
    assert got.took(1) is None
    got.freeze()
    assert got.continuation(_request()).untaken == 2 * (100 + wire.ITEM_OVERHEAD)
    assert got.took(2) is None
    assert got.took(3) == 3, "too little to tell, but all that was given before"
    assert got.continuation(_request()).untaken == 0


def test_the_tokens_of_a_call_are_known_where_its_worker_told_them() -> None:
    got = answer(Out())
    assert got.begun is not None
    assert got.begun.prompt_ids == b""
    got.on_begun(wire.Begun(0, 1, bytes(12), 2, "mini@1-abc"), 0.0)
    got.on_begun(wire.Begun(1, 2, bytes(40), 0, "mini@1-def"), 0.0)
    assert (got.begun.prompt_tokens, got.begun.cached_tokens) == (3, 2)
    assert got.begun.fingerprint == "", "any worker can begin anew"


def test_a_generations_chunk_is_nothing_for_a_function() -> None:
    out = Out()
    assert not answer(out).on_chunk(wire.Chunk(0, 7, 0, (1,), "a"), 0.0)
    assert out.items_ == []


def _request() -> wire.Request:
    return wire.Request("R", 1, "g", "n", "f@1", None, None, None, wire.Sampling(), call=b"args")
