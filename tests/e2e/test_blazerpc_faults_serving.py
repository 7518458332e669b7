"""The faults of BlazeRPC 2.2.1 in how it serves: threads, stops, processes, versions, clients."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access import Limits
from gateway.access.keys import changing
from millstream import Client, SyncClient
from shared.errors import DeadlineExceeded, Overloaded, Unauthenticated
from shared.tls import client_context
from tests.e2e.apps.serving import PACKAGE, Foreign, Serving, held, serving
from tests.e2e.running import run_millstream
from tests.eventually import eventually, until
from tests.integration.certificates import Authority

pytestmark = pytest.mark.alone

SMALL = "tests.e2e.apps.small:app"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("faults"), "--max-queue", "16") as stack:
        stack.spawn("blaze", "tests.e2e.apps.blazerpc:app")
        stack.spawn("small", SMALL)
        stack.until_served("blaze", "small")
        yield stack


@pytest.fixture
def client(stack: Serving) -> Iterator[SyncClient]:
    with stack.client() as client:
        yield client


def test_a_sync_generator_does_not_block_its_server(client: SyncClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = client.stream("held-words", text="a b c", gate=str(gate))
    assert next(words) == "a"
    for _ in range(5):
        assert client.predict("echo", text="a") == "aa"
    gate.touch()
    assert list(words) == ["b", "c"]


async def test_sync_generators_run_beside_each_other(stack: Serving, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Client(stack.target) as client:
        streams = [client.stream("held-words", text="a b c", gate=str(gate)) for _ in range(5)]
        assert [await anext(words) for words in streams] == ["a"] * 5
        gate.touch()  # All have begun before one may end.
        assert [[word async for word in words] for words in streams] == [["b", "c"]] * 5


@pytest.mark.parametrize("name", ["count", "plain"])
def test_both_annotations_of_a_stream_work(client: SyncClient, name: str) -> None:
    assert list(client.stream(name, to=3)) == ["0", "1", "2"]


def test_a_stop_drains_what_runs(stack: Serving, client: SyncClient, tmp_path: Path) -> None:
    stack.start("drained", SMALL)
    gate = tmp_path / "gate"
    pid = stack.parts.pid("drained")
    while True:
        items = client.stream("processes", n=6, gate=str(gate))
        if next(items) == pid:
            break
        items.cancel()
    os.kill(pid, signal.SIGTERM)
    stack.forget("drained")
    eventually(lambda: "draining" in stack.parts.log("drained"), "it drains")
    gate.touch()
    assert list(items) == [pid] * 5
    assert stack.parts.wait("drained") == 0


def test_several_workers_are_several_processes(stack: Serving) -> None:
    stack.start("second", SMALL)

    async def processes() -> set[int]:
        async with Client(stack.target) as client:
            return set(await asyncio.gather(*(client.predict("process") for _ in range(16))))

    want = {stack.parts.pid("small"), stack.parts.pid("second")}
    eventually(lambda: asyncio.run(processes()) == want, "both work")
    stack.stop("second")


def test_two_versions_are_served_side_by_side(stack: Serving, client: SyncClient) -> None:
    with Foreign(stack.target) as foreign:
        answer = foreign.unary("Greet", foreign.message("GreetRequest", who="you"))
        services = set(foreign.services())
    assert answer.result == "hello you"
    assert {f"{PACKAGE}.Greet", "millstream.models.v2.Greet", "millstream.models.Greet"} <= services
    assert client.predict("greet@2", who="you", marks=2) == "HELLO you!!"


@pytest.mark.parametrize("name", ["greet", "greet@1", "class", "my-odd_name"])
def test_an_exported_proto_compiles(stack: Serving, tmp_path: Path, name: str) -> None:
    done = run_millstream("proto", name, "--out", str(tmp_path), "--target", stack.target)
    assert done.returncode == 0, done.stderr
    written = [str(Path(line).relative_to(tmp_path)) for line in done.stdout.splitlines()]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={tmp_path}"]
    compiled = subprocess.run(
        [*protoc, f"--python_out={tmp_path}", *written], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr


def test_odd_names_are_valid_identifiers(stack: Serving, client: SyncClient) -> None:
    assert client.predict("class", def_=7) == 7
    assert client.predict("my-odd_name", x=7) == 7
    with Foreign(stack.target) as foreign:
        assert {f"{PACKAGE}.Class", f"{PACKAGE}.MyOddName"} <= set(foreign.services())


def test_the_client_has_tls_and_keys(stack: Serving, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("server")
    keys = tmp_path / "keys.json"
    with changing(keys) as book:
        book.tenants["me"] = Limits()
        secret = book.create("me")
    stack.parts.spawn(
        "guarded",
        "gateway",
        ["--name=guarded", "--grpc-port=0", "--grpc-host=127.0.0.1", "--max-queue=16",
         f"--api-keys={keys}", f"--tls-cert={pair.certificate}", f"--tls-key={pair.key}"],
    )  # fmt: skip
    target = stack.parts.ready("guarded").splitlines()[0]
    tls = client_context(ca=authority.file)
    with SyncClient(target, tls=tls, api_key=secret) as client:
        eventually(
            lambda: "echo@1" in {one.name for one in client.models(deadline=5)},
            "it knows the function",
        )
        assert client.predict("echo", text="a") == "aa"
    with SyncClient(target, tls=tls) as client, pytest.raises(Unauthenticated):
        client.predict("echo", text="a")
    stack.parts.stop("guarded")


def test_the_client_has_deadlines_and_metadata(client: SyncClient) -> None:
    function = client.function("told", metadata={"x-user": "Mila"}, deadline=20)
    assert function.predict()["user"] == "user Mila"
    with pytest.raises(DeadlineExceeded):
        client.function("nap", deadline=0.1).predict(seconds=0.5)


async def test_admission_has_a_limit(stack: Serving, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Client(stack.target) as client:
        first = await held(client, gate)
        calls = [asyncio.ensure_future(client.predict("one-by-one", name="a")) for _ in range(60)]
        await until(lambda: sum(call.done() for call in calls) > 20, "they are refused")
        gate.touch()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert await first == "first"
    refused = [one for one in done if isinstance(one, Overloaded)]
    assert len(refused) > 20
    assert all(one.retry_after for one in refused)
    assert len(refused) + done.count("a") == 60
