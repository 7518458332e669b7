"""A tenant that may use some models sees those, over every protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

import millstream
from gateway.access import Limits
from gateway.access.keys import changing
from gateway.app import App
from gateway.kserve import inference_pb2 as pb
from shared.errors import UnknownModel
from tests.integration.grpc_peer import channel
from tests.integration.http_peer import call, gateway, nats_and_workers
from tests.integration.test_kserve import Client


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A key for each tenant: one may use everything, one only `sim`."""
    with changing(tmp_path / "keys.json") as book:
        book.tenants["all"] = Limits()
        book.tenants["some"] = Limits(models=("sim",))
        return {name: f"Bearer {book.create(name)}" for name in book.tenants}


@pytest.fixture
async def app(nats: str, keys: dict[str, str], tmp_path: Path) -> AsyncIterator[App]:
    async with gateway(nats, api_keys=tmp_path / "keys.json") as app:
        yield app


@pytest.mark.parametrize(("tenant", "models"), [("all", ["fast", "sim"]), ("some", ["sim"])])
async def test_http_shows_the_models_of_a_tenant(
    app: App, keys: dict[str, str], tenant: str, models: list[str]
) -> None:
    headers = {"authorization": keys[tenant]}
    told = (await call(app, "GET", "/v1/models", None, headers)).json
    assert [model["id"] for model in told["data"]] == models
    info = (await call(app, "GET", "/info", None, headers)).json
    assert info["model_id"] == models[0]
    for name in ("fast", "sim"):
        answer = await call(app, "GET", f"/v1/models/{name}", None, headers)
        assert answer.status == (200 if name in models else 404)


@pytest.mark.parametrize(("tenant", "models"), [("all", ["fast", "sim"]), ("some", ["sim"])])
async def test_grpc_shows_the_models_of_a_tenant(
    app: App, keys: dict[str, str], tenant: str, models: list[str]
) -> None:
    key = keys[tenant].removeprefix("Bearer ")
    async with millstream.Client(f"127.0.0.1:{app.grpc_port}", api_key=key) as client:
        assert [model.name for model in await client.models()] == models
        assert (await client.model("sim")).name == "sim"
        if "fast" in models:
            assert (await client.model("fast")).name == "fast"
        else:
            with pytest.raises(UnknownModel):
                await client.model("fast")


@pytest.mark.parametrize(("tenant", "fast"), [("all", True), ("some", False)])
async def test_kserve_shows_the_models_of_a_tenant(
    app: App, keys: dict[str, str], tenant: str, fast: bool
) -> None:
    metadata = (("authorization", keys[tenant]),)
    async with channel(app.grpc_port) as connection:
        client = Client(connection)
        for name, visible in (("sim", True), ("fast", fast)):
            ready = await client.call(
                "ModelReady", pb.ModelReadyRequest(name=name), metadata=metadata
            )
            assert ready.ready is visible
            for method, asked in (
                ("ModelMetadata", pb.ModelMetadataRequest(name=name)),
                ("ModelConfig", pb.ModelConfigRequest(name=name)),
            ):
                if visible:
                    await client.call(method, asked, metadata=metadata)
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.call(method, asked, metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
