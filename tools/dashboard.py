"""Writes the Grafana dashboard: a table of panels, laid out in rows of three.

python tools/dashboard.py > deploy/grafana/dashboards/millstream.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, PER_ROW = 8, 8, 3
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: Above it.
        unit: Grafana's name of the unit.
        queries: PromQL by legend.
    """

    title: str
    unit: str
    queries: dict[str, str]


def quantiles(histogram: str, by: str = "model") -> dict[str, str]:
    """The median and two tails of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"p{q * 100:g}{legend}": f"histogram_quantile({q}, "
        f"sum by ({labels}) (rate({histogram}_bucket[{RATE}])))"
        for q in (0.5, 0.9, 0.99)
    }


G, W = "millstream_gateway", "millstream_worker"

SECTIONS: dict[str, list[Panel]] = {
    "Requests": [
        Panel("Requests by outcome", "reqps", {
            "{{model}} {{outcome}}": f"sum by (model, outcome) (rate({G}_requests_total[{RATE}]))",
        }),
        Panel("Tokens", "short", {
            "{{model}} {{kind}}": f"sum by (model, kind) (rate({G}_tokens_total[{RATE}]))",
        }),
        Panel("Open requests", "short", {
            "{{class}} {{state}}": f"sum by (class, state) ({G}_sessions)",
        }),
        Panel("Time to the first token", "s", quantiles(f"{G}_first_token_seconds")),
        Panel("Time between tokens", "s", quantiles(f"{G}_token_gap_seconds")),
        Panel("Time in the queue", "s", quantiles(f"{G}_queue_seconds")),
        Panel("Time of an answer", "s", quantiles(f"{G}_total_seconds")),
        Panel("Failovers, repairs, refusals", "ops", {
            "{{event}}": f"sum by (event) (rate({G}_events_total[{RATE}]))",
        }),
        Panel("gRPC calls", "reqps", {
            "begun": f"sum(rate({G}_grpc_calls_total[{RATE}]))",
            "cancelled by clients": f"sum(rate({G}_grpc_calls_cancelled_total[{RATE}]))",
        }),
    ],
    "Gateways": [
        Panel("NATS connection", "short", {"{{instance}}": f"{G}_ready"}),
        Panel("Workers that take work", "short", {
            "{{model}}": f"max by (model) (sum by (instance, model) ({G}_worker_ready))",
        }),
        Panel("Processes seen", "short", {"{{job}}": "sum by (job) (up)"}),
    ],
    "Workers": [
        Panel("Requests in flight and their limit", "short", {
            "running {{instance}}": f"{W}_running",
            "limit {{instance}} ({{reason}})": f"{W}_limit",
        }),
        Panel("In the engine's batch and waiting for it", "short", {
            "batch {{instance}}": f"{W}_engine_running",
            "waiting {{instance}}": f"{W}_engine_waiting",
        }),
        Panel("KV cache in use", "percentunit", {"{{instance}}": f"{W}_kv_used_ratio"}),
        Panel("Time of a step", "s", quantiles(f"{W}_step_seconds", by="")),
        Panel("Tokens by worker", "short", {"{{instance}}": f"rate({W}_tokens_total[{RATE}])"}),
        Panel("Steps by worker", "short", {"{{instance}}": f"rate({W}_steps_total[{RATE}])"}),
    ],
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, section in SECTIONS.items():
        panels.append(_row(title, y, len(panels) + 1))
        y += 1
        for place, panel in enumerate(section):
            row, column = divmod(place, PER_ROW)
            panels.append(_graph(panel, column * WIDTH, y + row * HEIGHT, len(panels) + 1))
        y += -(-len(section) // PER_ROW) * HEIGHT
    return {
        "uid": "millstream",
        "title": "Millstream",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "tags": ["millstream"],
        "panels": panels,
    }


def _row(title: str, y: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": WIDTH * PER_ROW, "h": 1}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}


def _graph(panel: Panel, x: int, y: int, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
