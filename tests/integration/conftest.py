"""A gateway for all tests of a module, and the requests that it queues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.app import App
from shared import wire
from tests.integration.http_peer import SIMS, Beside, gateway, nats_and


@pytest.fixture(scope="module")
def beside() -> Beside:
    """What runs beside the gateway; a module may have its own."""
    return SIMS


@pytest.fixture(scope="module")
def nats(beside: Beside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and(beside, tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str, beside: Beside) -> AsyncIterator[App]:
    async with gateway(nats, beside) as app:
        yield app


@pytest.fixture
def requests(app: App, monkeypatch: pytest.MonkeyPatch) -> list[wire.Request]:
    """What is queued."""
    queued: list[wire.Request] = []
    publish = app.link.publish

    def noting(request: wire.Request, done: Any) -> None:
        queued.append(request)
        publish(request, done)

    monkeypatch.setattr(app.link, "publish", noting)
    return queued
