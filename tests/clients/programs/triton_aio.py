"""Triton's client for asyncio: a whole answer, a stream, an error inside it, cancelling."""

import asyncio
import json
import os
from collections.abc import AsyncIterator

import numpy as np
import tritonclient.grpc.aio as triton  # type: ignore[import-not-found]


def request(name: str, stream: bool, **sampling: object) -> dict[str, object]:
    made = []
    for tensor, value in (("text_input", "hi"), ("sampling_parameters", json.dumps(sampling))):
        made.append(triton.InferInput(tensor, [1], "BYTES"))
        made[-1].set_data_from_numpy(np.array([value.encode()], dtype=np.object_))
    for tensor, flag in (("stream", stream), ("exclude_input_in_output", True)):
        made.append(triton.InferInput(tensor, [1], "BOOL"))
        made[-1].set_data_from_numpy(np.array([flag], dtype=bool))
    return {"model_name": "sim", "inputs": made, "request_id": name}


async def main() -> None:
    async with triton.InferenceServerClient(os.environ["TARGET"]) as client:
        assert await client.is_server_ready()
        whole = await client.infer(**request("w", False, max_tokens=3))
        assert whole.as_numpy("text_output")[0] == b" 0 1 2"

        async def requests() -> AsyncIterator[dict[str, object]]:
            yield request("good", True, max_tokens=5)
            yield request("bad", True, max_tokens=0)
            yield request("whole", False, max_tokens=2)

        texts = {"good": b"", "whole": b""}
        errors = []
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                errors.append(error.message())
            else:
                texts[result.get_response().id] += result.as_numpy("text_output")[0]
        assert texts == {"good": b" 0 1 2 3 4", "whole": b" 0 1"}, texts
        assert len(errors) == 1
        assert "max_tokens is 0" in errors[0]

        hold = asyncio.Event()

        async def endless() -> AsyncIterator[dict[str, object]]:
            yield request("long", True, max_tokens=20000)
            await hold.wait()

        stream = client.stream_infer(endless())
        seen = 0
        async for _, error in stream:
            assert error is None
            seen += 1
            if seen == 3:
                stream.cancel()
                break
        again = await client.infer(**request("w", False, max_tokens=1))
        assert again.as_numpy("text_output")[0] == b" 0"
        hold.set()


asyncio.run(main())
print("passed")
