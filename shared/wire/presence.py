"""Who is there and what it serves, to whoever listens: on ms.hb, ms.ann and ms.gwhb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker lives, on ms.hb.<worker>, every 100 ms.

    Attributes:
        worker: Its id.
        seq: Counts up from 0.
        model: The served name.
        state: loading, ready, draining, failed.
        steps: The engine's step counter.
        running: Jobs that the engine has.
        limit: Requests it would run at once now.
        waiting: Requests in the engine's own queue.
        kv_used: Fraction of the KV cache.
        tokens: Tokens published since the start.
    """

    worker: str
    seq: int
    model: str
    state: str
    steps: int
    running: int
    limit: int
    waiting: int = 0
    kv_used: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a worker serves.

    Attributes:
        name: The served name, which requests use.
        engine: sim, torch, vllm.
        context_length: Tokens of prompt and answer together, at most.
        vocab_size: Token ids are below it.
        dtype: The number type it computes in.
        fingerprint: Name, revision and tokenizer in one string; a continuation needs the same.
        features: What it can do, in the words of `shared.features`.
        max_batch: Requests the engine runs at once, at most.
        signature: Of a function: see `shared.typed.dump`. Empty for a language model.
    """

    name: str
    engine: str
    context_length: int
    vocab_size: int
    dtype: str
    fingerprint: str
    features: tuple[str, ...] = ()
    max_batch: int = 1
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Announce:
    """What a worker serves, on ms.ann.<worker>: at start, on change, when asked, every 2 s.

    Attributes:
        worker: Its id.
        boot: The upper bits of its execs: see `wire.BOOT_SHIFT`.
        name: The name that outlives a restart.
        state: loading, ready, draining, failed, gone.
        card: The model; None while nothing is known of it.
        model: The served name.
        reason: Why it failed.
        connection: Its NATS connection, as the server's disconnect events name it, or "".
    """

    worker: str
    boot: int
    name: str
    state: str
    model: str
    card: ModelCard | None = None
    reason: str = ""
    connection: str = ""


@dataclass(frozen=True, slots=True)
class GatewayBeat:
    """A gateway lives, on ms.gwhb.<gateway>, every 500 ms.

    Attributes:
        gateway: Its id.
        gone: It stops, cleanly.
        slices: It takes a long `Digest` in slices, which earlier ones would take for all.
    """

    gateway: str
    gone: bool = False
    slices: bool = False
