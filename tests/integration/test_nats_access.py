"""deploy/nats: each role may do what it needs, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from millstream import Client, SyncClient
from shared import subjects
from tests.eventually import eventually
from tests.integration.certificates import Authority
from tests.integration.processes import START_LIMIT, Parts
from tests.integration.secure_nats import ROLES, SecureNats

TEXT = "".join(f" {k}" for k in range(300))

PUBLISH = {
    subjects.request("m", 1): "gateway",
    subjects.request("m", 0): "gateway",
    subjects.control("w"): "gateway",
    subjects.gateway("g"): "gateway worker",
    subjects.gateway_beat("g"): "gateway",
    subjects.CANCEL: "gateway",
    subjects.ASK: "gateway watcher",
    subjects.reply("g", "r"): "worker",
    subjects.heartbeat("w"): "worker",
    subjects.announcement("w"): "worker",
    "_INBOX_gateway.x.1": "gateway",
    "_INBOX_worker.x.1": "",
    "_INBOX_watcher.x.1": "",
    "_INBOX.x.1": "",
    "$JS.ACK.MS_REQ.c.1.2.3.4.5": "worker",
    "$JS.ACK.MS_RESUME.c.1.2.3.4.5": "worker",
    "$JS.ACK.OTHER.c.1.2.3.4.5": "",
    "$JS.API.INFO": "",
    "$JS.API.STREAM.LIST": "",
    "$JS.API.STREAM.NAMES": "",
    **{
        f"$JS.API.{call}.{stream}": who
        for stream in (subjects.STREAM, subjects.RESUME_STREAM)
        for call, who in {
            "STREAM.INFO": "gateway worker watcher",
            "STREAM.CREATE": "gateway worker",
            "STREAM.UPDATE": "gateway",
            "STREAM.MSG.GET": "gateway",
            "STREAM.MSG.DELETE": "gateway",
            "STREAM.DELETE": "",
            "STREAM.PURGE": "",
            "STREAM.SNAPSHOT": "",
            "DIRECT.GET": "",
            "CONSUMER.LIST": "",
            "CONSUMER.NAMES": "",
        }.items()
    },
    "$JS.API.CONSUMER.MSG.NEXT.MS_REQ.m_standard": "worker",
    "$JS.API.CONSUMER.CREATE.MS_REQ.m_standard.ms.req.m.standard": "worker",
    "$JS.API.CONSUMER.DURABLE.CREATE.MS_REQ.m_standard": "worker",
    "$JS.API.CONSUMER.DELETE.MS_REQ.m_standard": "",
    "$JS.API.CONSUMER.INFO.MS_REQ.m_standard": "worker",
    "$JS.API.CONSUMER.PAUSE.MS_REQ.m_standard": "",
    "$JS.API.CONSUMER.MSG.NEXT.OTHER.c": "",
    "$JS.API.STREAM.CREATE.OTHER": "",
    "$JS.API.STREAM.INFO.OTHER": "",
    "$SYS.REQ.SERVER.PING": "",
    "$SYS.ACCOUNT.APP.DISCONNECT": "",
    "ms.other": "",
    "other": "",
}
"""What may be published, by whom."""

SUBSCRIBE = {
    "ms.rep.g.*": "gateway",
    subjects.gateway("g"): "gateway",
    subjects.HEARTBEATS: "gateway watcher",
    subjects.ANNOUNCEMENTS: "gateway watcher",
    subjects.GATEWAY_BEATS: "gateway worker watcher",
    subjects.CANCEL: "gateway",
    subjects.DISCONNECTS: "gateway",
    subjects.control("w"): "worker",
    subjects.ASK: "worker",
    **{f"_INBOX_{role}.x.*": role for role in ROLES},
    "_INBOX.>": "",
    "ms.req.*.*": "",
    "ms.req.m.standard": "",
    "ms.rep.>": "",
    "ms.>": "",
    ">": "",
    "$JS.API.>": "",
    "$JS.ACK.>": "",
    "$SYS.>": "",
    "other": "",
}
"""What may be subscribed to, by whom."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNats]:
    with SecureNats(tmp_path_factory.mktemp("nats")) as running:
        yield running


async def violations(server: SecureNats, role: str, kind: str, tried: list[str]) -> list[str]:
    """Try all and return what was refused, with the connection kept."""
    refused: list[str] = []
    arrived = asyncio.Event()

    async def on_error(error: Exception) -> None:
        text = str(error)
        assert "permissions violation" in text, text
        assert f"{kind} to" in text, text
        refused.append(text.split('"')[1])
        if '"end"' in text:
            arrived.set()

    client = await server.connect(role, error_cb=on_error)
    for subject in [*tried, "end"]:  # Nobody may use the last: its refusal says that all were seen.
        if kind == "publish":
            await client.publish(subject, b"", reply="")
        else:
            await client.subscribe(subject)
    await client.flush()
    await asyncio.wait_for(arrived.wait(), 30)
    assert client.is_connected
    await client.close()
    return refused[:-1]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("kind", "table"), [("publish", PUBLISH), ("subscription", SUBSCRIBE)])
async def test_everything_forbidden_is_refused_and_all_else_works(
    server: SecureNats, role: str, kind: str, table: dict[str, str]
) -> None:
    forbidden = [subject for subject, who in table.items() if role not in who.split()]
    refused = await violations(server, role, kind, list(table))
    assert sorted(refused) == sorted(subject.lower() for subject in forbidden)


async def test_nobody_gets_in_without_a_key(server: SecureNats) -> None:
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        await nats.connect(server.url, tls=server.context(), allow_reconnect=False)


async def test_the_server_is_recognised_by_its_authority(
    server: SecureNats, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "another authority")
    told: list[Exception] = []

    async def on_error(error: Exception) -> None:
        told.append(error)

    from shared.tls import client_context

    with pytest.raises((nats.errors.Error, OSError)):
        await nats.connect(
            server.url,
            tls=client_context(ca=other.file),
            nkeys_seed=str(server.seed("gateway")),
            allow_reconnect=False,
            error_cb=on_error,
        )


def test_a_whole_stack_works_with_these_rights(server: SecureNats, tmp_path: Path) -> None:
    with Parts(tmp_path) as parts:
        target = parts.gateway(**server.settings("gateway"))
        worker = server.settings("worker") | {"MILLSTREAM_WORKER_ENGINE_ARGS": "step_ms=5"}
        for name in ("one", "two"):
            parts.worker(name, **worker)
        with SyncClient(target) as client:
            assert client.complete("x", model="sim", max_tokens=300).text == TEXT
        asyncio.run(cancelled(target))
        asyncio.run(moved(target, {name: parts.pid(name) for name in ("one", "two")}))
        for name in ("gateway", "one", "two"):
            assert "permissions violation" not in parts.log(name).lower()


async def cancelled(target: str) -> None:
    """A running request can be cancelled."""
    async with Client(target) as client:
        answer = client.generate("x", model="sim", max_tokens=10_000, request_id="victim")
        await anext(answer)
        await client.cancel("victim")
        with pytest.raises(Exception, match="cancelled"):
            async for _ in answer:
                pass


async def moved(target: str, pids: dict[str, int]) -> None:
    """An answer outlives the worker that began it."""
    async with Client(target) as client:
        answer = client.generate("x", model="sim", max_tokens=300, deadline=30.0)
        text = (await anext(answer)).text
        assert answer.started is not None
        os.kill(pids[answer.started.worker.rsplit("-", 1)[0]], signal.SIGKILL)
        async for delta in answer:
            text += delta.text
        assert text == TEXT
        assert answer.finished is not None
        assert answer.finished.attempts == 2


def test_a_process_without_rights_says_so(server: SecureNats, tmp_path: Path) -> None:
    with Parts(tmp_path, {**server.settings("worker"), "MILLSTREAM_NATS_NKEY": ""}) as parts:
        parts.spawn("gateway", "gateway", ["--grpc-port", "0"])
        eventually(
            lambda: "uthorization" in parts.log("gateway"), "it says what is wrong", START_LIMIT
        )
