"""Where functions are called over HTTP: `predict` for values, `media` for images and sound."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.catalog import Function
from gateway.http.front import Front
from gateway.http.functions import formats, media
from gateway.http.functions.asks import Ask, from_body, from_query
from gateway.http.functions.pack import JSON, MSGPACK, as_json, as_msgpack
from gateway.http.functions.reply import OneReply, StreamReply
from gateway.typed import untyped
from shared.errors import InvalidRequest
from shared.features import RESUME

TAGS: list[str | Enum] = ["functions"]
MEDIA_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}
"""An image may be a document with scripts in it."""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "object"}, "example": {"inputs": {"text": "Once"}}}
            for kind in (JSON, MSGPACK)
        },
    }
}


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""
    predict_path, media_path = "/v1/models/{name:path}/predict", "/v1/models/{name:path}/media"

    @routes.post(predict_path, response_class=Response, tags=TAGS, openapi_extra=_BODY)
    async def predict(name: str, request: Request) -> Response:
        """Call a function: one answer, or a stream of its items."""
        function = front.function(request, name)
        return _values(front, request, function, from_body(request, await request.body()))

    @routes.get(predict_path, response_class=Response, tags=TAGS)
    async def predict_for_event_source(name: str, request: Request) -> Response:
        """Call a function whose parameters are in the query: for an EventSource, say."""
        if request.headers.get("last-event-id") == formats.ENDED:
            # The EventSource comes back after the end; this tells it to stay away.
            return Response(status_code=204)
        function = front.function(request, name)
        return _values(front, request, function, _query(request, function))

    @routes.get(media_path, response_class=Response, tags=TAGS)
    async def media_for_element(name: str, request: Request) -> Response:
        """Show an image or play what a function gives: for an <img> or an <audio>."""
        function = front.function(request, name)
        return _media(front, request, function, _query(request, function))

    @routes.post(media_path, response_class=Response, tags=TAGS, openapi_extra=_BODY)
    async def post_media(name: str, request: Request) -> Response:
        """Call a function and get its media as what they are."""
        function = front.function(request, name)
        return _media(front, request, function, from_body(request, await request.body()))


def _query(request: Request, function: Function) -> Ask:
    return from_query(request, function.typed.signature, request.query_params.multi_items())


def _values(front: Front, request: Request, function: Function, ask: Ask) -> Response:
    signature = function.typed.signature
    accept = formats.accepted(request.headers.get("accept", ""))
    if media.wanted(media.kind_of(signature), accept):
        return _media(front, request, function, ask)
    message = untyped.request_of(function.typed, ask.inputs, json=True)
    skip = _given_before(request, function)
    if signature.streaming or formats.wants_stream(accept):
        form = formats.stream_of(accept, packed=ask.packed)
        return StreamReply(front, function, message, ask.options, form=form, skip=skip)
    packed = formats.wants_msgpack(accept, packed=ask.packed)
    fields = {"model": signature.served_name, "request_id": ask.options.request_id}
    body = partial(_whole, fields, packed)
    return OneReply(front, function, message, ask.options, body=body)


def _whole(fields: dict[str, str], packed: bool, result: Any) -> Response:
    answer = {**fields, "result": result}
    if packed:
        return Response(as_msgpack(answer), media_type=MSGPACK)
    return Response(as_json(answer), media_type=JSON)


def _media(front: Front, request: Request, function: Function, ask: Ask) -> Response:
    signature = function.typed.signature
    media.demand(signature)
    kind = media.kind_of(signature)
    accept = formats.accepted(request.headers.get("accept", ""))
    message = untyped.request_of(function.typed, ask.inputs, json=True)
    if signature.streaming:
        form = media.Frames() if kind == "image" else media.Track(kind, accept)
        return StreamReply(front, function, message, ask.options, form=form)

    def body(result: Any) -> Response:
        made = media.whole(kind, result, accept)
        return Response(made.data, media_type=made.type, headers=MEDIA_HEADERS)

    return OneReply(front, function, message, ask.options, body=body)


def _given_before(request: Request, function: Function) -> int:
    """How many items an EventSource that comes back has.

    Raises:
        InvalidRequest: It says nonsense, or the function would give other items now.
    """
    last = request.headers.get("last-event-id", "")
    if not last:
        return 0
    if not last.isdecimal() or len(last) > 18:
        raise InvalidRequest(
            f"Last-Event-ID is {last[:80]!r}: want an item's index", field="last-event-id"
        )
    if RESUME not in function.card.features:
        raise InvalidRequest(
            f"function {function.card.name!r} cannot go on after item {last}: it is not idempotent",
            field="last-event-id",
        )
    return int(last) + 1
