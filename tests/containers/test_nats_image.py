"""The broker's image: the bus, the streams and a whole stack against a containerised server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from millstream import SyncClient
from shared import subjects
from shared.bus import Bus, BusOptions, parse_puback
from shared.errors import Overloaded
from shared.streams import ensure_consumers, ensure_streams
from tests.containers.docker import ROOT
from tests.e2e.running import RunningStack

CONFIG = ROOT / "deploy" / "nats"
IMAGE = "nats:2.12-alpine"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:testcontainers")


@pytest.fixture(scope="module")
def nats_url(engine: None) -> Iterator[str]:
    """A server with the configuration of compose.yaml."""
    from testcontainers.community.nats import NatsContainer

    server = (
        NatsContainer(IMAGE)
        .with_volume_mapping(str(CONFIG), "/etc/millstream/nats")
        .with_command("--config /etc/millstream/nats/nats.conf")
    )
    with server:
        yield server.nats_uri()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(BusOptions((nats_url,), "test"))
    await bus.start()
    yield bus
    await bus.close()


async def test_streams_and_consumers_are_made_once_and_found_again(bus: Bus) -> None:
    for _ in range(2):
        await ensure_streams(bus, 2)
        await ensure_consumers(bus, "some model")
    told = await bus.client.jetstream().stream_info(subjects.STREAM)
    assert told.state.consumer_count == 3


async def test_a_full_queue_is_refused(bus: Bus) -> None:
    await ensure_streams(bus, 2)
    subject = subjects.request("full", subjects.CLASSES.index("standard"))
    outcomes = [parse_puback(await bus.request(subject, b"x", 5.0)) for _ in range(3)]
    assert isinstance(outcomes[-1], Overloaded)
    assert not any(isinstance(one, Exception) for one in outcomes[:-1])


def test_a_stack_runs_over_it(nats_url: str, tmp_path: Path) -> None:
    with (
        RunningStack(tmp_path / "data", "--nats", nats_url) as stack,
        SyncClient(stack.target) as client,
    ):
        assert client.complete("x", model="sim", max_tokens=4).text == " 0 1 2 3"
