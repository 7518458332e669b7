"""The bus behind a proxy that cuts its TLS handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus import Bus, BusOptions
from shared.ready import loop_factory
from tests.eventually import until
from tests.integration.secure_nats import SecureNats
from tests.integration.test_bus_cut import LIMIT, Cut, Proxy

HELLO = b"\x16\x03\x01"


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNats]:
    with SecureNats(tmp_path_factory.mktemp("secure")) as server:
        yield server


@pytest.fixture
def proxy(nats: SecureNats) -> Iterator[Proxy]:
    proxy = Proxy("127.0.0.1", int(nats.url.rsplit(":", 1)[1]))
    yield proxy
    proxy.close()


def bus_of(nats: SecureNats, proxy: Proxy) -> Bus:
    url = f"tls://localhost:{proxy.url.rsplit(':', 1)[1]}"
    seed: Path = nats.seed("gateway")
    options = (
        ("tls", nats.context()),
        ("nkeys_seed", str(seed)),
        ("inbox_prefix", "_INBOX_gateway"),
    )
    return Bus(BusOptions((url,), "cut", options))


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_it_starts_after_handshakes_that_were_cut(
    nats: SecureNats, proxy: Proxy, reset: bool
) -> None:
    proxy.plans = [Cut(HELLO, reset=reset)] * 2

    async def scenario() -> None:
        bus = bus_of(nats, proxy)
        await asyncio.wait_for(bus.start(), LIMIT)
        assert (bus.connected, proxy.cuts) == (True, 2)
        await asyncio.wait_for(bus.close(), LIMIT)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(scenario())


def test_it_ends_while_its_handshakes_are_cut(nats: SecureNats, proxy: Proxy) -> None:
    async def scenario() -> None:
        bus = bus_of(nats, proxy)
        await asyncio.wait_for(bus.start(), LIMIT)
        proxy.always = Cut(HELLO, reset=True)
        proxy.end(reset=True)
        await until(lambda: proxy.cuts >= 3, "it tries again", LIMIT)
        await asyncio.wait_for(bus.close(), LIMIT)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(scenario())
