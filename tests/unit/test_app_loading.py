"""`module:attr` finds an app, or says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workers.app.engines import app_engines
from workers.app.loading import load_app
from workers.engines.base import ModelLoadError

GOOD = """
from millstream import App
app = App("shop")
other = 3
@app.model("echo")
def echo(text: str) -> str:
    return text
@app.model("echo", version="2")
def echo2(text: str) -> str:
    return text
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_an_app_of_the_working_directory_is_found(here: Path) -> None:
    (here / "ms_good.py").write_text(GOOD)
    assert load_app("ms_good:app").name == "shop"
    engines = app_engines("ms_good:app")
    assert [name for name, _ in engines] == ["echo@1", "echo@2"]
    assert engines[0][1].card.features == ("predict", "once")


@pytest.mark.parametrize(
    ("path", "code", "why"),
    [
        ("ms_none:app", None, "there is no module 'ms_none'"),
        ("ms_none.py:app", None, "without .py: ms_none"),
        ("ms_none", None, "want module:attribute, such as ms_none:app"),
        ("dir/ms_none.py:app", None, "such as dir.ms_none:app"),
        ("ms_other:app2", GOOD, "has no 'app2'; it has ms_other:app"),
        ("ms_type:other", GOOD, "is of type int: want an App"),
        ("ms_needs:app", "import ms_missing", "imports 'ms_missing', which is not installed"),
        ("ms_bad:app", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("ms_syntax:app", "def", "cannot be imported: SyntaxError"),
        ("ms_exit:app", "raise SystemExit(1)", "cannot be imported: SystemExit"),
        (
            "ms_wrong:app",
            "from millstream import App\napp = App()\n@app.model('x')\ndef f(x: set) -> str: ...",
            "model 'x', f: parameter 'x': set is not supported",
        ),
        ("ms_empty:app", "from millstream import App\napp = App()", "serves nothing"),
    ],
)
def test_what_is_wrong_is_said(here: Path, path: str, code: str | None, why: str) -> None:
    if code is not None:
        (here / f"{path.partition(':')[0]}.py").write_text(code)
    with pytest.raises(ModelLoadError, match=why):
        app_engines(path)
