from __future__ import annotations

from typing import Any

import pytest

from gateway.http.openai import convert
from gateway.http.openai.requests import ChatRequest, CompletionRequest
from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest, MillstreamError, Unsupported


def chat(**fields: Any) -> pb.GenerateRequest:
    given = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return convert.chat_request(ChatRequest.model_validate(given))


def completions(**fields: Any) -> list[pb.GenerateRequest]:
    return convert.completion_requests(CompletionRequest.model_validate({"prompt": "hi", **fields}))


def test_what_is_not_given_is_not_set() -> None:
    message = chat()
    assert message.sampling == pb.Sampling()
    assert not message.HasField("structured")
    assert message.priority == pb.PRIORITY_UNSPECIFIED
    everything = dict.fromkeys([*convert.REFUSED, "temperature", "n", "stop", "stream_options"])
    assert chat(**everything) == message


def test_zero_is_a_value() -> None:
    sampling = chat(temperature=0, top_k=0, seed=0, max_tokens=0).sampling
    for name in ("temperature", "top_k", "seed", "max_tokens"):
        assert sampling.HasField(name)


def test_the_newer_limit_wins() -> None:
    assert chat(max_tokens=3, max_completion_tokens=5).sampling.max_tokens == 5


def test_a_negative_seed_is_one_of_64_bits() -> None:
    assert chat(seed=-1).sampling.seed == 2**64 - 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("a", "a"),
        ([], ""),
        (["a", {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "input_text", "text": "c"}], "c"),
    ],
)
def test_content(content: Any, text: str) -> None:
    assert chat(messages=[{"role": "user", "content": content}]).messages[0].content == text


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type": "object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}},
            "json_schema",
            '{"a": 1}',
        ),
        ({"structured_outputs": {"json": {"a": 1}}}, "json_schema", '{"a": 1}'),
        ({"structured_outputs": {"json": '{"a":1}'}}, "json_schema", '{"a":1}'),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"structured_outputs": {"grammar": "g"}}, "grammar", "g"),
    ],
)
def test_structured(given: dict[str, Any], kind: str, value: str) -> None:
    assert getattr(chat(**given).structured, kind) == value


def test_structured_choices() -> None:
    message = chat(structured_outputs={"choice": ["a", "b"]})
    assert list(message.structured.choices.values) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "error", "field"),
    [
        ({"response_format": {"type": "x"}}, InvalidRequest, "response_format.type"),
        (
            {"response_format": {"type": "json_schema"}},
            InvalidRequest,
            "response_format.json_schema",
        ),
        ({"structured_outputs": {}, "response_format": {}}, InvalidRequest, "response_format.type"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, InvalidRequest, "structured_outputs"),
        ({"structured_outputs": {"regex": 1}}, InvalidRequest, "structured_outputs"),
        ({"structured_outputs": {"choice": "a"}}, InvalidRequest, "structured_outputs"),
        ({"priority": "soon"}, InvalidRequest, "priority"),
        ({"top_logprobs": 1}, InvalidRequest, "top_logprobs"),
        ({"messages": []}, InvalidRequest, "messages"),
        ({"tools": [{}]}, Unsupported, "tools"),
        ({"logit_bias": {"1": 1}}, Unsupported, "logit_bias"),
        ({"min_tokens": 2}, Unsupported, "min_tokens"),
    ],
)
def test_refusals_name_the_field(
    given: dict[str, Any], error: type[MillstreamError], field: str
) -> None:
    with pytest.raises(error) as caught:
        chat(**given)
    assert caught.value.field == field


@pytest.mark.parametrize("prompt", [[], [[]], ["a"] * 129])
def test_prompts_that_are_none_or_too_many(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completions(prompt=prompt)
    assert caught.value.field == "prompt"


def test_a_request_a_prompt() -> None:
    one, two = completions(prompt=[[1, 2], [3]], max_tokens=4, logprobs=0)
    assert (list(one.token_ids), list(two.token_ids)) == ([1, 2], [3])
    assert one.sampling == two.sampling
    assert one.sampling.HasField("logprobs")


def test_names_follow_what_was_sent() -> None:
    given = {"messages": [], "max_completion_tokens": 1, "response_format": {}, "logprobs": True}
    names = convert.names(ChatRequest.model_validate(given))
    assert names["sampling.max_tokens"] == "max_completion_tokens"
    assert names["sampling.logprobs"] == "logprobs"
    assert names["prompt"] == "messages"
