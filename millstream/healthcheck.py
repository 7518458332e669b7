"""What a container's health check runs: does this gateway or worker serve, now?

    python -m millstream.healthcheck gateway --port 50051
    python -m millstream.healthcheck worker --ready-file /tmp/worker.ready

The gateway is asked by grpc.health.v1; it answers NOT_SERVING while NATS is away or it drains. The
worker touches its ready file every second, once the model is loaded, while it is connected, its
event loop turns and it was not told to stop; a file that is missing or old is a worker that takes
nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FRESH = 5.0
"""Seconds; see `workers.host.READY_TOUCH`."""
LIMIT = 3.0
GATEWAY = "MILLSTREAM_GATEWAY_"


def check_gateway(port: int, tls: ssl.SSLContext | bool) -> str:
    """Ask a gateway on this machine; returns what is wrong, or ""."""
    from millstream.client import Client  # Not for the worker's check, which runs often.
    from shared.errors import MillstreamError

    async def ask() -> bool:
        async with Client(f"127.0.0.1:{port}", tls=tls) as client:
            return await client.health(deadline=LIMIT)

    try:
        return "" if asyncio.run(ask()) else "the gateway says NOT_SERVING"
    except MillstreamError as error:
        return str(error)


def check_worker(ready_file: Path, now: float) -> str:
    """Look at a worker's ready file; returns what is wrong, or ""."""
    try:
        age = now - ready_file.stat().st_mtime
    except FileNotFoundError:
        return f"no {ready_file}: the model is not loaded"
    if age < FRESH:
        return ""
    told = f"{ready_file} was last touched {age:.0f} s ago"
    return f"{told}: the worker is not connected, drains, or hangs"


def tls_of(environment: dict[str, str]) -> ssl.SSLContext | bool:
    """How to reach a gateway with these settings: its own certificate is not a question here."""
    certificate = environment.get(f"{GATEWAY}TLS_CERT")
    key = environment.get(f"{GATEWAY}TLS_KEY")
    if not certificate or not key:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if environment.get(f"{GATEWAY}TLS_CLIENT_CA"):
        context.load_cert_chain(certificate, key)
    return context


def main(argv: Sequence[str] | None = None) -> int:
    """Check, say what is wrong, and return 0 (healthy) or 1."""
    parser = argparse.ArgumentParser(prog="python -m millstream.healthcheck", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True)
    gateway = kinds.add_parser("gateway")
    port = os.environ.get(f"{GATEWAY}GRPC_PORT") or "50051"
    gateway.add_argument("--port", type=int, default=int(port))
    worker = kinds.add_parser("worker")
    told = os.environ.get("MILLSTREAM_WORKER_READY_FILE") or "/tmp/worker.ready"
    worker.add_argument("--ready-file", type=Path, default=Path(told))
    given = parser.parse_args(argv)
    if given.kind == "gateway":
        problem = check_gateway(given.port, tls_of(dict(os.environ)))
    else:
        problem = check_worker(given.ready_file, time.time())
    print(problem or "serving")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
