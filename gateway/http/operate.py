"""What operators ask: alive, ready, metrics."""

from __future__ import annotations

from enum import Enum

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from gateway.http.front import Front

TAGS: list[str | Enum] = ["operation"]


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.get("/health/live", tags=TAGS)
    async def live() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "live"}

    @routes.get("/health/ready", response_class=JSONResponse, tags=TAGS)
    async def ready() -> Response:
        """Say whether requests can be taken: NATS is there and no drain has begun."""
        if front.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "draining" if front.draining else "no NATS"}, 503)

    @routes.get("/metrics", response_class=Response, tags=TAGS)
    async def metrics() -> Response:
        """Tell Prometheus what was counted."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
