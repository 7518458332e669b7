"""`millstream top` over a running stack, with the rights of a watcher."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from millstream import Client
from millstream.top import TopSettings, run_top
from shared.settings import load
from tests.integration.processes import Parts
from tests.integration.secure_nats import SecureNats


def test_it_sees_a_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SecureNats(tmp_path) as server, Parts(tmp_path) as parts:
        target = parts.gateway(**server.settings("gateway"))
        worker = server.settings("worker") | {"MILLSTREAM_WORKER_ENGINE_ARGS": "step_ms=5"}
        parts.worker("one", **worker)
        flags = {key.removeprefix("MILLSTREAM_").lower(): value
                 for key, value in server.settings("watcher").items()}  # fmt: skip
        settings = load(TopSettings, flags)

        async def look() -> int:
            async with (
                Client(target) as client,
                client.generate("x", model="sim", max_tokens=10_000) as answer,
            ):
                await anext(answer)
                return await asyncio.to_thread(
                    run_top, settings, once=True, as_json=True, seconds=3.0
                )

        assert asyncio.run(look()) == 0
        told = json.loads(capsys.readouterr().out)
        (row,) = told["workers"]
        assert row["worker"].startswith("one-")
        assert (row["state"], row["running"], row["engine"]) == ("ready", 1, "sim")
        assert row["tokens_per_second"] > 50
        assert [model["model"] for model in told["models"]] == ["sim"]
        assert len(told["gateways"]) == 1
        assert told["problems"] == []


def test_without_a_server_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(TopSettings, {"nats": "nats://127.0.0.1:9"})
    assert run_top(settings, once=True, as_json=False, seconds=0.2) == 1
    assert "no NATS answers" in capsys.readouterr().err
