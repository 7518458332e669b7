"""`millstream up MODULE:APP` again, after the code has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream import SyncClient
from tests.e2e.running import RunningStack


def write(file: Path, parameters: str, body: str) -> None:
    file.write_text(
        "from millstream import App\n\napp = App()\n\n\n"
        f'@app.model("adding")\nasync def adding({parameters}) -> int:\n    return {body}\n'
    )


def test_a_changed_signature_is_served_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Two versions within a second.
    file = tmp_path / "adding.py"
    write(file, "x: int", "x")
    stack = RunningStack(tmp_path / "data", "adding:app")
    with stack, SyncClient(stack.target) as client:
        assert client.predict("adding", x=1) == 1
    write(file, "x: int, y: int", "x + y")
    with stack, SyncClient(stack.target) as client:
        assert client.predict("adding", x=1, y=2) == 3
