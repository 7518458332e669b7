"""What was measured at one concurrency, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """The load: `users` at once, each asking one thing after another.

    Attributes:
        users: Requests in flight.
        each: Requests of one user.
        prompt: Tokens of a prompt.
        answer: Tokens of an answer.
        vocabulary: Prompts are made of ids from 3 up to this.
    """

    users: int
    each: int
    prompt: int
    answer: int
    vocabulary: int

    def ids(self, user: int, number: int) -> tuple[int, ...]:
        """A prompt that no other request has."""
        state = user * 7919 + number * 104729 + 1
        ids = []
        for _ in range(self.prompt):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            ids.append(3 + (state >> 33) % (self.vocabulary - 3))
        return tuple(ids)


@dataclass(slots=True)
class Point:
    """What a load showed.

    Attributes:
        users: Requests in flight.
        tokens: Tokens received.
        seconds: From the first request to the last end.
        ttft: Seconds to the first token, of each request.
        cpu: CPU seconds of each process.
        steps: Steps of the engine, where they are known.
    """

    users: int
    tokens: int
    seconds: float
    ttft: Sequence[float]
    cpu: dict[str, float] = field(default_factory=dict)
    steps: int | None = None

    def summary(self) -> dict[str, object]:
        """Figures for JSON."""
        return {
            "users": self.users,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "ttft_p50_ms": round(1e3 * quantile(self.ttft, 0.5), 2),
            "ttft_p99_ms": round(1e3 * quantile(self.ttft, 0.99), 2),
            "cpu_us_per_token": {
                name: round(1e6 * spent / self.tokens, 2) for name, spent in self.cpu.items()
            },
            "steps": self.steps,
        }


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def table(title: str, rows: Sequence[tuple[str, dict[str, object]]]) -> str:
    """A Markdown table of summaries."""
    lines = [
        f"### {title}",
        "",
        "| users | way | tokens/s | TTFT p50 ms | TTFT p99 ms | CPU us/token |",
        "| ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for way, one in rows:
        cpu = one["cpu_us_per_token"]
        shown = ", ".join(f"{k} {v}" for k, v in cpu.items()) if isinstance(cpu, dict) else ""
        lines.append(
            f"| {one['users']} | {way} | {one['tokens_per_second']} | {one['ttft_p50_ms']} "
            f"| {one['ttft_p99_ms']} | {shown} |"
        )
    return "\n".join(lines)
