"""The OpenAI client for Python, asynchronous: many streams, a timeout, cancelling a task."""

import asyncio
import os

import openai  # type: ignore[import-not-found]

TURNS = [{"role": "user", "content": "hi"}]


async def main() -> None:
    base = os.environ["BASE_URL"] + "/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:

        async def one(count: int) -> str:
            stream = await client.chat.completions.create(
                model="sim", messages=TURNS, max_tokens=count, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        texts = await asyncio.gather(*(one(count) for count in range(1, 33)))
        for count, text in enumerate(texts, 1):
            assert text == "".join(f" {token}" for token in range(count)), (count, text)

        try:
            await client.completions.create(model="sim", prompt="a", max_tokens=20000, timeout=0.3)
            raise AssertionError("it was in time")
        except openai.APITimeoutError:
            pass

        task = asyncio.create_task(one(20000))
        await asyncio.sleep(0.2)
        task.cancel()
        try:
            await task
            raise AssertionError("it was not cancelled")
        except asyncio.CancelledError:
            pass
        assert await one(3) == " 0 1 2"


asyncio.run(main())
print("passed")
