"""Text Generation Inference: /generate, /generate_stream, /info and /health."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from gateway.collected import Collected, Token, Whole, tokens_of
from gateway.http.errors import renamed, tgi_body, tgi_response
from gateway.http.front import Asked, Front
from gateway.http.openai.requests import Uint32
from gateway.http.reply import EventReply, WholeReply
from gateway.http.sse import SseOutlet
from gateway.outlet import Flusher, Writer
from gateway.pieces import Piece
from gateway.ports import Summary
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError, UnknownModel, Unsupported
from shared.features import LOGPROBS

PATHS = ("/generate", "/generate_stream", "/info", "/health")
DEFAULT_NEW_TOKENS = 100
NAMES = {
    "prompt": "inputs",
    "pace": "parameters.pace",
    "sampling.max_tokens": "parameters.max_new_tokens",
    **{
        f"sampling.{name}": f"parameters.{name}"
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "repetition_penalty",
            "frequency_penalty",
            "seed",
            "stop",
        )
    },
}
_SAME = ("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty", "seed")
_REFUSED = {
    "best_of": (None, 1),
    "grammar": (None,),
    "top_n_tokens": (None, 0),
    "truncate": (None,),
    "typical_p": (None, 1.0),
    "watermark": (None, False),
}


class Parameters(BaseModel):
    """How to generate."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: Uint32 | None = None
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: Uint32 | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    return_full_text: bool | None = None
    details: bool = False
    pace: float | None = None


class GenerateBody(BaseModel):
    """The body of /generate and /generate_stream; `model` is for gateways that serve several."""

    model_config = ConfigDict(extra="allow")

    inputs: str
    parameters: Parameters = Parameters()
    stream: bool = False
    model: str = ""


TAGS: list[str | Enum] = ["TGI"]


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.post("/generate", response_class=Response, tags=TAGS)
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Continue a text."""
        asked = _accept(front, request, body)
        if body.stream:
            return _events(front, body, asked)
        whole = partial(_whole, body)
        return WholeReply(front, [asked], tgi_response, NAMES, tokens=True, body=whole)

    @routes.post("/generate_stream", response_class=Response, tags=TAGS)
    async def generate_stream(body: GenerateBody, request: Request) -> Response:
        """Continue a text, an event a token."""
        return _events(front, body, _accept(front, request, body))

    @routes.get("/info", tags=TAGS)
    async def info(request: Request) -> dict[str, Any]:
        """Describe the first language model."""
        ready = front.view.ready(request.state.tenant)
        card = next((entry.card for entry in ready if not entry.is_function), None)
        if card is None:
            raise UnknownModel("no worker serves any language model")
        return {
            "model_id": card.name,
            "model_dtype": card.dtype,
            "model_pipeline_tag": "text-generation",
            "max_input_tokens": card.context_length - 1,
            "max_total_tokens": card.context_length,
            "max_stop_sequences": 16,
            "max_best_of": 1,
            "router": "millstream",
            "version": version("millstream"),
        }

    @routes.get("/health", tags=TAGS)
    async def health() -> Response:
        """Say whether requests can be taken."""
        return JSONResponse({"ready": front.ready}, 200 if front.ready else 503)


def _accept(front: Front, connection: Request, body: GenerateBody) -> Asked:
    given = body.parameters
    for name, harmless in _REFUSED.items():
        if (given.model_extra or {}).get(name) not in harmless:
            field = f"parameters.{name}"
            raise Unsupported(f"{field} is not supported: leave it out", field=field)
    message = pb.GenerateRequest(model=body.model, prompt=body.inputs)
    sampling = message.sampling
    most = given.max_new_tokens
    sampling.max_tokens = DEFAULT_NEW_TOKENS if most is None else most
    for name in _SAME:
        value = getattr(given, name)
        if value is not None:
            setattr(sampling, name, value % (1 << 64) if name == "seed" else value)
    if not given.do_sample and given.temperature is None and not (given.top_k or given.top_p):
        sampling.temperature = 0.0
    if given.pace is not None:
        message.pace = given.pace
    if given.stop:
        sampling.stop.extend(given.stop)
    visible = partial(front.door.access.visible, connection.state.tenant)
    if LOGPROBS in front.catalog.card(body.model, visible).features:
        sampling.logprobs = 0
    try:
        return front.accept(connection, message)
    except MillstreamError as error:
        raise renamed(error, NAMES) from error


def _events(front: Front, body: GenerateBody, asked: Asked) -> Response:
    make = partial(TgiStream, body=body)
    return EventReply(front, [asked], tgi_response, NAMES, make=make)


def _whole(body: GenerateBody, collected: Collected) -> dict[str, Any]:
    (choice,) = collected.choices
    (summary,) = collected.summaries
    before = body.inputs if body.parameters.return_full_text else ""
    answer: dict[str, Any] = {"generated_text": before + choice.text}
    if body.parameters.details:
        answer["details"] = {
            **_details(body, summary),
            "prefill": [],
            "tokens": [_token(token) for token in choice.tokens],
        }
    return answer


def _details(body: GenerateBody, summary: Summary) -> dict[str, Any]:
    """How it ended; an end by the model and one by a stop string are told apart by the request."""
    ends = {"length": "length", "stop": "stop_sequence" if body.parameters.stop else "eos_token"}
    return {
        "finish_reason": ends[summary.reasons[0]],
        "generated_tokens": summary.completion_tokens,
        "input_length": summary.prompt_tokens,
        "seed": body.parameters.seed,
    }


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": False}


class TgiStream(SseOutlet):
    """An answer as TGI's events: one a token, then one with the whole text and how it ended.

    The last event's token is special and empty, as that of an end-of-sequence token: holding the
    last real token back for it would hold back every one.
    """

    __slots__ = ("_body", "_index", "_whole")

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        *,
        body: GenerateBody,
    ) -> None:
        super().__init__(writer, flusher, overflowed)
        self._body = body
        self._whole = Whole()
        self._index = 0

    def on_piece(self, piece: Piece) -> None:
        """The next tokens."""
        self._whole.texts.append(piece.text)
        for token in tokens_of(piece.ids, piece.text, piece.logprobs, piece.ends):
            self._event(_token(token))

    def error_event(self, error: MillstreamError) -> bytes:
        """What TGI sends in a stream that fails."""
        return f"data:{json.dumps(tgi_body(error))}\n\n".encode()

    def _event(self, token: dict[str, Any], text: str | None = None, details: Any = None) -> None:
        self._index += 1
        event = {"index": self._index, "token": token, "generated_text": text, "details": details}
        self._put(f"data:{json.dumps(event)}\n\n".encode())

    def _close(self, base: int, summary: Summary) -> None:
        before = self._body.inputs if self._body.parameters.return_full_text else ""
        last = {"id": 0, "text": "", "logprob": 0.0, "special": True}
        self._event(last, before + self._whole.text, _details(self._body, summary))
