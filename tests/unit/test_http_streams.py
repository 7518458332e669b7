"""The events that are built by hand hold what was said, whatever it holds; buffers are bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import outlet
from gateway.collected import Collected, tokens_of
from gateway.http.events import PlainStream, SocketStream
from gateway.http.openai.answers import Head, OpenAiStream, Shape
from gateway.http.openai.shapes import ChatShape, CompletionShape
from gateway.http.sse import PING, SseOutlet
from gateway.outlet import Flusher
from gateway.ports import Summary
from shared.errors import MillstreamError, Overloaded, Unavailable

HEAD = Head("id-1", 5, 'm"\n', usage=True)
ANY_TEXT = st.text(st.characters(exclude_categories=()))


class Kept:
    """A client that takes everything."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, messages: Sequence[bytes]) -> bool:
        self.data += b"".join(messages)
        return True

    async def send(self, messages: Sequence[bytes]) -> None:
        self.write(messages)


def never(error: MillstreamError) -> None:
    raise AssertionError(error)


def summary(*reasons: str) -> Summary:
    return Summary(reasons, 3, 2, 1, 0.1, 0.2, 0.3, 1)


def written(make: Any, texts: Sequence[str], *reasons: str) -> str:
    """What a client gets for one session that says these texts and ends."""

    async def run() -> str:
        kept = Kept()
        stream: SseOutlet = make(kept, Flusher(), never)
        stream.started("w")
        for index, text in enumerate(texts):
            stream.delta(index, [index], text, 0, 0, None)
        stream.finished(summary(*reasons))
        await stream.run()
        return kept.data.decode()

    return asyncio.run(run())


@given(texts=st.lists(ANY_TEXT, max_size=4))
@pytest.mark.parametrize("shape", [ChatShape(), CompletionShape()])
def test_openai_events_hold_any_text(shape: Shape, texts: list[str]) -> None:
    def make(*ports: Any) -> OpenAiStream:
        return OpenAiStream(*ports, shape=shape, head=HEAD, choices=1, sessions=1)

    *events, rest = written(make, texts, "stop").split("\n\n")
    assert rest == ""
    assert events.pop() == "data: [DONE]"
    *chunks, usage = [json.loads(event.removeprefix("data: ")) for event in events]
    said = [chunk["choices"][0] for chunk in chunks]
    assert [one.get("text", one.get("delta", {}).get("content")) or "" for one in said] == [
        *([""] if isinstance(shape, ChatShape) else []),
        *texts,
        "",
    ]
    assert said[-1]["finish_reason"] == "stop"
    assert {chunk["model"] for chunk in chunks} == {'m"\n'}
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 5


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_plain_events_hold_any_text(texts: list[str]) -> None:
    def make(*ports: Any) -> PlainStream:
        return PlainStream(*ports, request_id="r", model="m")

    first, *deltas, last, rest = written(make, texts, "length").split("\n\n")
    assert rest == ""
    assert first.startswith("event: started\ndata: ")
    for index, (event, text) in enumerate(zip(deltas, texts, strict=True)):
        name, data = event.split("\n")
        assert name == f"id: {index}"
        assert json.loads(data.removeprefix("data: "))["text"] == text
    assert last.startswith("event: finished\n")


def test_socket_messages_are_json_with_a_type() -> None:
    def make(*ports: Any) -> SocketStream:
        return SocketStream(*ports, request_id="r", model="m")

    decoder, text, found = json.JSONDecoder(), written(make, ["a"], "stop"), []
    while text:
        message, end = decoder.raw_decode(text)
        found.append(message["type"])
        text = text[end:]
    assert found == ["started", "delta", "finished"]


def test_choices_without_a_token_still_begin_and_end() -> None:
    def make(*ports: Any) -> OpenAiStream:
        return OpenAiStream(*ports, shape=ChatShape(), head=HEAD, choices=2, sessions=1)

    events = written(make, [], "stop", "length").split("\n\n")
    said = [json.loads(event.removeprefix("data: "))["choices"] for event in events[:-2]]
    assert [(one["index"], one["delta"].get("role")) for (one,) in said[:-1]] == [
        (0, "assistant"), (0, None), (1, "assistant"), (1, None),
    ]  # fmt: skip


async def test_a_client_that_reads_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MOST_UNSENT", 1000)

    class Stuck(Kept):
        def write(self, messages: Sequence[bytes]) -> bool:
            return False

    told: list[MillstreamError] = []

    def overflowed(error: MillstreamError) -> None:
        told.append(error)
        stream.failed(error)

    stream = PlainStream(Stuck(), Flusher(), overflowed, request_id="r", model="m")
    for index in range(40):
        stream.delta(index, [index], "x" * 50, 0, 0, None)
    assert [type(error) for error in told] == [Overloaded]


async def test_pings_only_where_nothing_came() -> None:
    kept = Kept()
    stream = PlainStream(kept, Flusher(), never, request_id="r", model="m")
    stream.ping()
    await asyncio.sleep(0)
    assert kept.data == PING
    stream.delta(0, [0], "a", 0, 0, None)
    await asyncio.sleep(0)
    stream.ping()
    await asyncio.sleep(0)
    assert kept.data.count(PING) == 1
    stream.ping()
    await asyncio.sleep(0)
    assert kept.data.count(PING) == 2


async def test_what_was_said_before_a_failure_is_written_first() -> None:
    kept = Kept()
    stream = PlainStream(kept, Flusher(), never, request_id="r", model="m")
    stream.delta(0, [0], "a", 0, 0, None)
    stream.failed(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await stream.run()
    assert b'"text":"a"' in kept.data


async def test_a_whole_answer_ends_with_its_last_session() -> None:
    collected = Collected(3, sessions=2, tokens=True)
    collected.delta(0, [5], "a", 2, 0, None)
    collected.finish(2, summary("stop"))
    assert collected.gone
    collected.finish(0, summary("length", "stop"))
    await collected.run()
    assert [choice.reason for choice in collected.choices] == ["length", "stop", "stop"]
    assert collected.choices[2].tokens[0].id == 5


@given(
    texts=st.lists(st.text(max_size=3), min_size=1, max_size=6),
    known=st.booleans(),
    ends=st.booleans(),
)
def test_tokens_join_to_the_text(texts: list[str], known: bool, ends: bool) -> None:
    ids = list(range(len(texts)))
    text = "".join(texts)
    logprobs = [(-1.0, ((token, own, -1.0),)) for token, own in enumerate(texts)] if known else None
    stops = [len("".join(texts[: place + 1])) for place in ids] if ends else None
    tokens = tokens_of(ids, text, logprobs, stops)
    assert [token.id for token in tokens] == ids
    assert "".join(token.text for token in tokens) == text
    if known or ends:
        assert [token.text for token in tokens] == texts
