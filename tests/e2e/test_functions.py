"""Functions served by a worker of an app, called through the whole stack."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from millstream import Media, SyncClient
from shared.errors import (
    DeadlineExceeded,
    EngineError,
    FunctionError,
    InvalidRequest,
    Unavailable,
    UnknownModel,
)
from tests.e2e.running import ROOT, START_LIMIT, RunningStack, run_millstream
from tests.e2e.shop import app
from tests.eventually import eventually


class Shop:
    """A stack, and a worker of `shop.py`."""

    def __init__(self, stack: RunningStack, log: Path) -> None:
        self.stack = stack
        self._log = log
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "workers", "tests.e2e.shop:app"]
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [*command, "--nats", self.stack.state["nats"]], cwd=ROOT, stdout=log, stderr=log
            )
        with SyncClient(self.stack.target) as client:
            try:
                eventually(lambda: self._is_served(client), "the functions are served", START_LIMIT)
            except AssertionError as error:
                seen = "\n".join(map(str, client.models()))
                raise AssertionError(
                    f"{error}; served are\n{seen}\nthe worker said\n{self.log}\n"
                    f"the stack said\n{self.stack.log}"
                ) from None

    def _is_served(self, client: SyncClient) -> bool:
        assert self._worker is not None
        assert self._worker.poll() is None, "the worker ended"
        served = {one.name for one in client.models() if one.engine == "app" and one.workers}
        return served == app.models.keys()

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.terminate()
            self._worker.wait(20)
            self._worker = None

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with RunningStack(folder / "data") as stack:
        shop = Shop(stack, folder / "worker.log")
        try:
            shop.start()
            yield shop
        finally:
            shop.stop()


@pytest.fixture
def client(shop: Shop) -> Iterator[SyncClient]:
    with SyncClient(shop.stack.target) as client:
        yield client


def counted(client: SyncClient) -> dict[str, int]:
    found: dict[str, int] = client.predict("counts")
    return found


def test_values_go_in_and_come_out(client: SyncClient) -> None:
    assert client.predict("greet@1", who="you", polite=True) == "good day you"
    when = datetime(2026, 11, 21, tzinfo=UTC)
    items: list[Any] = [{"what": "tea", "count": 2}, {"what": "milk"}]
    answer = client.predict("order", items=items, size="LARGE", when=when)
    assert answer == {"total": 3, "size": "LARGE", "day": "2026-11-22"}
    assert client.predict("order", items=[])["size"] == "SMALL"
    array = numpy.arange(6, dtype=numpy.float32).reshape(3, 2)
    numpy.testing.assert_array_equal(client.predict("scale", x=array), array * 2)


def test_a_name_alone_is_the_greatest_version(client: SyncClient) -> None:
    assert client.predict("greet", who="you") == "HELLO you"
    assert client.predict("greet@1", who="you") == "hello you"


def test_a_stream_comes_whole_and_in_order(client: SyncClient) -> None:
    assert list(client.stream("count", to=5000)) == list(range(5000))
    frames = list(client.stream("frames", picture=Media("image/gif", b"gif")))
    assert frames == [Media("image/gif", b"gif" + bytes([n])) for n in range(3)]


def test_wrong_input_is_refused_before_the_function(client: SyncClient) -> None:
    before = counted(client)["calls"]
    for name, inputs, field in (
        ("greet@1", {}, "who"),
        ("greet@1", {"who": 7}, "who"),
        ("greet@1", {"who": "you", "loud": True}, "loud"),
        ("scale", {"x": numpy.ones((3, 3), dtype=numpy.float32)}, "x.shape"),
        ("scale", {"x": numpy.ones((3, 2))}, "x.dtype"),
        ("order", {"items": [{"what": "tea"}, {"count": 1}]}, "items[1].what"),
        ("frames", {"picture": Media("audio/wav", b"")}, "picture.type"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            list(client.stream(name, **inputs)) if name == "frames" else client.predict(
                name, **inputs
            )
        assert caught.value.field == field
    with pytest.raises(UnknownModel, match="'nope'"):
        client.predict("nope")
    assert counted(client)["calls"] == before


def test_what_a_function_raises(shop: Shop, client: SyncClient) -> None:
    with pytest.raises(FunctionError, match="not on Sundays") as told:
        client.predict("fail", how="deliberately")
    assert told.value.code == 9
    (detail,) = Status.FromString(told.value.status).details
    stamp = Timestamp()
    assert detail.Unpack(stamp)
    assert stamp.seconds == 7
    with pytest.raises(EngineError, match="KeyError") as failed:
        client.function("fail", request_id="bug-1").predict(how="badly")
    assert "secret" not in failed.value.message
    assert "bug-1" in failed.value.message
    logged = shop.log
    assert "a secret" in logged
    assert "bug-1" in logged


def test_the_context_has_what_was_sent(client: SyncClient) -> None:
    function = client.function("told", request_id="told-1", metadata={"x-user": "me"})
    assert function.predict() == ["told-1", "me"]


def test_a_generator_waits_for_its_reader_and_ends_with_it(client: SyncClient) -> None:
    before = counted(client)["ended"]
    with client.stream("endless", size=65536) as items:
        assert next(items) == bytes(65536)

        def still() -> bool:
            made = counted(client)["made"]
            time.sleep(0.3)
            return made > 0 and counted(client)["made"] == made

        eventually(still, "the generator waits")
        assert counted(client)["made"] < 400
        assert len([next(items) for _ in range(500)]) == 500
    eventually(lambda: counted(client)["ended"] == before + 1, "its finally ran")


def test_the_deadline_ends_the_function(client: SyncClient) -> None:
    before = counted(client)["ended"]
    with pytest.raises(DeadlineExceeded):
        client.function("slow", deadline=3).predict()  # Time enough to begin.
    eventually(lambda: counted(client)["ended"] == before + 1, "its finally ran")


def test_the_command_line(shop: Shop, tmp_path: Path) -> None:
    target = ("--target", shop.stack.target)
    done = run_millstream("predict", "greet@1", "who=you", *target)
    assert (done.returncode, done.stdout) == (0, "hello you\n"), done.stderr
    done = run_millstream("predict", "count", "to=3", "--json", *target)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n"), done.stderr
    done = run_millstream("predict", "order", 'items=[{"what": "tea"}]', "--json", *target)
    assert json.loads(done.stdout) == {"total": 1, "size": "SMALL", "day": "2026-01-02"}
    done = run_millstream("models", *target)
    assert ["greet@2", "ready", "1", "app", "-", "-"] in [
        line.split()[:6] for line in done.stdout.splitlines()
    ]
    done = run_millstream("proto", "order", "--out", str(tmp_path), *target)
    assert done.returncode == 0, done.stderr
    written = [str(Path(line).relative_to(tmp_path)) for line in done.stdout.splitlines()]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={tmp_path}"]
    compiled = subprocess.run(
        [*protoc, f"--python_out={tmp_path}", *written], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr


def test_a_worker_goes_and_comes(shop: Shop, client: SyncClient) -> None:
    assert client.predict("greet@1", who="you") == "hello you"
    shop.stop()
    eventually(lambda: not client.model("greet@1").workers, "the gateway knows")
    with pytest.raises(Unavailable) as caught:
        client.predict("greet@1", who="you")
    assert caught.value.retry_after
    shop.start()
    assert client.predict("greet@1", who="you") == "hello you"
