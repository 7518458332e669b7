"""An embedding model behind a real gateway: a function like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.errors import InvalidRequest
from tests.faults.harness import Cluster
from tests.vllm.embedding import DIMENSIONS, MODEL, TEXTS, cosine, expected

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = 240.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    flags = (
        "--engine", "vllm", "--model", MODEL, "--served-name", "mini", "--dtype", "float32",
        "--max-batch", "16", "--engine-arg", "enforce_eager=true",
    )  # fmt: skip
    async with Cluster(
        tmp_path_factory.mktemp("embedding"),
        workers=1, engine=(), worker_flags=flags, patience=START,
    ) as running:  # fmt: skip
        yield running


async def test_it_is_listed_as_a_function(cluster: Cluster) -> None:
    (model,) = await cluster.client().models()
    assert (model.name, model.engine, model.context_length) == ("mini@1", "vllm", 256)
    assert "predict" in model.features


async def test_a_text_becomes_its_vector(cluster: Cluster) -> None:
    for name in ("mini", "mini@1"):
        vector = await cluster.client().predict(name, text=TEXTS[0])
        assert vector.shape == (DIMENSIONS,)
        assert cosine(vector, expected(TEXTS[0])) > 0.9999


async def test_many_at_once(cluster: Cluster) -> None:
    client = cluster.client()
    vectors = await asyncio.gather(
        *(client.predict("mini", text=f"Text {number}") for number in range(100))
    )
    for number in (0, 31, 99):
        alone = await client.predict("mini", text=f"Text {number}")
        assert cosine(vectors[number], alone) > 0.9999
    assert cosine(vectors[3], vectors[4]) < 0.9999


async def test_what_is_wrong_names_its_field(cluster: Cluster) -> None:
    client = cluster.client()
    with pytest.raises(InvalidRequest, match="256 tokens") as caught:
        await client.predict("mini", text="stream " * 400)
    assert caught.value.field == "text"
    with pytest.raises(InvalidRequest) as caught:
        await client.predict("mini", words="x")
    assert caught.value.field == "words"
    with pytest.raises(InvalidRequest) as caught:
        await client.complete("The mill", model="mini")
    assert caught.value.field == "model"
