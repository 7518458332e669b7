"""A drain and the streams of ModelStreamInfer: what was asked is answered, idleness is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from gateway.app import App
from gateway.kserve import inference_pb2 as pb
from tests.integration.grpc_peer import channel, eventually
from tests.integration.http_peer import gateway, nats_and_workers
from tests.integration.test_kserve import Client, ask, outputs, streamed

GRACE = 60.0


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


async def stopped(app: App, call: grpc.aio.StreamStreamCall) -> float:
    """Tell a gateway to stop; returns the seconds until the stream ended with UNAVAILABLE."""
    began = asyncio.get_running_loop().time()
    app.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(GRACE / 2):
            while True:
                await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "this gateway is stopping"
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("used", [True, False])
async def test_an_idle_stream_holds_no_drain(nats: str, used: bool) -> None:
    async with (
        gateway(nats, http_port=None, drain_grace=GRACE) as app,
        channel(app.grpc_port) as connection,
    ):
        call = Client(connection).stream()
        await call.wait_for_connection()
        if used:
            await call.write(ask(sampling={"max_tokens": 2}, stream=True))
            await streamed(call, 1)
        assert await stopped(app, call) < GRACE / 4


async def test_what_runs_is_answered_first(nats: str) -> None:
    async with (
        gateway(nats, http_port=None, drain_grace=GRACE) as app,
        channel(app.grpc_port) as connection,
    ):
        call = Client(connection).stream()
        await call.write(ask(sampling={"max_tokens": 300}, stream=True))
        first = await call.read()
        app.stop()
        rest = await streamed(call, 1)
        whole = "".join(outputs(one.infer_response)["text_output"][0] for one in [first, *rest])
        assert whole == "".join(f" {number}" for number in range(300))
        await stopped(app, call)


async def test_a_request_that_comes_later_is_refused(nats: str) -> None:
    async with (
        gateway(nats, http_port=None, drain_grace=GRACE) as app,
        channel(app.grpc_port) as connection,
    ):
        call = Client(connection).stream()
        await call.write(ask(sampling={"max_tokens": 1500}, stream=True))
        await call.read()
        app.stop()
        await eventually(lambda: app._draining)
        await call.write(ask(sampling={"max_tokens": 2}, stream=True))
        refused: list[pb.ModelStreamInferResponse] = await streamed(call, 1)
        assert refused[-1].error_message == "this gateway is stopping"
        await streamed(call, 1)
        await stopped(app, call)
