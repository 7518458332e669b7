"""How a process serves its Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


def start_metrics_server(port: int, *collectors: Collector, host: str = "") -> int:
    """Serve `/metrics` from a thread until the process ends; 0 is any free port.

    Returns:
        The port.

    Raises:
        OSError: It cannot listen there.
    """
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    server, _ = start_http_server(port, addr=host or "0.0.0.0", registry=registry)
    return int(server.server_port)
