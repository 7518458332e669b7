"""Streams and consumers that exist already, with another configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from millstream.nats_server import NatsServer
from shared import subjects
from shared.bus import Bus, BusOptions
from shared.streams import DEFAULT_QUEUE, StreamConfigError, ensure_consumers, ensure_streams


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    with NatsServer(tmp_path / "nats") as server:
        bus = Bus(BusOptions((server.url,), "test"))
        await bus.start()
        yield bus
        await bus.close()


def jetstream(bus: Bus) -> JetStreamContext:
    return bus.client.jetstream(timeout=5)


async def limit_of(bus: Bus) -> int | None:
    return (await jetstream(bus).stream_info(subjects.STREAM)).config.max_msgs_per_subject


async def test_they_are_created_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await ensure_streams(bus, 10)

    async def update(*_: object) -> None:
        raise AssertionError("nothing differs, nothing is to be updated")

    monkeypatch.setattr(JetStreamContext, "update_stream", update)
    await ensure_streams(bus, 10)
    await ensure_streams(bus)
    await ensure_consumers(bus, "m")
    await ensure_consumers(bus, "m")
    assert await limit_of(bus) == 10
    info = await jetstream(bus).consumer_info(subjects.RESUME_STREAM, subjects.consumer("m", 0))
    assert info.config.ack_wait == pytest.approx(0.15)


async def test_a_worker_leaves_the_limits_to_the_gateways(bus: Bus) -> None:
    await ensure_streams(bus)
    assert await limit_of(bus) == DEFAULT_QUEUE
    await ensure_streams(bus, 7)
    await ensure_streams(bus)
    assert await limit_of(bus) == 7


async def test_what_can_be_changed_is(bus: Bus) -> None:
    await jetstream(bus).add_stream(
        StreamConfig(
            name=subjects.STREAM,
            subjects=list(subjects.STREAM_SUBJECTS),
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
        )
    )
    await ensure_streams(bus, 7)
    config = (await jetstream(bus).stream_info(subjects.STREAM)).config
    assert (config.discard, config.max_msgs_per_subject) == (DiscardPolicy.NEW, 7)


async def test_what_cannot_is_refused_by_name(bus: Bus) -> None:
    await jetstream(bus).add_stream(
        StreamConfig(
            name=subjects.STREAM,
            subjects=list(subjects.STREAM_SUBJECTS),
            storage=StorageType.MEMORY,
        )
    )
    with pytest.raises(StreamConfigError, match=r"MS_REQ.*storage.*nats stream rm MS_REQ"):
        await ensure_streams(bus, 7)


async def test_one_signature_at_a_time_under_a_functions_name(bus: Bus) -> None:
    await ensure_streams(bus)
    await ensure_consumers(bus, "f@1", "one")
    await ensure_consumers(bus, "f@1", "one")
    with pytest.raises(StreamConfigError, match=r"another signature .* --replace-signature"):
        await ensure_consumers(bus, "f@1", "two")
    await ensure_consumers(bus, "f@2", "two")
    await ensure_consumers(bus, "f@1", "two", replace=True)
    await ensure_consumers(bus, "f@1", "two")


async def test_of_two_signatures_at_once_one_wins(bus: Bus) -> None:
    await ensure_streams(bus)
    outcomes = await asyncio.gather(
        *(ensure_consumers(bus, "f@1", name) for name in ("one", "two")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes].count(StreamConfigError) == 1
