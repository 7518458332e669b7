"""What the load client is told and what it tells: lines of JSON between two processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What to call, how often, and how much of it at once.

    Attributes:
        concurrency: Requests in flight.
        requests: In all; the next begins when one ends.
        tokens: Tokens of each answer, which the client checks.
        waves: Begin the next `concurrency` requests when the last of a wave has ended, 10 ms later.
        connections: The requests are dealt out over so many.
        pace_ms: What the engine waits between two tokens; 0 is free-running.
        ramp_ms: Between two hundreds of requests; 0 is all at once.
    """

    concurrency: int
    requests: int
    tokens: int
    waves: bool = False
    connections: int = 1
    pace_ms: float = 0.0
    ramp_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """A load for one system.

    Attributes:
        host: Where it listens.
        port: The same.
        path: The method.
        request: The message, in hexadecimal.
        wrapped: Whether each answer lies in field 1 of another message.
        load: What to do.
    """

    host: str
    port: int
    path: str
    request: str
    wrapped: bool
    load: Load

    def line(self) -> str:
        """The order as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Order:
        """Read what `line` wrote."""
        values = json.loads(line)
        return cls(**{**values, "load": Load(**values["load"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load showed.

    Attributes:
        tokens: Tokens received, every one in order.
        messages: gRPC messages that carried them.
        frames: DATA frames that carried those.
        seconds: From the first request to the last end.
        ttft_ms: Per request, from its writing to its first token.
        late_ms: Per token but the first, by how much its gap exceeds the engine's pace.
        cpu_seconds: The client's own, for the load without the checks.
    """

    tokens: int
    messages: int
    frames: int
    seconds: float
    ttft_ms: list[float]
    late_ms: list[float]
    cpu_seconds: float

    def line(self) -> str:
        """The outcome as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Outcome:
        """Read what `line` wrote."""
        return cls(**json.loads(line))
