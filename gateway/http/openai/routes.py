"""The OpenAI endpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from gateway.catalog import Entry
from gateway.http.errors import openai_response, renamed
from gateway.http.front import Asked, Front, name_of_one
from gateway.http.openai import convert
from gateway.http.openai.answers import Head, OpenAiStream, Shape, whole_answer
from gateway.http.openai.embedding_shape import is_embedding
from gateway.http.openai.requests import ChatRequest, CompletionRequest, Generation
from gateway.http.openai.shapes import ChatShape, CompletionShape
from gateway.http.reply import EventReply, WholeReply
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError

CHAT = ChatShape()
COMPLETION = CompletionShape()

TAGS: list[str | Enum] = ["OpenAI"]


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.post("/v1/chat/completions", response_class=Response, tags=TAGS)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, as a whole or as server-sent events."""
        return _answer(front, request, body, [convert.chat_request(body)], CHAT, "chatcmpl-")

    @routes.post("/v1/completions", response_class=Response, tags=TAGS)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue one or several prompts, as a whole or as server-sent events."""
        messages = convert.completion_requests(body)
        return _answer(front, request, body, messages, COMPLETION, "cmpl-")

    @routes.get("/v1/models", tags=TAGS)
    async def models(request: Request) -> dict[str, Any]:
        """List the models that can be called: those of language, and those of embeddings."""
        ready = front.view.ready(request.state.tenant)
        listed = [entry for entry in ready if not entry.is_function or is_embedding(entry)]
        return {"object": "list", "data": [_model(front, entry) for entry in listed]}

    @routes.get("/v1/models/{name:path}", tags=TAGS)
    async def model(name: str, request: Request) -> dict[str, Any]:
        """Describe one model."""
        return _model(front, front.view.model(request.state.tenant, name, "model"))


def _answer(
    front: Front,
    connection: Request,
    body: Generation,
    messages: Sequence[pb.GenerateRequest],
    shape: Shape,
    prefix: str,
) -> Response:
    names = convert.names(body)
    asked = _accept(front, connection, messages, names)
    first = asked[0].request
    options = body.stream_options
    usage = bool(options and options.include_usage)
    head = Head(
        id=prefix + connection.state.request_id,
        created=int(time.time()),
        model=first.model,
        usage=usage,
        running_usage=bool(usage and options and options.continuous_usage_stats),
        logprobs=first.sampling.logprobs is not None,
        token_ids=bool(body.return_token_ids),
    )
    if not body.stream:
        whole = partial(whole_answer, shape, head)
        return WholeReply(front, asked, openai_response, names, tokens=head.logprobs, body=whole)
    make = partial(
        OpenAiStream,
        shape=shape,
        head=head,
        choices=sum(one.request.sampling.n for one in asked),
        sessions=len(asked),
    )
    return EventReply(front, asked, openai_response, names, make=make)


def _accept(
    front: Front,
    connection: Request,
    messages: Sequence[pb.GenerateRequest],
    names: dict[str, str],
) -> list[Asked]:
    if len(messages) > 1:  # They run side by side, each under a name of its own.
        for place, message in enumerate(messages):
            message.request_id = name_of_one(connection.state.request_id, place)
    try:
        return [front.accept(connection, message) for message in messages]
    except MillstreamError as error:
        raise renamed(error, names) from error


def _model(front: Front, entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "id": entry.name,
        "object": "model",
        "created": front.since,
        "owned_by": "millstream",
        "root": entry.name,
        "parent": None,
        "max_model_len": card.context_length or None if card is not None else None,
    }
