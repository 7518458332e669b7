"""A gateway and workers of apps as processes of their own, and a client that is not ours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from millstream import Client, SyncClient
from millstream.nats_server import NatsServer
from tests.eventually import eventually
from tests.integration.processes import Parts
from tests.ports import free_port

PACKAGE = "millstream.models.v1"


class Serving:
    """A gateway that runs, and workers of apps.

    Attributes:
        parts: The processes.
        environment: Of all of them.
        target: Of the gateway, for gRPC.
        http: Its URL, where it has the flag.
    """

    def __init__(self, parts: Parts, metrics: int, environment: Mapping[str, str]) -> None:
        self.parts = parts
        self.environment = dict(environment)
        told = parts.ready("gateway").splitlines()
        self.target, self.http = told[0], f"http://{told[-1]}"
        self._metrics = {"gateway": metrics}
        self._workers: dict[str, list[str]] = {}

    def spawn(self, name: str, app: str, *folders: Path) -> None:
        """Start a worker whose modules are found in these folders too; nobody waits for it."""
        port = self._metrics[name] = free_port()
        path = os.pathsep.join(map(str, folders))
        flags = [app, "--name", name, f"--metrics-port={port}"]
        self.parts.spawn(name, "workers", flags, PYTHONPATH=path)

    def until_served(self, *names: str) -> None:
        """Wait until these workers are ready, and the gateway knows it of all there are."""
        for name in names:
            self._workers[name] = self.parts.ready(name).splitlines()
        wanted = Counter(model for models in self._workers.values() for model in models)

        def known() -> bool:
            ready = {one.name: one.workers for one in client.models()}
            return all(ready.get(model, 0) >= count for model, count in wanted.items())

        with self.client() as client:
            eventually(known, f"{wanted} are known", 20)

    def start(self, name: str, app: str, *folders: Path) -> None:
        """Start a worker and wait until it serves."""
        self.spawn(name, app, *folders)
        self.until_served(name)

    def kill(self, name: str) -> None:
        """Kill a worker as a crash would."""
        os.kill(self.parts.pid(name), signal.SIGKILL)
        self.parts.wait(name)
        self.forget(name)

    def stop(self, name: str) -> None:
        """End a worker in order."""
        self.forget(name)
        self.parts.stop(name)

    def forget(self, name: str) -> None:
        """Wait for this worker no more."""
        self._workers.pop(name, None)

    def pids(self) -> set[int]:
        """Of the workers there are."""
        return {self.parts.pid(name) for name in self._workers}

    def client(self) -> SyncClient:
        return SyncClient(self.target)

    def metrics(self, name: str = "gateway") -> str:
        """What a process says at /metrics."""
        url = f"http://127.0.0.1:{self._metrics[name]}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def open_calls(self, model: str) -> int:
        """Calls of a function that the gateway has and that have not ended."""
        sample = rf'^millstream_gateway_sessions{{.*model="{model}".*}} (\d+)'
        return sum(map(int, re.findall(sample, self.metrics(), re.M)))

    def rss(self, name: str) -> int:
        """Bytes of memory that a process has."""
        pages = Path(f"/proc/{self.parts.pid(name)}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(folder: Path, *gateway: str, **environment: str) -> Iterator[Serving]:
    """A nats-server and a gateway with these flags, without workers yet."""
    with NatsServer(folder / "nats") as nats:
        environment = {"MILLSTREAM_NATS": nats.url, **environment}
        with Parts(folder, environment) as parts:
            metrics = free_port()
            hosts = ("--grpc-host", "127.0.0.1", "--http-host", "127.0.0.1")
            parts.gateway(*hosts, f"--metrics-port={metrics}", *gateway)
            yield Serving(parts, metrics, os.environ | environment)


async def held(client: Client, gate: Path) -> asyncio.Future[Any]:
    """A call of `one-by-one` that runs, and gives "first" once there is a file of that name."""
    call = asyncio.ensure_future(client.predict("one-by-one", name="first", gate=str(gate)))
    while not (await client.predict("seen")).get("ran first"):
        assert not call.done()
    return call


class Foreign:
    """Grpcio, which knows nothing of the functions but what reflection says.

    Args:
        target: The gateway.
        options: Of the channel.
    """

    def __init__(self, target: str, **options: Any) -> None:
        self.channel = grpc.insecure_channel(target, **options)
        self._database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self._database)

    def __enter__(self) -> Foreign:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def services(self) -> list[str]:
        return list(self._database.get_services())

    def message(self, name: str, /, **fields: Any) -> Any:
        """A message of the package `v1`."""
        return GetMessageClass(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def unary(self, service: str, request: Any, **options: Any) -> Any:
        """Call `Predict` and return the response's message."""
        call = self.channel.unary_unary(
            f"/{PACKAGE}.{service}/Predict",
            type(request).SerializeToString,
            type(self.message(f"{service}Response")).FromString,
        )
        return call(request, timeout=20, **options)

    def stream(self, service: str, request: Any, **options: Any) -> Any:
        """Call `PredictStream`: grpcio's call, which is an iterator."""
        call = self.channel.unary_stream(
            f"/{PACKAGE}.{service}/PredictStream",
            type(request).SerializeToString,
            type(self.message(f"{service}Response")).FromString,
        )
        return call(request, **{"timeout": 20} | options)

    def raw(self, path: str, data: bytes) -> bytes:
        """Call a unary method with bytes."""
        return bytes(self.channel.unary_unary(path)(data, timeout=20))
