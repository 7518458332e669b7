"""The gateway's own API over HTTP: server-sent events by POST, and by GET for a browser.

The bodies are the JSON form of `millstream.v1.GenerateRequest`; `gateway.http.events` says what
the events hold.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from google.protobuf import json_format
from starlette.responses import Response

from gateway.http.errors import openai_response
from gateway.http.events import PlainStream
from gateway.http.front import Asked, Front
from gateway.http.reply import EventReply
from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest

EXAMPLES = [{"prompt": "Once", "sampling": {"max_tokens": 16}}]
_LISTS = ("stop",)

TAGS: list[str | Enum] = ["plain"]


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.post("/v1/models/{name:path}/generate", response_class=Response, tags=TAGS)
    async def generate(
        name: str, request: Request, body: Annotated[dict[str, Any], Body(examples=EXAMPLES)]
    ) -> Response:
        """Stream a generation as server-sent events."""
        return _events(front, accept(front, request, name, body))

    @routes.get("/v1/models/{name:path}/generate", response_class=Response, tags=TAGS)
    async def generate_for_event_source(name: str, request: Request) -> Response:
        """Stream a generation to an EventSource: the fields are query parameters."""
        if "last-event-id" in request.headers:
            # The EventSource comes back after the end; this tells it to stay away.
            return Response(status_code=204)
        return _events(front, accept(front, request, name, from_query(request)))


def _events(front: Front, asked: Asked) -> Response:
    request = asked.request

    def make(*ports: Any) -> PlainStream:
        return PlainStream(*ports, request_id=request.request_id, model=request.model)

    return EventReply(front, [asked], openai_response, None, make=make)


def accept(front: Front, connection: Any, name: str, body: dict[str, Any]) -> Asked:
    """Validate a body; its `request_id`, where it has one, becomes the response's.

    Raises:
        MillstreamError: What is wrong with it.
    """
    message = pb.GenerateRequest()
    try:
        json_format.ParseDict({**body, "model": name}, message)
    except json_format.ParseError as error:
        raise InvalidRequest(f"the body is no GenerateRequest: {error}") from None
    asked = front.accept(connection, message)
    connection.state.request_id = asked.request.request_id
    return asked


def from_query(request: Request) -> dict[str, Any]:
    """The body that query parameters stand for: sampling's fields beside the request's own."""
    own = pb.GenerateRequest.DESCRIPTOR.fields_by_name
    body: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in _LISTS:
            sampling.setdefault(name, []).append(value)
        elif name == "ignore_eos":
            sampling[name] = value.lower() in ("1", "true", "yes")
        elif name in own:
            body[name] = value
        else:
            sampling[name] = value
    return {**body, "sampling": sampling}
