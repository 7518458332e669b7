"""The FastAPI application: its routes, and what becomes of errors that reach it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from gateway.halves import may_hold_half, refuse_halves
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
    api.router.route_class = _TextRoute
    # The longer paths first: a model's name may hold slashes.
    for module in (operate, tgi, functions, plain, socket, embeddings, openai):
        module.register(api, front)  # Not as routers of their own: those cost every request.
    api.add_exception_handler(MillstreamError, _refused)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(ClientDisconnect, _left)
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


class _TextRoute(APIRoute):
    """A route that refuses half of a surrogate pair, which protobuf fails on, in a JSON body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; FastAPI takes the body from where it is read here."""
        answer = super().get_route_handler()
        if self.body_field is None:
            return answer

        async def checked(request: Request) -> Response:
            if may_hold_half(await request.body()):
                with suppress(ValueError, RecursionError):  # It is no JSON: FastAPI says so.
                    refuse_halves(await request.json())
            return await answer(request)

        return checked


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


async def _left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # It went inside its body, and does not hear this.


async def _fault(_request: Request, _error: Exception) -> Response:
    body = openai_fields("internal error", 500, code="internal_error")
    return JSONResponse(body, 500, {"connection": "close"})  # uvicorn does close it.


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
