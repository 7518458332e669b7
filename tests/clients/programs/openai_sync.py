"""The OpenAI client for Python: chat, completions, streams, errors, cancelling."""

import os
import time

import openai  # type: ignore[import-not-found]

CHAT = os.environ["CHAT_MODEL"]
client = openai.OpenAI(base_url=os.environ["BASE_URL"] + "/v1", api_key="sk-none", max_retries=0)
TURNS = [{"role": "user", "content": "hi"}]


def numbers(count: int) -> str:
    return "".join(f" {token}" for token in range(count))


models = {model.id: model for model in client.models.list()}
assert {"sim", CHAT} <= models.keys()
assert client.models.retrieve("sim").max_model_len == 32768

said = client.chat.completions.create(model="sim", messages=TURNS, max_tokens=5)
assert said.choices[0].message.content == numbers(5)
assert said.choices[0].finish_reason == "length"
assert said.usage.completion_tokens == 5
assert said.usage.prompt_tokens_details.cached_tokens == 0

real = client.chat.completions.create(
    model=CHAT, messages=TURNS, max_completion_tokens=12, temperature=0, seed=7
)
assert real.choices[0].message.role == "assistant"
assert real.choices[0].finish_reason in ("stop", "length")
pieces = client.chat.completions.create(
    model=CHAT, messages=TURNS, max_completion_tokens=12, temperature=0, seed=7, stream=True
)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
assert streamed == real.choices[0].message.content, (streamed, real)

parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
said = client.chat.completions.create(
    model="sim", messages=parts, max_tokens=3, n=2, logprobs=True, top_logprobs=1
)
assert [choice.message.content for choice in said.choices] == [numbers(3)] * 2
content = said.choices[1].logprobs.content
assert [entry.token for entry in content] == [" 0", " 1", " 2"]
assert content[0].top_logprobs[0].bytes == [32, 48]

stream = client.chat.completions.create(
    model="sim",
    messages=TURNS,
    max_tokens=4,
    n=2,
    stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
texts = ["", ""]
for chunk in chunks:
    for choice in chunk.choices:
        texts[choice.index] += choice.delta.content or ""
assert texts == [numbers(4)] * 2
assert chunks[-1].choices == []
assert chunks[-1].usage.completion_tokens == 8

with client.chat.completions.stream(model="sim", messages=TURNS, stop=" 4") as helper:
    assert helper.get_final_completion().choices[0].message.content == numbers(4)

said = client.completions.create(
    model="sim", prompt=["a", "b"], max_tokens=3, logprobs=1, stop=[" 2"]
)
assert [choice.text for choice in said.choices] == [" 0 1"] * 2
assert said.choices[0].finish_reason == "stop"
assert said.choices[0].logprobs.tokens == [" 0", " 1"]
pieces = client.completions.create(model="sim", prompt="a", max_tokens=6, stream=True)
assert "".join(chunk.choices[0].text for chunk in pieces) == numbers(6)

extra: dict[str, object] = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "ignore_eos": True,
    "priority": -1,
}
extra |= {"return_token_ids": True, "cache_salt": "x", "whatever": {"a": 1}}
said = client.completions.create(model="sim", prompt="a", max_tokens=2, extra_body=extra)
assert said.choices[0].token_ids == [0, 1]

raw = client.chat.completions.with_raw_response.create(
    model="sim", messages=TURNS, max_tokens=1, extra_headers={"x-request-id": "named"}
)
assert raw.headers["x-request-id"] == "named"
assert raw.parse()._request_id == "named"


def refused(expected: type[openai.APIStatusError], **fields: object) -> openai.APIStatusError:
    given = {"model": "sim", "messages": TURNS, "max_tokens": 1, **fields}
    try:
        client.chat.completions.create(**given)
    except expected as error:
        assert error.request_id
        return error
    raise AssertionError(f"not refused: {fields}")


assert refused(openai.NotFoundError, model="none").code == "model_not_found"
assert refused(openai.BadRequestError, temperature=3).param == "temperature"
assert refused(openai.BadRequestError, stream=True, max_tokens=0).param == "max_tokens"
schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
assert refused(openai.BadRequestError, response_format=schema).param == "response_format"
long = [{"role": "user", "content": "x" * 40000}]
assert refused(openai.BadRequestError, messages=long, stream=True).param == "messages"

name = {"x-request-id": "left"}
stream = client.completions.create(
    model="sim", prompt="a", max_tokens=20000, stream=True, extra_headers=name
)
next(iter(stream))
try:
    client.completions.create(model="sim", prompt="a", max_tokens=1, extra_headers=name)
    raise AssertionError("the same name runs twice")
except openai.ConflictError as error:
    assert error.code == "request_is_running"
stream.close()
deadline = time.monotonic() + 5
while True:  # The name is free once the request has ended.
    try:
        client.completions.create(model="sim", prompt="a", max_tokens=1, extra_headers=name)
        break
    except openai.ConflictError:
        assert time.monotonic() < deadline, "leaving did not end the request"
        time.sleep(0.01)
print("passed")
