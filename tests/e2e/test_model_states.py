"""What a gateway tells of a model that loads, or could not be loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millstream import Client
from millstream.answers import Model
from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.errors import Unavailable
from shared.exits import EXIT_MODEL
from tests.faults.harness import LOAD_LIMIT, Cluster, until
from workers import bundled

pytest.importorskip("torch", reason="the torch extra is not installed")

FLAGS = ("--engine", "torch")


async def only(client: Client) -> Model | None:
    """The model that the gateway knows, if it knows one."""
    models = await client.models()
    assert len(models) < 2, models
    return models[0] if models else None


async def test_why_a_model_failed_stays_to_be_seen(tmp_path: Path) -> None:
    flags = (*FLAGS, "--model", "/no/such/place", "--served-name", "mine")
    async with Cluster(tmp_path, workers=0, engine=(), worker_flags=flags) as cluster:
        worker = cluster.add_worker("w0")
        await until(
            lambda: worker.process is not None and worker.process.poll() is not None,
            "its end", LOAD_LIMIT,
        )  # fmt: skip
        assert worker.process is not None
        assert worker.process.returncode == EXIT_MODEL
        client = cluster.client()
        async with asyncio.timeout(30):
            while (model := await only(client)) is None or model.state == "loading":
                pass  # The worker's last words are on their way.
        assert (model.name, model.state, model.workers) == ("mine", "failed", 0)
        assert "there is no directory /no/such/place" in model.reason
        with pytest.raises(Unavailable, match="could not be loaded: there is no directory"):
            await client.complete("x", model="mine")


async def test_a_model_that_loads_has_the_name_it_will_have(tmp_path: Path) -> None:
    async with Cluster(
        tmp_path, workers=0, engine=(), worker_flags=FLAGS, patience=LOAD_LIMIT
    ) as cluster:
        said: list[tuple[str, str]] = []

        def listen(_subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
            frame = wire.decode(data)
            assert isinstance(frame, wire.Announce)
            said.append((frame.state, frame.model))

        bus = Bus(BusOptions((cluster.nats.url,), "listener"))
        bus.listen(subjects.ANNOUNCEMENTS, listen)
        await bus.start()
        cluster.add_worker("w0")
        await cluster.all_ready()
        # What the gateway has heard may still be on its way to this listener.
        await until(lambda: "ready" in dict(said), "it is said that the model is ready")
        await bus.close()
        assert said[0][0] == "loading"
        assert said[-1][0] == "ready"
        assert {name for _, name in said} == {bundled.NAME}
