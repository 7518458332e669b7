from __future__ import annotations

import os
from pathlib import Path

import pytest

from millstream import healthcheck


@pytest.mark.parametrize(
    ("age", "problem"), [(0.1, ""), (60.0, "last touched 60 s ago: the worker is not connected")]
)
def test_a_worker_is_well_while_its_ready_file_is_young(
    tmp_path: Path, age: float, problem: str
) -> None:
    file = tmp_path / "ready"
    file.touch()
    os.utime(file, (1000.0, 1000.0))
    found = healthcheck.check_worker(file, 1000.0 + age)
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_worker_without_a_model_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert healthcheck.main(["worker", "--ready-file", str(tmp_path / "none")]) == 1
    assert "the model is not loaded" in capsys.readouterr().out


def test_a_gateway_that_does_not_answer_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert healthcheck.main(["gateway", "--port", "9"]) == 1
    assert capsys.readouterr().out.strip()
