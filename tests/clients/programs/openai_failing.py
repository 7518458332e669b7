"""The OpenAI client for Python: a gateway that stops ends a stream with an error."""

import os
import signal

import openai  # type: ignore[import-not-found]

client = openai.OpenAI(base_url=os.environ["BASE_URL"] + "/v1", api_key="x", max_retries=0)
stream = client.completions.create(model="sim", prompt="a", max_tokens=20000, stream=True)
text = ""
try:
    for chunk in stream:
        if not text:
            os.kill(int(os.environ["GATEWAY_PID"]), signal.SIGTERM)
        text += chunk.choices[0].text
    raise AssertionError("the stream ended as if it were complete")
except openai.APIError as error:
    assert "stopped" in error.message, error
    assert error.body["code"] == "unavailable", error.body
assert text == "".join(f" {token}" for token in range(len(text.split())))
print("passed")
