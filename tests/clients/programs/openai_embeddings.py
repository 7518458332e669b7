"""The OpenAI client for Python: embeddings, one and many, as floats and as base64."""

import base64
import os
import struct

import openai  # type: ignore[import-not-found]

client = openai.OpenAI(base_url=os.environ["BASE_URL"] + "/v1", api_key="sk-none", max_retries=0)

one = client.embeddings.create(model="bag", input="abba")  # It asks for base64 by itself.
assert one.data[0].embedding == [2, 2, 0, 0]
assert one.model == "bag"
assert one.usage.total_tokens == one.usage.prompt_tokens

texts = ["a" * (n % 50) for n in range(200)]
many = client.embeddings.create(model="bag@1", input=texts, encoding_format="float", user="me")
assert [entry.index for entry in many.data] == list(range(200))
assert [entry.embedding[0] for entry in many.data] == [len(text) for text in texts]

packed = client.embeddings.create(model="bag", input="dd", encoding_format="base64")
said = packed.data[0].embedding
assert isinstance(said, str)
assert struct.unpack("<4f", base64.b64decode(said)) == (0, 0, 0, 2)

assert len(client.embeddings.create(model="sized", input="a", dimensions=7).data[0].embedding) == 7
assert "bag@1" in {model.id for model in client.models.list()}

for fields, expected, param in (
    ({"model": "none"}, openai.NotFoundError, "model"),
    ({"model": "sim"}, openai.BadRequestError, "model"),
    ({"dimensions": 9}, openai.BadRequestError, "dimensions"),
    ({"input": [1, 2]}, openai.BadRequestError, "input"),
):
    try:
        client.embeddings.create(**{"model": "bag", "input": "a", **fields})
        raise AssertionError(f"not refused: {fields}")
    except expected as error:
        assert error.param == param, error
print("passed")
