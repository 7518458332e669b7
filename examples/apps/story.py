"""A streaming text function: `millstream up examples.apps.story:app`.

Call it with `millstream predict story hero=Mila`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from millstream import App

app = App()

TALE = "Once upon a time {hero} found a map. It led over the hills, and {hero} followed it home."


@app.model("story", idempotent=True)
async def story(hero: str, words_per_second: float = 20.0) -> AsyncIterator[str]:
    """Tell a story, word by word."""
    for word in TALE.format(hero=hero).split():
        yield word
        await asyncio.sleep(1 / words_per_second)
