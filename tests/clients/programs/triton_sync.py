"""Triton's client: the server, a whole answer, a stream, an error inside it, cancelling."""

import json
import os
import queue

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found]
from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]

client = triton.InferenceServerClient(os.environ["TARGET"])
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("sim")
assert not client.is_model_ready("none")
assert client.get_server_metadata().name == "millstream"
assert {tensor.name for tensor in client.get_model_metadata("sim").inputs} >= {"text_input"}
assert client.get_model_config("sim").config.model_transaction_policy.decoupled
assert client.get_model_config("sim", as_json=True)["config"]["input"][0]["data_type"] == (
    "TYPE_STRING"
)


def inputs(text: str, stream: bool, **sampling: object) -> list[object]:
    """As the samples of Triton's vLLM backend make them."""
    made = []
    for name, value in (("text_input", text), ("sampling_parameters", json.dumps(sampling))):
        made.append(triton.InferInput(name, [1], "BYTES"))
        made[-1].set_data_from_numpy(np.array([value.encode()], dtype=np.object_))
    flags = {"stream": stream, "return_finish_reason": True, "return_num_output_tokens": True}
    flags |= {"exclude_input_in_output": True, "return_num_input_tokens": True}
    for name, flag in flags.items():
        made.append(triton.InferInput(name, [1], "BOOL"))
        made[-1].set_data_from_numpy(np.array([flag], dtype=bool))
    return made


whole = client.infer("sim", inputs("hi", False, max_tokens="4", temperature="0"), request_id="w")
assert whole.as_numpy("text_output")[0] == b" 0 1 2 3"
assert whole.as_numpy("finish_reason")[0] == b"length"
assert whole.as_numpy("num_input_tokens")[0] == 2
assert whole.as_numpy("num_output_tokens")[0] == 4
assert whole.get_response().id == "w"

for model, sampling, says in (("none", {}, "not served"), ("sim", {"temperature": 9}, "is 9")):
    try:
        client.infer(model, inputs("hi", False, **sampling))
        raise AssertionError("not refused")
    except InferenceServerException as error:
        assert says in error.message(), error

answers: queue.Queue[tuple[object, object]] = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in range(4):
    sampling = {"max_tokens": 6 if number != 2 else 0}
    client.async_stream_infer(
        "sim",
        inputs("hi", True, **sampling),
        request_id=str(number),
        enable_empty_final_response=True,
    )
texts = {str(number): b"" for number in range(4)}
open_ones = set(texts)
while open_ones:
    result, failure = answers.get(timeout=10)
    if failure is not None:
        assert "max_tokens is 0" in str(failure)
        open_ones.discard("2")
        continue
    response = result.get_response()  # type: ignore[attr-defined]
    if response.parameters["triton_final_response"].bool_param:
        assert not response.outputs
        open_ones.discard(response.id)
    else:
        texts[response.id] += result.as_numpy("text_output")[0]  # type: ignore[attr-defined]
assert texts == {"0": b" 0 1 2 3 4 5", "1": b" 0 1 2 3 4 5", "2": b"", "3": b" 0 1 2 3 4 5"}

client.async_stream_infer("sim", inputs("hi", True, max_tokens=20000), request_id="long")
assert answers.get(timeout=10)[1] is None
client.stop_stream(cancel_requests=True)
assert client.is_server_live()

done: queue.Queue[tuple[object, object]] = queue.Queue()
call = client.async_infer(
    "sim",
    inputs("hi", False, max_tokens=20000),
    callback=lambda result, error: done.put((result, error)),
)
call.cancel()
assert "CANCELLED" in str(done.get(timeout=10)[1])
client.close()
print("passed")
