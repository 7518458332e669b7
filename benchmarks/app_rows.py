"""What `benchmarks.apps` tells of its samples: rows, and the table made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.app_client import CallOutcome
from benchmarks.systems import BLAZERPC

ROLES = ("gateway", "broker", "worker")
COLUMNS = {
    "once": "Millstream",
    "idempotent": "Millstream, `idempotent=True`",
    "blazerpc": f"BlazeRPC {BLAZERPC}",
    "batching": f"BlazeRPC {BLAZERPC}, batching",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What one repetition showed.

    Attributes:
        cpu_us: Microseconds of CPU a message, by role, and of all as "servers".
        outcome: What the client saw.
    """

    cpu_us: dict[str, float]
    outcome: CallOutcome


Samples = dict[tuple[str, str], list[Sample]]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        key: In the JSON.
        title: In the table.
        scenario: What it is measured in.
        value: Its value of one repetition.
    """

    key: str
    title: str
    scenario: str
    value: Callable[[Sample], float]


def _rate(sample: Sample) -> float:
    return sample.outcome.messages / sample.outcome.seconds


def _first(sample: Sample) -> float:
    return statistics.median(sample.outcome.first_ms)


def _call(sample: Sample) -> float:
    return statistics.median(sample.outcome.call_ms)


def _wave(sample: Sample) -> float:
    return statistics.median(sample.outcome.wave_ms)


def _cpu(role: str) -> Callable[[Sample], float]:
    return lambda sample: sample.cpu_us.get(role, float("nan"))


def _rows_of_streams(key: str, what: str) -> list[Row]:
    return [
        Row(f"{key}_rate", f"{what}: messages/s", key, _rate),
        Row(f"{key}_first", f"{what}: first message, p50 (ms)", key, _first),
        Row(f"{key}_cpu", f"{what}: server CPU a message (us)", key, _cpu("servers")),
        *(
            Row(f"{key}_{role}", f"\N{NO-BREAK SPACE}of which {role} (us)", key, _cpu(role))
            for role in ROLES
        ),
    ]


ROWS = (
    *_rows_of_streams("stream1", "1 stream of 256"),
    *_rows_of_streams("stream16", "16 streams of 256"),
    *_rows_of_streams("stream64", "64 streams of 256"),
    *_rows_of_streams("burst16", "16 streams that never pause"),
    Row("lone_call", "unary, alone: p50 (ms)", "lone", _call),
    Row("flight_rate", "unary, 16 in flight: calls/s", "flight", _rate),
    Row("flight_cpu", "unary, 16 in flight: server CPU a call (us)", "flight", _cpu("servers")),
    *(
        Row(f"flight_{role}", f"\N{NO-BREAK SPACE}of which {role} (us)", "flight", _cpu(role))
        for role in ROLES
    ),
    Row("nap_wall", "8 sync calls of 300 ms at once: wall time (ms)", "nap", _wave),
)


def rows_of(samples: Samples) -> list[dict[str, Any]]:
    """The rows as JSON takes them."""
    found = []
    for row in ROWS:
        columns = {}
        for column in COLUMNS:
            values = [row.value(sample) for sample in samples.get((row.scenario, column), [])]
            if values and values[0] == values[0]:
                columns[column] = {"median": statistics.median(values), "values": values}
        found.append({"key": row.key, "title": row.title, "columns": columns})
    return [row for row in found if row["columns"]]


def markdown(result: dict[str, Any]) -> str:
    """The table, with what it was measured on."""
    lines = [
        "| median of a run | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for row in result["rows"]:
        cells = [_number(row["columns"].get(column)) for column in COLUMNS]
        title = row["title"].replace("(us)", "(\N{MICRO SIGN}s)")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    machine = result["hardware"]
    return "\n".join(lines) + (
        f"\n\n`{result['command']}` at {result['commit']}, {result['date'][:10]}: median of "
        f"{result['repetitions']} rounds, the systems by turns, on {machine['cores']} cores of "
        f"{machine['cpu']} that are shared with the load client; CPU by the processes' own "
        "clocks. Millstream is gateway, NATS server and worker; BlazeRPC is one process.\n"
    )


def _number(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    value = figure["median"]
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
