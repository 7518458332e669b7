"""The FastAPI application: its routes, and what becomes of errors that reach it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from gateway.http import operate, plain, socket, tgi
from gateway.http.edge import Edge
from gateway.http.errors import openai_fields, openai_response, tgi_response
from gateway.http.front import Front
from gateway.http.functions import routes as functions
from gateway.http.openai import embeddings
from gateway.http.openai import routes as openai
from shared.errors import InvalidRequest, MillstreamError


def build(front: Front, *, cors_origins: Sequence[str], max_body_bytes: int) -> ASGIApp:
    """The application with everything around it.

    Args:
        front: What all endpoints share.
        cors_origins: Origins whose pages may call it; `*` is any.
        max_body_bytes: Of a request.
    """
    api = FastAPI(title="Millstream", version=version("millstream"), redoc_url=None)
    # The longer paths first: a model's name may hold slashes.
    for module in (operate, tgi, functions, plain, socket, embeddings, openai):
        module.register(api, front)  # Not as routers of their own: those cost every request.
    api.add_exception_handler(MillstreamError, _refused)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _fault)
    app: ASGIApp = Edge(api, front, max_body_bytes)
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "retry-after"),
        )
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, MillstreamError)
    return tgi_response(error) if request.url.path in tgi.PATHS else openai_response(error)


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refused(request, invalid(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail}"
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    body = openai_fields(text, error.status_code, code=code)
    return JSONResponse(body, error.status_code, error.headers)


async def _fault(_request: Request, _error: Exception) -> Response:
    return JSONResponse(openai_fields("internal error", 500, code="internal_error"), 500)


def invalid(problems: Sequence[Any]) -> InvalidRequest:
    """The first of pydantic's problems, with the field as a path."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return InvalidRequest(f"the body is no JSON: {problem['ctx']['error']}")
    place = [part for part in problem["loc"] if part not in ("body", "query")]
    field = ""
    for part in place:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    if not field:
        return InvalidRequest(
            "the body must be a JSON object, sent with content-type: application/json"
        )
    return InvalidRequest(f"{field}: {problem['msg']}", field=field)
