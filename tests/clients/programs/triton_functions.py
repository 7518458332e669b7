"""Triton's client over functions: arrays, texts, versions, streams, errors inside them."""

import os
import queue

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found]
from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]

client = triton.InferenceServerClient(os.environ["TARGET"])
assert client.is_model_ready("echo", "1")
assert not client.is_model_ready("echo", "3")
assert list(client.get_model_metadata("echo").versions) == ["1", "2"]
config = client.get_model_config("double", as_json=True)["config"]
assert config["input"][0]["data_type"] == "TYPE_FP32"


def given(name: str, value: np.ndarray, datatype: str) -> object:
    made = triton.InferInput(name, value.shape, datatype)
    made.set_data_from_numpy(value)
    return made


def text(name: str, value: str) -> object:
    return given(name, np.array([value.encode()], dtype=np.object_), "BYTES")


vector = given("vector", np.array([1, 2, 3], np.float32), "FP32")
doubled = client.infer("double", [vector]).as_numpy("result")
assert doubled.dtype == np.float32
assert doubled.tolist() == [2, 4, 6]

said = client.infer("echo", [text("text", "ab")], model_version="1", request_id="mine")
assert said.as_numpy("result").tolist() == [b"ab"]
assert said.get_response().id == "mine"
assert client.infer("echo", [text("text", "ab")]).as_numpy("result").tolist() == [b"AB"]

for model, inputs, says in (
    ("none", [], "not served"),
    ("echo", [], "text"),
    ("refuse", [], "no such user"),
    ("count", [given("n", np.array([1], np.int64), "INT64")], "decoupled"),
):
    try:
        client.infer(model, inputs)
        raise AssertionError("not refused")
    except InferenceServerException as error:
        assert says in error.message(), error

answers: queue.Queue[tuple[object, object]] = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
count = [given("n", np.array([5], np.int64), "INT64")]
client.async_stream_infer("count", count, enable_empty_final_response=True)
found = []
while True:
    result, problem = answers.get(timeout=10)
    assert problem is None, problem
    if result.get_response().parameters["triton_final_response"].bool_param:  # type: ignore[attr-defined]
        break
    found.append(result.as_numpy("result")[0])  # type: ignore[attr-defined]
assert found == [b"0", b"1", b"2", b"3", b"4"]
client.async_stream_infer("break", [given("n", np.array([1], np.int64), "INT64")])
result, problem = answers.get(timeout=10)
assert result.as_numpy("result")[0] == 0  # type: ignore[attr-defined]
result, problem = answers.get(timeout=10)
assert "broken on purpose" in str(problem)
client.stop_stream()
print("passed")
