"""Workers of functions: their life, what waits for them, what they refuse, how they reload."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from millstream import SyncClient
from shared.errors import InvalidRequest, Unavailable, UnknownModel
from tests.e2e.apps.serving import Foreign, Serving, serving
from tests.e2e.running import ROOT
from tests.eventually import eventually

LIFE = "tests.e2e.apps.life:app"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes") / "life.txt"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("workers"), LIFE_NOTES=str(notes)) as stack:
        yield stack


@pytest.fixture
def client(stack: Serving) -> Iterator[SyncClient]:
    with stack.client() as client:
        yield client


def module(folder: Path, parameters: str, body: str) -> Path:
    """A module with one function."""
    folder.mkdir(exist_ok=True)
    file = folder / "changing.py"
    file.write_text(
        "from millstream import App\n\napp = App()\n\n\n"
        f'@app.model("changing")\nasync def changing({parameters}) -> str:\n    return {body}\n'
    )
    return file


def test_an_app_lives_once_and_loads_once(stack: Serving, client: SyncClient, notes: Path) -> None:
    stack.start("alive", LIFE)
    assert client.predict("loaded", x=2) == ["cpu", "cpu"]
    assert client.predict("patient", who="you") == "hello you"
    assert notes.read_text().splitlines() == ["began", "loaded on cpu"]
    stack.stop("alive")
    assert notes.read_text().splitlines() == ["began", "loaded on cpu", "ended"]


def test_without_its_last_worker_a_function_is_unavailable_for_a_while(
    stack: Serving, client: SyncClient
) -> None:
    stack.start("leaving", LIFE)
    with Foreign(stack.target) as foreign:
        request = foreign.message("ImpatientRequest", who="you")
        assert foreign.unary("Impatient", request).result == "you"
        stack.stop("leaving")
        eventually(lambda: not client.model("impatient@1").workers, "the gateway knows")
        with pytest.raises(grpc.RpcError) as caught:
            foreign.unary("Impatient", request)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    details = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    retry = RetryInfo()
    assert any(one.Unpack(retry) for one in details.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    with pytest.raises(Unavailable):
        client.predict("impatient", who="you")


def test_a_function_may_wait_for_its_next_worker(stack: Serving, client: SyncClient) -> None:
    eventually(lambda: not client.model("patient@1").workers, "nobody serves it")
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(client.predict("patient", who="you")))
    waiting.start()
    eventually(
        lambda: 'millstream_gateway_sessions{class="standard",model="patient@1"' in stack.metrics(),
        "it waits",
    )
    stack.start("late", LIFE)
    waiting.join(20)
    assert answers == ["hello you"]
    stack.stop("late")


def test_another_signature_under_the_same_name_is_refused(stack: Serving, tmp_path: Path) -> None:
    module(tmp_path / "old", "x: int", "str(x)")
    module(tmp_path / "new", "x: int, y: int", "str(x + y)")
    stack.start("old", "changing:app", tmp_path / "old")
    stack.spawn("new", "changing:app", tmp_path / "new")
    assert stack.parts.wait("new", 20) == 3
    told = stack.parts.log("new")
    assert "changing@1" in told
    assert "signature" in told
    with stack.client() as client:
        assert client.predict("changing", x=1) == "1"
    stack.stop("old")


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("tests.e2e.apps.nothing:app", "there is no module"),
        ("tests.e2e.apps.life:nothing", "has no 'nothing'; it has tests.e2e.apps.life:app"),
    ],
)
def test_a_worker_says_what_is_wrong_with_its_app(stack: Serving, app: str, told: str) -> None:
    name = f"wrong-{app.rpartition(':')[2]}"
    stack.spawn(name, app)
    assert stack.parts.wait(name, 20) == 3
    assert told in stack.parts.log(name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("imported", "dial()"),
        ("lifespan", "async def life(app):\n    dial()\n    yield\n"
         "app = App(lifespan=life)\n@app.model('lifespan')\ndef serve() -> None: ..."),
        ("loaded", "app = App()\n@app.model('loaded')\nclass Serve:\n    def load(self):\n"
         "        dial()\n    def __call__(self) -> None: ..."),
    ],
)  # fmt: skip
def test_what_an_app_raises_at_its_start_is_for_the_log_alone(
    stack: Serving, client: SyncClient, tmp_path: Path, name: str, code: str
) -> None:
    begin = "from millstream import App\n"
    dial = "def dial():\n    raise ConnectionError('postgres://svc:hunter2@db')\n"
    (tmp_path / f"failing_{name}.py").write_text(begin + dial + code)
    stack.spawn(name, f"failing_{name}:app", tmp_path)
    assert stack.parts.wait(name, 20) == 3
    log = stack.parts.log(name)
    assert f'failing_{name}.py", line 3, in dial' in log
    assert "hunter2" in log
    assert "torch" not in log

    def reasons() -> list[str]:
        return [model.reason for model in client.models() if name in model.name]

    eventually(lambda: any(reasons()), "the gateway knows")
    [reason] = reasons()
    assert "ConnectionError; see the worker's log" in reason
    assert "hunter2" not in reason


def test_a_worker_reloads_what_has_changed(
    stack: Serving, client: SyncClient, tmp_path: Path
) -> None:
    pytest.importorskip("watchfiles")
    file = module(tmp_path, "name: str", "name")
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "workers", "changing:app", "--reload", "--name=reloading"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=stack.environment | {"PYTHONPATH": str(ROOT)},
        )
    try:

        def says(wanted: str, **inputs: Any) -> bool:
            try:
                answer: str = client.function("changing", deadline=5).predict(**inputs)
                return answer == wanted
            except (InvalidRequest, UnknownModel, Unavailable):
                assert worker.poll() is None, (tmp_path / "log").read_text()
                return False

        eventually(lambda: says("you", name="you"), "the function is served", 20)
        module(file.parent, "name: str, times: int = 2", "name * times")
        eventually(lambda: says("youyou", name="you"), "the change is served", 20)
        eventually(lambda: says("aaa", name="a", times=3), "the client has the new types")
    finally:
        worker.send_signal(signal.SIGINT)
        worker.wait(20)
