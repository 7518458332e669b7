"""The functions that `benchmarks.apps` calls, here and in BlazeRPC: the very same code.

The annotations are BlazeRPC 2.2.1's, which breaks on `AsyncIterator[str]` and on strings.
"""

import asyncio
import time

WORDS = 256


async def words(count: int) -> str:  # type: ignore[misc]  # A stream, as BlazeRPC annotates it.
    """Stream short messages, and let others have the loop after each, as one that works does."""
    for index in range(count):
        await asyncio.sleep(0)
        yield f"word {index}"


async def burst(count: int) -> str:  # type: ignore[misc]
    """Stream short messages without a pause."""
    for index in range(count):
        yield f"word {index}"


async def echo(text: str) -> str:
    """Return what is given."""
    return text


def nap(seconds: float) -> float:
    """Block a thread."""
    time.sleep(seconds)
    return seconds
