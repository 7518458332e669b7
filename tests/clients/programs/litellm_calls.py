"""LiteLLM: chat and text completion, streamed and not, and its errors."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # It would fetch prices otherwise.

import litellm  # type: ignore[import-not-found]

litellm.telemetry = False
base = {"api_base": os.environ["BASE_URL"] + "/v1", "api_key": "x", "num_retries": 0}
turns = [{"role": "user", "content": "hi"}]

said = litellm.completion("openai/sim", messages=turns, max_tokens=4, **base)
assert said.choices[0].message.content == " 0 1 2 3"
assert said.usage.completion_tokens == 4
pieces = litellm.completion("openai/sim", messages=turns, max_tokens=4, stream=True, **base)
assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == " 0 1 2 3"
chat = litellm.completion(
    f"openai/{os.environ['CHAT_MODEL']}", messages=turns, max_tokens=5, temperature=0, **base
)
assert chat.choices[0].message.role == "assistant"
text = litellm.text_completion(model="text-completion-openai/sim", prompt="a", max_tokens=3, **base)
assert text.choices[0].text == " 0 1 2"
for fields, expected in (
    ({"model": "openai/none"}, litellm.NotFoundError),
    ({"model": "openai/sim", "temperature": 3}, litellm.BadRequestError),
):
    try:
        litellm.completion(messages=turns, **fields, **base)
        raise AssertionError(f"not refused: {fields}")
    except expected:
        pass
print("passed")
