"""LangChain's OpenAI package: invoke, stream, batch, completions."""

import asyncio
import os

from langchain_openai import ChatOpenAI, OpenAI  # type: ignore[import-not-found]

base = {"base_url": os.environ["BASE_URL"] + "/v1", "api_key": "x", "max_retries": 0}
model = ChatOpenAI(model="sim", max_tokens=4, stream_usage=True, **base)

said = model.invoke("hi")
assert said.content == " 0 1 2 3"
assert said.usage_metadata["output_tokens"] == 4
assert said.response_metadata["finish_reason"] == "length"
pieces = list(model.stream("hi"))
assert "".join(piece.content for piece in pieces) == " 0 1 2 3"
whole = pieces[0]
for piece in pieces[1:]:
    whole += piece
assert whole.usage_metadata["output_tokens"] == 4
assert [one.content for one in model.batch(["a", "b", "c"])] == [" 0 1 2 3"] * 3
assert asyncio.run(model.ainvoke("hi")).content == " 0 1 2 3"
chat = ChatOpenAI(model=os.environ["CHAT_MODEL"], max_tokens=6, temperature=0, **base)
assert isinstance(chat.invoke([("system", "Be brief."), ("human", "hi")]).content, str)
text = OpenAI(model="sim", max_tokens=3, **base)
assert text.invoke("a") == " 0 1 2"
assert "".join(text.stream("a")) == " 0 1 2"
print("passed")
