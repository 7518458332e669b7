"""Whether a gateway serves what the local stack runs, as a client of it sees that."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.client import Client
from shared.errors import Unauthenticated, Unavailable, UnknownModel

LIMIT = 2.0
"""Seconds a question may take."""


async def missing(client: Client, models: Sequence[str], workers: int) -> str:
    """What the gateway does not serve yet, or "".

    A gateway that wants a key tells others which models can be called, not how many workers run.

    Args:
        client: Of the gateway; the key it has, if any, need not be a good one.
        models: Served names.
        workers: Of each of them.
    """
    try:
        listed = await client.models(deadline=LIMIT)
    except Unavailable as error:
        return error.message
    except Unauthenticated:
        unhealthy = [name for name in models if not await _healthy(client, name)]
        return f"it does not serve {', '.join(unhealthy)}" if unhealthy else ""
    ready = {one.name: one.workers for one in listed if one.state == "ready"}
    if all(ready.get(name, 0) >= workers for name in models):
        return ""
    return f"it sees {ready or 'no model'}, want {workers} workers each of {', '.join(models)}"


async def _healthy(client: Client, model: str) -> bool:
    try:
        return await client.health(f"models/{model}", deadline=LIMIT)
    except (Unavailable, UnknownModel):
        return False
