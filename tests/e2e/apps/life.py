"""An app with a life, a class that loads, and calls that wait for a worker."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from millstream import App, Context

NOTES = Path(os.environ.get("LIFE_NOTES", os.devnull))


def note(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(f"{text}\n")


async def lifespan(app: App) -> AsyncIterator[None]:
    note("began")
    app.state.greeting = "hello"
    yield
    note("ended")


app = App("life", lifespan=lifespan)


@app.model("loaded")
class Loaded:
    def load(self, device: str) -> None:
        note(f"loaded on {device}")
        self._device = device

    def __call__(self, x: int) -> list[str]:
        return [self._device] * x


@app.model("patient", wait=True)
async def patient(who: str, context: Context) -> str:
    return f"{context.state.greeting} {who}"


@app.model("impatient")
async def impatient(who: str) -> str:
    return who
