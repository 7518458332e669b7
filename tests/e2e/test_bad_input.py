"""Every row of bad input through a real stack, with a client that is not ours (grpcio)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from millstream.v1 import inference_pb2 as pb
from tests.bad_input import ENGINE_ROWS, ROWS, Bad, request, sampled
from tests.e2e.running import RunningStack


class Caller:
    """The service by its method names, without generated stubs."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)

    def generate(self, message: pb.GenerateRequest) -> grpc.Call:
        return self.channel.unary_stream(
            "/millstream.v1.Inference/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )(message, timeout=20)

    def cancel(self, request_id: str) -> None:
        self.channel.unary_unary(
            "/millstream.v1.Inference/Cancel",
            request_serializer=pb.CancelRequest.SerializeToString,
            response_deserializer=pb.CancelResponse.FromString,
        )(pb.CancelRequest(request_id=request_id), timeout=20)

    def model(self, name: str) -> pb.GetModelResponse:
        answer: pb.GetModelResponse = self.channel.unary_unary(
            "/millstream.v1.Inference/GetModel",
            request_serializer=pb.GetModelRequest.SerializeToString,
            response_deserializer=pb.GetModelResponse.FromString,
        )(pb.GetModelRequest(name=name), timeout=20)
        return answer


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    made = Caller(stack.target)
    yield made
    made.channel.close()


def details(error: grpc.RpcError) -> dict[str, object]:
    """The google.rpc details of a status, by their type's name."""
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    found: dict[str, object] = {}
    for detail in status_pb2.Status.FromString(raw).details:
        name = detail.TypeName().rsplit(".", 1)[1]
        found[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return found


def refusal(caller: Caller, message: pb.GenerateRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(caller.generate(message))
    return caught.value


def refused_at_once(caller: Caller, message: pb.GenerateRequest, seconds: float) -> grpc.RpcError:
    """The last of five refusals, of which the median takes no longer than that."""
    took = []
    for _ in range(5):
        started = time.monotonic()
        error = refusal(caller, message)
        took.append(time.monotonic() - started)
    assert statistics.median(took) < seconds
    return error


@pytest.mark.parametrize("bad", [*ROWS, *ENGINE_ROWS], ids=lambda bad: bad.name)
def test_bad_input_is_refused_with_its_field(caller: Caller, bad: Bad) -> None:
    error = refusal(caller, bad.request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert bad.says in error.details()
    assert details(error)["BadRequest"].field_violations[0].field == bad.field  # type: ignore[attr-defined]


def test_an_unknown_model_is_not_found(caller: Caller) -> None:
    error = refusal(caller, request(model="nope"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nope" in error.details()
    assert "sim" in error.details()
    with pytest.raises(grpc.RpcError) as caught:
        caller.model("nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_running_request_id_already_exists_until_it_ends(caller: Caller) -> None:
    running = request(request_id="twice", sampling=pb.Sampling(max_tokens=5000))
    first = caller.generate(running)
    assert next(first).started.request_id == "twice"
    error = refusal(caller, running)
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "twice" in error.details()

    caller.cancel("twice")
    with pytest.raises(grpc.RpcError) as caught:
        list(first)
    assert caught.value.code() is grpc.StatusCode.CANCELLED

    again = list(caller.generate(request(request_id="twice", sampling=pb.Sampling(max_tokens=2))))
    assert again[-1].finished.usage.completion_tokens == 2


def test_cancel_of_nothing_is_not_found_and_of_nonsense_invalid(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.cancel("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        caller.cancel("")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_larger_than_the_queue_carries_is_refused_at_once(caller: Caller) -> None:
    error = refused_at_once(caller, request(prompt="x" * (5 * 2**20)), 5)
    assert error.code() in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # larger than a gRPC message may be
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    assert str(5 * 2**20)[:4] in error.details()


def test_good_requests_go_on_beside_bad_ones(caller: Caller) -> None:
    good = caller.generate(sampled(max_tokens=200))
    for bad in ROWS[:5]:
        refusal(caller, bad.request)
    ids = [token for message in good for token in message.delta.token_ids]
    assert ids == list(range(200))
