"""A started engine that test after test listens to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import MillstreamError
from tests.engines.contract import Driver, Subject
from workers import bundled
from workers.engines.base import Output, Sink
from workers.engines.vllm import VllmEngine

SMALL = {"dtype": "float32", "enforce_eager": "true"}


def _nobody(_outputs: Sequence[Output]) -> None:
    pass


@dataclass(slots=True)
class Relay:
    """Hands an engine's outputs to whoever listens now.

    Attributes:
        engine: Started.
        sink: Who listens.
        deaths: What `died` was told.
    """

    engine: VllmEngine
    sink: Sink = _nobody
    deaths: list[MillstreamError] = field(default_factory=list)

    def take(self, outputs: Sequence[Output]) -> None:
        self.sink(outputs)

    def driver(self) -> Driver:
        """A fresh driver, which listens from now on."""
        loaded = self.engine._loaded
        assert loaded is not None
        tokenizer = loaded.tokenizer
        subject = Subject(
            self.engine,
            lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
            tuple(tokenizer.encode("é€𝄞ж", add_special_tokens=False)),
        )
        driver = Driver(subject)
        self.sink = driver.take
        return driver


async def start_engine(model: str = str(bundled.PATH), **args: str) -> Relay:
    relay = Relay(VllmEngine(model, "tiny", SMALL | args))
    await relay.engine.start(relay.take, relay.deaths.append)
    return relay


def changed_args(**args: Any) -> dict[str, str]:
    return SMALL | args
