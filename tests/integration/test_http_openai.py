"""The OpenAI endpoints against a real broker and sim workers: token k of an answer is " k"."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.app import App
from gateway.http.front import TIMEOUT
from tests.integration.http_peer import (
    Answer,
    Event,
    call,
    connect,
    gateway,
    nats_and_workers,
    stream,
)

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TURNS = [{"role": "user", "content": "hi"}]
HALF = "\ud83d"
"""Of a surrogate pair."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


def numbers(count: int) -> str:
    return "".join(f" {token}" for token in range(count))


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "sim", "messages": TURNS, "max_tokens": 6, **fields}


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": "sim", "prompt": "hi", "max_tokens": 6, **fields}


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(
        said.get("text") or said.get("delta", {}).get("content") or ""
        for event in events
        for said in (event.data["choices"] if isinstance(event.data, dict) else [])
        if said["index"] == choice
    )


async def test_a_chat_completion(app: App) -> None:
    answer = await call(app, "POST", CHAT, chat(), {"x-request-id": "mine"})
    assert answer.status == 200
    assert answer.headers["x-request-id"] == "mine"
    said = answer.json
    assert said["id"] == "chatcmpl-mine"
    assert said["object"] == "chat.completion"
    assert said["model"] == "sim"
    assert said["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": numbers(6), "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert said["usage"] == {
        "prompt_tokens": len("user: hi"),
        "completion_tokens": 6,
        "total_tokens": len("user: hi") + 6,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_streamed_chat_completion(app: App) -> None:
    events = await stream(app, "POST", CHAT, chat(stream=True))
    assert events[-1].data == "[DONE]"
    chunks = [event.data for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(events) == numbers(6)
    assert chunks[-1]["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]


async def test_usage_comes_last_where_it_is_asked_for(app: App) -> None:
    asked = completion(stream=True, stream_options={"include_usage": True})
    events = await stream(app, "POST", COMPLETIONS, asked)
    *chunks, last = [event.data for event in events[:-1]]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert last["usage"]["prompt_tokens"] == 2


async def test_usage_in_every_event(app: App) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await stream(app, "POST", CHAT, chat(stream=True, stream_options=options))
    counts = [event.data["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == 6
    assert {event.data["usage"]["prompt_tokens"] for event in events[:-1]} == {len("user: hi")}


@pytest.mark.parametrize("streamed", [False, True])
async def test_several_choices_of_several_prompts(app: App, streamed: bool) -> None:
    asked = completion(prompt=["one", "three"], n=2, stream=streamed)
    if streamed:
        events = await stream(app, "POST", COMPLETIONS, asked)
        assert [text_of(events, choice) for choice in range(4)] == [numbers(6)] * 4
        ends = [
            choice["index"]
            for event in events[:-1]
            for choice in event.data["choices"]
            if choice["finish_reason"] == "length"
        ]
        assert sorted(ends) == [0, 1, 2, 3]
    else:
        said = (await call(app, "POST", COMPLETIONS, asked)).json
        assert [choice["index"] for choice in said["choices"]] == [0, 1, 2, 3]
        assert {choice["text"] for choice in said["choices"]} == {numbers(6)}
        assert said["usage"]["prompt_tokens"] == len("one") + len("three")
        assert said["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
async def test_a_prompt_of_token_ids(app: App, prompt: Any) -> None:
    said = (await call(app, "POST", COMPLETIONS, completion(prompt=prompt))).json
    assert said["usage"]["prompt_tokens"] == 3


async def test_logprobs_of_a_completion(app: App) -> None:
    said = (await call(app, "POST", COMPLETIONS, completion(logprobs=1))).json
    assert said["choices"][0]["logprobs"] == {
        "tokens": [f" {token}" for token in range(6)],
        "token_logprobs": [0.0] * 6,
        "top_logprobs": [{f" {token}": 0.0} for token in range(6)],
        "text_offset": [0, 2, 4, 6, 8, 10],
    }


async def test_logprobs_of_a_streamed_completion_have_offsets_into_the_whole(app: App) -> None:
    events = await stream(app, "POST", COMPLETIONS, completion(logprobs=1, stream=True))
    said = [event.data["choices"][0]["logprobs"] for event in events[:-1]]
    offsets = [offset for one in said if one for offset in one["text_offset"]]
    assert offsets == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("streamed", [False, True])
async def test_logprobs_of_a_chat(app: App, streamed: bool) -> None:
    asked = chat(logprobs=True, top_logprobs=1, stream=streamed)
    if streamed:
        events = await stream(app, "POST", CHAT, asked)
        choices = [event.data["choices"][0] for event in events[:-1]]
    else:
        choices = (await call(app, "POST", CHAT, asked)).json["choices"]
    content = [one for choice in choices for one in (choice["logprobs"] or {}).get("content", [])]
    assert [one["token"] for one in content] == [f" {token}" for token in range(6)]
    assert content[3] == {
        "token": " 3",
        "logprob": 0.0,
        "bytes": [32, 51],
        "top_logprobs": [{"token": " 3", "logprob": 0.0, "bytes": [32, 51]}],
    }


async def test_a_stop_string(app: App) -> None:
    said = (await call(app, "POST", CHAT, chat(stop=" 3"))).json["choices"][0]
    assert said["message"]["content"] == " 0 1 2"
    assert said["finish_reason"] == "stop"


async def test_token_ids_on_request(app: App) -> None:
    said = (await call(app, "POST", CHAT, chat(return_token_ids=True))).json["choices"][0]
    assert said["token_ids"] == list(range(6))
    events = await stream(app, "POST", CHAT, chat(return_token_ids=True, stream=True))
    ids = [
        token for event in events[:-1] for token in event.data["choices"][0].get("token_ids", [])
    ]
    assert ids == list(range(6))


async def test_a_completion_without_a_limit_has_sixteen_tokens(app: App) -> None:
    said = (await call(app, "POST", COMPLETIONS, {"model": "sim", "prompt": "hi"})).json
    assert said["choices"][0]["text"] == numbers(16)


async def test_models(app: App) -> None:
    said = (await call(app, "GET", "/v1/models")).json
    assert [model["id"] for model in said["data"]] == ["fast", "sim"]
    assert said["data"][1]["max_model_len"] == 32768
    assert (await call(app, "GET", "/v1/models/sim")).json == said["data"][1]
    missing = await call(app, "GET", "/v1/models/org/none")
    assert missing.status == 404
    assert missing.error["code"] == "model_not_found"


def refused(answer: Answer) -> tuple[int, str | None, str | None]:
    assert answer.headers["x-request-id"]
    assert set(answer.error) == {"message", "type", "param", "code"}
    return answer.status, answer.error["param"], answer.error["code"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "none"}, (404, "model", "model_not_found")),
        ({"temperature": 3}, (400, "temperature", "invalid_value")),
        ({"max_tokens": 0}, (400, "max_tokens", "invalid_value")),
        ({"max_completion_tokens": 0}, (400, "max_completion_tokens", "invalid_value")),
        ({"top_logprobs": 30, "logprobs": True}, (400, "top_logprobs", "invalid_value")),
        ({"messages": []}, (400, "messages", "invalid_value")),
        ({"messages": [{"content": "x"}]}, (400, "messages[0].role", "invalid_value")),
        ({"messages": [*TURNS, {"role": HALF}]}, (400, "messages[1].role", "invalid_value")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": f"a{HALF}"}]}]},
            (400, "messages[0].content[0].text", "invalid_value"),
        ),
        ({"stop": ["a", HALF]}, (400, "stop[1]", "invalid_value")),
        ({"model": HALF}, (400, "model", "invalid_value")),
        ({"user": {HALF: 1}}, (400, "user", "invalid_value")),
        ({"tools": [{"type": "function"}]}, (400, "tools", "unsupported")),
        ({"response_format": {"type": "json_object"}}, (400, "response_format", "unsupported")),
        # Only the engine can tell, after a worker took it: still a status, streamed or not.
        (
            {"messages": [{"role": "user", "content": "x" * 40000}], "max_tokens": 1},
            (400, "messages", "invalid_value"),
        ),
    ],
)
async def test_a_refusal_is_a_status(
    app: App, streamed: bool, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert refused(await call(app, "POST", CHAT, chat(stream=streamed, **fields))) == expected


async def test_one_bad_prompt_of_several_refuses_all(app: App) -> None:
    answer = await call(app, "POST", COMPLETIONS, completion(prompt=["a", ""]))
    assert refused(answer) == (400, "prompt", "invalid_value")
    answer = await call(app, "POST", COMPLETIONS, completion(prompt=["a", HALF]))
    assert refused(answer) == (400, "prompt[1]", "invalid_value")


async def test_whole_surrogate_pairs_are_text(app: App) -> None:
    body = json.dumps(chat(messages=[{"role": "user", "content": "\U0001f600"}])).encode()
    assert b"ud83d" in body
    assert (await call(app, "POST", CHAT, body)).status == 200


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e3", "soon", "0.0", ""])
async def test_a_timeout_that_is_no_number_above_0(app: App, given: str) -> None:
    answer = await call(app, "POST", CHAT, chat(), {TIMEOUT: given})
    assert refused(answer) == (400, TIMEOUT, "invalid_value")


@pytest.mark.parametrize("several", [False, True])
async def test_an_answer_that_takes_longer_than_its_timeout(app: App, several: bool) -> None:
    asked = completion(prompt=["a", "b"] if several else "a", max_tokens=20000)
    answer = await call(app, "POST", COMPLETIONS, asked, {TIMEOUT: "0.2"})
    assert refused(answer) == (504, None, "deadline_exceeded")
    assert "0.2 s" in answer.error["message"]
    assert not app.link.router.sessions
    assert (await call(app, "POST", COMPLETIONS, completion(), {TIMEOUT: "20"})).status == 200


async def test_a_timeout_inside_a_stream_is_an_event(app: App) -> None:
    asked = chat(stream=True, max_tokens=20000)
    events = await stream(app, "POST", CHAT, asked, {TIMEOUT: "2"})
    assert text_of(events[:-1]).startswith(" 0 1 2")
    assert events[-1].data["error"]["code"] == "deadline_exceeded"
    assert not app.link.router.sessions


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000])
async def test_garbage_is_refused(app: App, body: bytes) -> None:
    answer = await call(app, "POST", CHAT, body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


async def test_a_failure_after_the_first_token_is_an_event(app: App) -> None:
    asked = chat(model="sim", stream=True, max_tokens=5000)
    seen: list[Event] = []

    http = await connect(app)
    await http.send("POST", CHAT, asked, {"x-request-id": "doomed"})
    head = await http.head()
    assert head.status == 200
    async for event in http.events(head):
        seen.append(event)
        if len(seen) == 5:
            assert app.link.cancels.here("", "doomed")
    http.abort()
    assert seen[-1].data["error"]["code"] == "cancelled"
    assert app.link.router.sessions == {}


async def test_the_same_name_twice_is_a_conflict_that_is_not_retried(app: App) -> None:
    http = await connect(app)
    await http.send("POST", CHAT, chat(stream=True, max_tokens=5000), {"x-request-id": "one"})
    await http.head()
    answer = await call(app, "POST", CHAT, chat(), {"x-request-id": "one"})
    http.abort()
    assert answer.status == 409
    assert answer.headers["x-should-retry"] == "false"
