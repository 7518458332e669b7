from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import callgrind, check, report, rows
from benchmarks.hot import FUNCTIONS, LOADS
from benchmarks.systems import BlazeRpc

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.alone


def test_a_quick_run_has_a_figure_in_every_row(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert [row["key"] for row in result["rows"]] == [row.key for row in rows.ROWS]
    for row, found in zip(rows.ROWS, result["rows"], strict=True):
        systems = {"millstream"} if row.ours else {"millstream", BlazeRpc.name, "grpclib"}
        assert set(found["systems"]) == systems
        for figure in found["systems"].values():
            assert figure["low"] <= figure["median"] <= figure["high"]
        if row.scenario != "start":
            assert found["systems"]["millstream"]["per_nats"] > 0
            assert found["systems"]["millstream"]["per_grpc"] >= 1
    assert result["hardware"]["cores"] >= 1
    assert result["versions"]["blazerpc"] == "2.2.1"
    assert "Millstream" in done.stdout


def test_the_table_goes_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert report.write_between_markers(page, "| new |\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n| new |\n{report.END}\nafter\n"
    page.write_text("no markers\n")
    assert not report.write_between_markers(page, "| new |\n")
    assert page.read_text() == "no markers\n"
    assert not report.write_between_markers(tmp_path / "missing.md", "")


def test_a_cost_may_rise_by_fifteen_percent_and_no_more() -> None:
    recorded = {"a": 1.0, "b": 1.0}
    assert check.worse({"a": 1.149, "b": 0.1, "new": 9.0}, recorded) == []
    assert check.worse({"a": 1.16}, recorded) == ["a: 1.16, recorded 1: +16%"]


def test_every_hot_function_runs() -> None:
    for make in FUNCTIONS.values():
        call = make()
        for index in range(3):
            call(index)


def test_every_load_is_counted() -> None:
    assert list(callgrind.LOAD_CALLS) == list(LOADS)


@pytest.mark.parametrize("name", LOADS)
def test_every_load_runs(name: str) -> None:
    """In a process of its own, whose collector it calms; a load checks what it gets."""
    command = [sys.executable, "-m", "benchmarks.hot", name, "1664"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
