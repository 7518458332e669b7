"""From an inference request to a generation: tensors, sampling parameters, what is wanted. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.halves import refuse_halves
from gateway.kserve import inference_pb2 as kserve
from gateway.kserve.parameters import seconds_of, wants_empty_final
from gateway.kserve.tensors import OUTPUTS, read
from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest, Unsupported

DEFAULT_MAX_TOKENS = 16
"""vLLM's, and so that of its Triton backend."""

_RETURNS = {
    "return_finish_reason": "finish_reason",
    "return_num_input_tokens": "num_input_tokens",
    "return_num_output_tokens": "num_output_tokens",
}


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    return known[str(value).lower()]


def _strings(value: Any) -> list[str]:
    given = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(item, str) for item in given):
        raise TypeError("want strings")
    return given


_SAMPLING: Mapping[str, Callable[[Any], Any]] = {
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": lambda value: max(0, int(value)),
    "min_p": float,
    "stop": _strings,
    "seed": lambda value: int(value) % (1 << 64),
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
    "ignore_eos": _boolean,
    "n": int,
}
"""What sampling_parameters may hold; Triton's clients send numbers as strings too."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        message: The generation.
        stream: Whether the answer comes in pieces.
        prepend: Whether the input's text goes before the answer's.
        outputs: Names of the wanted outputs.
        empty_final: Whether an empty response is to end the answer.
        seconds: Until the client's deadline, or None.
    """

    message: pb.GenerateRequest
    stream: bool
    prepend: bool
    outputs: frozenset[str]
    empty_final: bool
    seconds: float | None


def ask_of(request: kserve.ModelInferRequest) -> Ask:
    """Read a request.

    Raises:
        InvalidRequest: What is wrong with it.
        Unsupported: It wants what cannot be had.
    """
    inputs = read(request)
    text = inputs.get("text_input")
    if not isinstance(text, bytes):
        raise InvalidRequest("input 'text_input' is missing", field="text_input")
    try:
        prompt = text.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("text_input is no UTF-8", field="text_input") from None
    stream = bool(inputs.get("stream", False))
    prepend = not inputs.get("exclude_input_in_output", stream)
    if stream and prepend:
        raise InvalidRequest(
            "exclude_input_in_output cannot be false while stream is true",
            field="exclude_input_in_output",
        )
    given = inputs.get("sampling_parameters")
    sampling = _json(given) if isinstance(given, bytes) else _parameters(request)
    message = pb.GenerateRequest(model=request.model_name, prompt=prompt)
    message.adapter = str(sampling.pop("lora_name", None) or "")
    _sample(message.sampling, sampling)
    if stream and message.sampling.n > 1:
        raise Unsupported("n above 1 cannot be streamed: set stream to false", field="n")
    return Ask(
        message=message,
        stream=stream,
        prepend=prepend,
        outputs=_outputs(request, inputs),
        empty_final=wants_empty_final(request),
        seconds=seconds_of(request),
    )


def _outputs(
    request: kserve.ModelInferRequest, inputs: Mapping[str, bytes | bool]
) -> frozenset[str]:
    """Those that are named, or text_output; and those that an input asks for."""
    known = {tensor.name for tensor in OUTPUTS}
    named = [output.name for output in request.outputs]
    for name in named:
        if name not in known:
            raise InvalidRequest(
                f"output {name[:80]!r} is unknown: want {', '.join(sorted(known))}",
                field=name[:80],
            )
    asked = [output for name, output in _RETURNS.items() if inputs.get(name)]
    return frozenset((*(named or ("text_output",)), *asked))


def _json(data: bytes) -> dict[str, Any]:
    try:
        given = json.loads(data)
    except ValueError as error:
        raise InvalidRequest(
            f"sampling_parameters is no JSON: {error}", field="sampling_parameters"
        ) from None
    if not isinstance(given, dict):
        raise InvalidRequest(
            "sampling_parameters must be a JSON object", field="sampling_parameters"
        )
    refuse_halves(given)
    return given


def _parameters(request: kserve.ModelInferRequest) -> dict[str, Any]:
    """Sampling parameters among those of the request; the others are Triton's own."""
    found = {}
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is not None and (name in _SAMPLING or name == "lora_name"):
            found[name] = getattr(parameter, kind)
    return found


def _sample(sampling: pb.Sampling, given: dict[str, Any]) -> None:
    sampling.max_tokens = DEFAULT_MAX_TOKENS
    for name, value in given.items():
        convert = _SAMPLING.get(name)
        if convert is None:
            raise InvalidRequest(
                f"sampling parameter {name[:80]!r} is not known: want {', '.join(_SAMPLING)}",
                field=name[:80],
            )
        if value is None:
            continue
        try:
            converted = convert(value)
            if isinstance(converted, list):
                sampling.stop.extend(converted)
            else:
                setattr(sampling, name, converted)
        except (TypeError, ValueError, KeyError, OverflowError):
            raise InvalidRequest(
                f"sampling parameter {name} is {str(value)[:80]!r}, which it cannot be", field=name
            ) from None
