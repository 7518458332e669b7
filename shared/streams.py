"""JetStream's streams and consumers, created by whoever starts first and the same for all."""

from __future__ import annotations

import json
from dataclasses import fields

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError, ServerError

from shared import subjects
from shared.bus import Bus

_DUPLICATE_WINDOW = 120.0
_MAX_WAITING_PULLS = 10_000
_UNLIMITED = -1
_EXISTS = 10148
DEFAULT_QUEUE = 1000
SIGNATURE = "millstream-signature"
FORGET_FUNCTION = 60.0
"""Seconds after which a name and version that nobody serves is free for another signature."""


class StreamConfigError(Exception):
    """A stream or consumer exists with a configuration that cannot be changed to ours."""


def stream_configs(max_queue: int, replicas: int) -> tuple[StreamConfig, StreamConfig]:
    """The request stream and the resume stream.

    Args:
        max_queue: Queued requests a model and class, beyond which a publish is refused.
        replicas: Copies of each message in a NATS cluster.
    """
    requests = StreamConfig(
        name=subjects.STREAM,
        subjects=list(subjects.STREAM_SUBJECTS),
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=max_queue,
        max_consumers=_UNLIMITED,
        duplicate_window=_DUPLICATE_WINDOW,
        allow_msg_ttl=True,
        num_replicas=replicas,
    )
    resume = StreamConfig(
        name=subjects.RESUME_STREAM,
        subjects=list(subjects.RESUME_SUBJECTS),
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_consumers=_UNLIMITED,
        duplicate_window=_DUPLICATE_WINDOW,
        allow_msg_ttl=True,
        num_replicas=replicas,
    )
    return requests, resume


async def ensure_streams(
    bus: Bus, max_queue: int | None = None, replicas: int | None = None
) -> None:
    """Create both streams, or bring existing ones to this configuration.

    Args:
        bus: The connection.
        max_queue: See `stream_configs`. None, as a worker has it: streams that exist stay as they
            are, since their limits are the gateways' to set.
        replicas: Copies of each message; None is one where a stream is created, and what it has
            where it exists.

    Raises:
        StreamConfigError: An existing stream differs in what cannot be changed, e.g. its storage.
        nats.errors.Error: JetStream is away, or not ready yet.
        TimeoutError: It did not answer.
    """
    jetstream = bus.client.jetstream(timeout=5)
    for config in stream_configs(max_queue or DEFAULT_QUEUE, replicas or 1):
        await _ensure_stream(
            jetstream, config, update=max_queue is not None, replicated=replicas is not None
        )


async def _ensure_stream(
    jetstream: JetStreamContext, config: StreamConfig, *, update: bool, replicated: bool
) -> None:
    assert config.name is not None
    try:
        existing = (await jetstream.stream_info(config.name)).config
    except NotFoundError:
        try:
            await jetstream.add_stream(config)
        except BadRequestError:  # Somebody else was first, perhaps with other limits.
            existing = (await jetstream.stream_info(config.name)).config
        else:
            return
    if not replicated:
        config.num_replicas = existing.num_replicas
    if not update:
        config.max_msgs_per_subject = existing.max_msgs_per_subject
    wrong = _differences(existing, config)
    if not wrong:
        return
    try:
        await jetstream.update_stream(config)
    except (BadRequestError, ServerError) as error:
        raise StreamConfigError(
            f"stream {config.name} exists with {', '.join(wrong)} and cannot be changed "
            f"({error.description}): drain it and delete it with `nats stream rm {config.name}`, "
            "or use another NATS account"
        ) from error


def _differences(existing: StreamConfig, wanted: StreamConfig) -> list[str]:
    """Name the fields that are set in `wanted` and not so in `existing`."""
    found = []
    for field in fields(wanted):
        want, have = getattr(wanted, field.name), getattr(existing, field.name)
        if want is not None and want != have and not (want in (-1, 0) and have in (None, -1, 0)):
            found.append(f"{field.name}={have!r} instead of {want!r}")
    return found


def consumer_config(model: str, urgency: int, signature: str = "") -> ConsumerConfig:
    """The durable consumer of one model and class.

    A worker that hangs keeps its standing pulls until the server calls its connection stale, and
    swallows what they deliver: a resume must be offered again sooner than other work.

    Args:
        model: The served name.
        urgency: The class.
        signature: A function's fingerprint: while anybody serves the name, all do with this one.
    """
    return ConsumerConfig(
        durable_name=subjects.consumer(model, urgency),
        filter_subject=subjects.request(model, urgency),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=0.15 if urgency == 0 else 1.0,
        max_deliver=_UNLIMITED,
        max_ack_pending=_UNLIMITED,
        max_waiting=_MAX_WAITING_PULLS,
        metadata={SIGNATURE: signature} if signature else None,
        inactive_threshold=FORGET_FUNCTION if signature else None,
    )


async def ensure_consumers(
    bus: Bus, model: str, signature: str = "", *, replace: bool = False
) -> None:
    """Create the consumers of every class of a model, or leave them as they are.

    Args:
        bus: The connection.
        model: The served name.
        signature: A function's fingerprint.
        replace: Take the name over from workers that serve it with another signature.

    Raises:
        StreamConfigError: One exists with a configuration that cannot be changed, or is that of
            a function with another signature.
        nats.errors.Error: JetStream is away, or not ready yet.
        TimeoutError: It did not answer.
    """
    jetstream = bus.client.jetstream(timeout=5)
    for urgency in range(len(subjects.CLASSES)):
        config = consumer_config(model, urgency, signature)
        if signature and not replace and not await _first(bus, config, urgency):
            await _check_signature(jetstream, config, model, urgency)
        try:
            await jetstream.add_consumer(subjects.stream_of(urgency), config)
        except BadRequestError as error:
            raise StreamConfigError(
                f"consumer {config.durable_name} exists and cannot be changed "
                f"({error.description}): delete it with `nats consumer rm`"
            ) from error


async def _first(bus: Bus, config: ConsumerConfig, urgency: int) -> bool:
    """Create a function's consumer, if there is none: the server lets one of several do it."""
    stream = subjects.stream_of(urgency)
    subject = f"$JS.API.CONSUMER.CREATE.{stream}.{config.durable_name}.{config.filter_subject}"
    body = {"stream_name": stream, "config": config.as_dict(), "action": "create"}
    reply = await bus.client.request(subject, json.dumps(body).encode(), timeout=5)
    error = json.loads(reply.data).get("error")
    if error is None:
        return True
    if error.get("err_code") == _EXISTS:
        return False
    raise StreamConfigError(
        f"consumer {config.durable_name} cannot be created ({error.get('description')})"
    )


async def _check_signature(
    jetstream: JetStreamContext, config: ConsumerConfig, model: str, urgency: int
) -> None:
    """Compare with the signature of who came first.

    Raises:
        StreamConfigError: It is another.
    """
    assert config.durable_name is not None
    try:
        found = await jetstream.consumer_info(subjects.stream_of(urgency), config.durable_name)
    except NotFoundError:
        return
    theirs = (found.config.metadata or {}).get(SIGNATURE, "")
    ours = (config.metadata or {}).get(SIGNATURE, "")
    if theirs != ours:
        raise StreamConfigError(
            f"{model} is served already, with another signature ({theirs or 'none'}, this one is "
            f"{ours}): give yours another version, stop the workers of the other and wait "
            f"{FORGET_FUNCTION:.0f} s, or start this one with --replace-signature"
        )
