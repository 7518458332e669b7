"""The whole stack on this machine: nats-server, gateway and workers under one supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

from millstream.children import Child, ChildError, Echo, NatsChild, PythonChild
from millstream.client import Client
from millstream.healthcheck import tls_of
from millstream.nats_server import NatsServer, NatsServerError
from millstream.readiness import missing
from millstream.stack_options import KILL_AFTER, RestartPolicy, StackError, StackOptions, check_port
from shared.errors import MillstreamError


class Stack:
    """Starts the processes, keeps them up, and ends them in order.

    Args:
        options: What to run.
        echo: Gets what the processes write.

    Attributes:
        target: Of the gateway's gRPC port; valid once started.
        nats_url: Where NATS is; valid once started.
        models: The served names; valid once started.
        http: The URL of the HTTP edge, or ""; valid once started.
    """

    def __init__(self, options: StackOptions, echo: Echo) -> None:
        self._options = options
        self._echo = echo
        self._data_dir = options.data_dir.expanduser().resolve()
        self._lock: IO[str] | None = None
        self._nats: NatsChild | None = None
        self._gateway: PythonChild | None = None
        self._workers: list[PythonChild] = []
        self._watching: list[asyncio.Task[None]] = []
        self.target = ""
        self.http = ""
        self.nats_url = options.nats or ""
        self.models: tuple[str, ...] = ()

    @property
    def children(self) -> list[Child]:
        """All processes, in the order in which they are started."""
        return [c for c in (self._nats, self._gateway, *self._workers) if c is not None]

    async def start(self) -> None:
        """Start everything and wait until every worker serves through the gateway.

        Raises:
            StackError: Something cannot be had; what was started is stopped.
        """
        options = self._options
        deadline = time.monotonic() + options.ready_seconds
        self._claim_data_dir()
        check_port(options.grpc_host, options.grpc_port, "--grpc-port")
        if options.http_port is not None:
            check_port(options.grpc_host, options.http_port, "--http-port")
        try:
            await self._start_nats(deadline)
            await self._start_python(deadline)
            await self._seen_by_a_client(deadline)
        except (ChildError, NatsServerError, MillstreamError) as error:
            await self.close(grace=0.0)
            raise StackError(str(error)) from error
        except BaseException:
            await self.close(grace=0.0)
            raise
        self._write_state()

    def client(self) -> Client:
        """A client of the gateway, as its TLS wants it; the key is that of MILLSTREAM_API_KEY."""
        tls = tls_of(dict(os.environ))
        return Client(self.target, tls=tls, api_key=os.environ.get("MILLSTREAM_API_KEY"))

    async def serve(self) -> None:
        """Keep the processes up; returns only by cancellation.

        Raises:
            StackError: One of them does not stay up.
        """
        self._watching = [asyncio.create_task(self._keep_up(child)) for child in self.children]
        try:
            done, _ = await asyncio.wait(self._watching, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._stop_watching()

    async def close(self, grace: float | None = None) -> None:
        """Drain the gateway, then the workers, then stop nats-server."""
        grace = self._options.drain_grace if grace is None else grace
        await self._stop_watching()
        kill_after = grace + KILL_AFTER
        if self._gateway is not None:
            await self._gateway.stop(kill_after)
        await asyncio.gather(*(worker.stop(kill_after) for worker in self._workers))
        if self._nats is not None:
            await self._nats.stop(KILL_AFTER)
        if self._lock is not None:
            self._state_file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """End every process at once; `close` then returns soon."""
        for child in self.children:
            child.kill()

    # ---- starting -------------------------------------------------------------------------------

    def _claim_data_dir(self) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            lock = (self._data_dir / "lock").open("w")
        except OSError as error:
            raise StackError(f"cannot use {self._data_dir} ({error}): see --data-dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StackError(
                f"another stack runs in {self._data_dir}: stop it, or choose another --data-dir"
            ) from error
        self._lock = lock

    async def _start_nats(self, deadline: float) -> None:
        if self._options.nats is not None:
            return
        check_port("127.0.0.1", self._options.nats_port, "--nats-port")
        server = NatsServer(self._data_dir / "nats", port=self._options.nats_port)
        self._nats = NatsChild(server)
        await self._nats.start()
        self.nats_url = await self._nats.ready(deadline)

    async def _start_python(self, deadline: float) -> None:
        self._gateway = self._child("gateway", "gateway", self._gateway_flags())
        self._workers = [
            self._child(f"worker-{number}", "workers", self._worker_flags(f"worker-{number}"))
            for number in range(1, self._options.workers + 1)
        ]
        for child in (self._gateway, *self._workers):
            await child.start()
        address, *models = await asyncio.gather(
            *(child.ready(deadline) for child in (self._gateway, *self._workers))
        )
        grpc, *http = address.split("\n")
        self.target = _connectable(grpc)
        scheme = "https" if os.environ.get("MILLSTREAM_GATEWAY_TLS_CERT") else "http"
        self.http = f"{scheme}://{_connectable(http[0])}" if http else ""
        self.models = tuple(sorted({name for told in models for name in told.split("\n")}))
        self._keep_port(self._gateway, "--grpc-port", grpc)
        if http:
            self._keep_port(self._gateway, "--http-port", http[0])

    @staticmethod
    def _keep_port(child: PythonChild, flag: str, address: str) -> None:
        """A restarted gateway listens where its clients look for it."""
        child.arguments[child.arguments.index(flag) + 1] = address.rsplit(":", 1)[1]

    def _child(self, name: str, module: str, flags: list[str]) -> PythonChild:
        flags = [*flags, "--nats", self.nats_url]
        flags += ["--drain-grace", str(self._options.drain_grace)]
        flags += ["--log-level", self._options.log_level, "--log-format", self._options.log_format]
        ready_file = self._data_dir / f"{name}.ready"
        return PythonChild(name, ["-m", module, *flags], ready_file, self._echo)

    def _gateway_flags(self) -> list[str]:
        host, port = self._options.grpc_host, self._options.grpc_port
        flags = ["--name", "gateway", "--grpc-host", host, "--grpc-port", str(port)]
        flags += ["--drain-delay", "0"]  # No balancer is to notice.
        if self._options.http_port is not None:
            flags += ["--http-host", host, "--http-port", str(self._options.http_port)]
        return flags

    def _worker_flags(self, name: str) -> list[str]:
        if self._options.app is not None:
            flags = [self._options.app, "--name", name]
            # Nobody else serves at a broker of our own: who did is a stack that has ended.
            return flags if self._nats is None else [*flags, "--replace-signature"]
        flags = ["--name", name, "--engine", self._options.engine]
        if self._options.model is not None:
            flags += ["--model", self._options.model]
        if self._options.served_name is not None:
            flags += ["--served-name", self._options.served_name]
        for argument in self._options.engine_args:
            flags += ["--engine-arg", argument]
        return flags

    async def _seen_by_a_client(self, deadline: float) -> None:
        """Wait until the gateway serves the models with all our workers."""
        async with self.client() as client:
            while problem := await missing(client, self.models, self._options.workers):
                if time.monotonic() > deadline:
                    raise StackError(f"the gateway is not ready in time: {problem}")
                await asyncio.sleep(0.02)

    # ---- staying up -----------------------------------------------------------------------------

    async def _keep_up(self, child: Child) -> None:
        policy = RestartPolicy()
        while True:
            began = time.monotonic()
            code = await child.wait()
            pause = policy.after(time.monotonic() - began)
            if pause is None or child.final(code):
                times = f" for the {policy.quick_deaths}th time" if pause is None else ""
                raise StackError(
                    f"{child.name} ended{times} (code {code}); it said last:\n{child.last_lines()}"
                )
            self._echo("stack", f"{child.name} ended (code {code}); starting it again")
            await asyncio.sleep(pause)
            await child.start()
            self._write_state()

    async def _stop_watching(self) -> None:
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    @property
    def _state_file(self) -> Path:
        return self._data_dir / "stack.json"

    def _write_state(self) -> None:
        """Say, for scripts, where things are; the file lies there whole or not at all."""
        state = {
            "target": self.target,
            "http": self.http,
            "nats": self.nats_url,
            "models": self.models,
            "pids": {child.name: child.pid for child in self.children},
        }
        scratch = self._state_file.with_suffix(".tmp")
        scratch.write_text(json.dumps(state))
        scratch.replace(self._state_file)


def _connectable(address: str) -> str:
    """A listener's address as one to connect to."""
    host, port = address.rsplit(":", 1)
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::', '[::]', '') else host}:{port}"
