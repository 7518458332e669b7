"""`module:attr` finds an app, or says why not."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest
from structlog.testing import capture_logs

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
            "ms_wrong cannot be imported: TypeError; see the worker's log",
        ),
        ("ms_odd:app", "raise ModuleNotFoundError('gone')", "imported: ModuleNotFoundError"),
        ("ms_empty:app", "from millstream import App\napp = App()", "serves nothing"),
    ],
)
def test_what_is_wrong_is_said(here: Path, path: str, code: str | None, why: str) -> None:
    if code is not None:
        (here / f"{path.partition(':')[0]}.py").write_text(code)
    with pytest.raises(ModelLoadError, match=why):
        app_engines(path)


def test_what_a_module_raises_is_for_the_log_alone(here: Path) -> None:
    (here / "ms_secret.py").write_text(
        "def dial(url):\n    raise OSError(url)\ndial('db:hunter2')\n"
    )
    with capture_logs() as lines, pytest.raises(ModelLoadError) as raised:
        load_app("ms_secret:app")
    assert str(raised.value) == (
        "ms_secret:app: ms_secret cannot be imported: OSError; see the worker's log"
    )
    [line] = lines
    assert (line["event"], line["app"]) == ("import_failed", "ms_secret:app")
    told = "".join(traceback.format_exception(line["exc_info"]))
    assert 'ms_secret.py", line 2, in dial' in told
    assert "OSError: db:hunter2" in told


def test_a_module_that_is_not_there_has_no_traceback(here: Path) -> None:
    with capture_logs() as lines, pytest.raises(ModelLoadError):
        load_app("ms_nowhere:app")
    assert lines == []
