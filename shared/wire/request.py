"""The request and what it is made of, on ms.req.<model>.<class>: queued by a gateway."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen and when to stop; None is the model's default.

    Ranges are checked at the gateway: temperature [0, 2], 0 is greedy; top_p (0, 1]; top_k from 0,
    0 is all; min_p [0, 1]; penalties [-2, 2]; repetition_penalty above 0; logprobs 0 to 20 top
    candidates, None is no log probabilities; n 1 to 16 choices.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int | None = None
    ignore_eos: bool = False
    n: int = 1


@dataclass(frozen=True, slots=True)
class Structured:
    """What may be generated.

    Attributes:
        kind: json_schema, regex, choices or grammar.
        text: The schema, expression or grammar; "" for choices.
        choices: The strings of which one is to be generated.
    """

    kind: str
    text: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt at a request.

    Attributes:
        id: ULID, never reused.
        attempt: Minted by the gateway, from 0.
        gateway: Who holds the client.
        request_id: The client's name for it.
        model: The served name.
        prompt: One of the three inputs is set.
        messages: The second.
        token_ids: The third; on a continuation always this one.
        sampling: How to sample.
        urgency: 0 resume, 1 interactive, 2 standard, 3 batch: the class the client asked for.
        delivered: Per choice, the ids the client has; empty on a first attempt.
        fingerprint: Of the model that began, on a continuation.
        labels: The client's.
        traceparent: W3C trace context, or "".
        tenant: Whose it is.
        structured: What the answer is restricted to, or None.
        adapter: The LoRA adapter, or "".
        deaths: Workers that died, or seem to have, while they ran it.
        call: A function's serialized request message; None for a generation.
        metadata: Of the client's call, for the function's context.
        after_items: Of a continued function: whole items that the client has.
        after_parts: And how many parts those were.
        untaken: Bytes of them that the client has not taken: the continuation's window is so much
            smaller until it has.
        ready: Whether the gateway takes tokens with the client's message ready: see `token.py`.
    """

    id: str
    attempt: int
    gateway: str
    request_id: str
    model: str
    prompt: str | None
    messages: tuple[Message, ...] | None
    token_ids: tuple[int, ...] | None
    sampling: Sampling
    urgency: int = 2
    delivered: tuple[tuple[int, ...], ...] = ()
    fingerprint: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    traceparent: str = ""
    tenant: str = ""
    structured: Structured | None = None
    adapter: str = ""
    deaths: int = 0
    call: bytes | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    after_items: int = 0
    after_parts: int = 0
    untaken: int = 0
    ready: bool = False
