"""What operators ask: alive, ready."""

from __future__ import annotations

from enum import Enum

from fastapi import FastAPI
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
        """Say whether requests should be sent here: NATS is there and no stop was asked for."""
        if front.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "draining" if front.leaving else "no NATS"}, 503)
