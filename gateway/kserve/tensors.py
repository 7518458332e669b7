"""The tensors that text generation takes and gives, and how the protocol carries them. Pure.

Outputs always go as raw contents: Triton's client cannot read typed bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.kserve import inference_pb2 as pb
from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Tensor:
    """One that text generation knows.

    Attributes:
        name: Its name.
        datatype: BYTES, BOOL or UINT32.
        optional: Whether it may be left out, of an input.
    """

    name: str
    datatype: str
    optional: bool = True

    @property
    def config_type(self) -> pb.DataType:
        """Its type in a model's configuration."""
        return _CONFIG_TYPES[self.datatype]


_CONFIG_TYPES = {"BYTES": pb.TYPE_STRING, "BOOL": pb.TYPE_BOOL, "UINT32": pb.TYPE_UINT32}

INPUTS = (
    Tensor("text_input", "BYTES", optional=False),
    Tensor("stream", "BOOL"),
    Tensor("sampling_parameters", "BYTES"),
    Tensor("exclude_input_in_output", "BOOL"),
    Tensor("return_finish_reason", "BOOL"),
    Tensor("return_num_input_tokens", "BOOL"),
    Tensor("return_num_output_tokens", "BOOL"),
)
OUTPUTS = (
    Tensor("text_output", "BYTES"),
    Tensor("finish_reason", "BYTES"),
    Tensor("num_input_tokens", "UINT32"),
    Tensor("num_output_tokens", "UINT32"),
)
_INPUTS = {tensor.name: tensor for tensor in INPUTS}


def read(request: pb.ModelInferRequest) -> dict[str, bytes | bool]:
    """The inputs by name.

    Raises:
        InvalidRequest: One is unknown, given twice, or not one element of its type.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs",
            field="raw_input_contents",
        )
    found: dict[str, bytes | bool] = {}
    for place, given in enumerate(request.inputs):
        known = _INPUTS.get(given.name)
        if known is None or given.name in found:
            problem = "is given twice" if known else f"is unknown: want {', '.join(_INPUTS)}"
            raise InvalidRequest(f"input {given.name[:80]!r} {problem}", field=given.name[:80])
        if given.datatype != known.datatype or math.prod(given.shape) != 1:
            raise InvalidRequest(
                f"input {known.name!r} is {given.datatype[:20]}{list(given.shape)[:8]}: "
                f"want {known.datatype}[1]",
                field=known.name,
            )
        data = raw[place] if raw else None
        found[known.name] = _element(known, given.contents, data)
    return found


def _element(known: Tensor, contents: pb.InferTensorContents, raw: bytes | None) -> bytes | bool:
    problem = InvalidRequest(
        f"input {known.name!r} does not hold one element of {known.datatype}", field=known.name
    )
    if known.datatype == "BOOL":
        if raw is not None:
            if len(raw) != 1:
                raise problem
            return raw != b"\0"
        if len(contents.bool_contents) != 1:
            raise problem
        return contents.bool_contents[0]
    if raw is None:
        if len(contents.bytes_contents) != 1:
            raise problem
        return contents.bytes_contents[0]
    if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != len(raw) - 4:
        raise problem
    return raw[4:]


def add_strings(response: pb.ModelInferResponse, name: str, values: Sequence[str]) -> None:
    """Add an output of BYTES."""
    data = [value.encode("utf-8", "replace") for value in values]
    raw = b"".join(struct.pack("<I", len(value)) + value for value in data)
    _add(response, name, "BYTES", len(values), raw)


def add_counts(response: pb.ModelInferResponse, name: str, values: Sequence[int]) -> None:
    """Add an output of UINT32."""
    _add(response, name, "UINT32", len(values), struct.pack(f"<{len(values)}I", *values))


def _add(response: pb.ModelInferResponse, name: str, datatype: str, size: int, raw: bytes) -> None:
    response.outputs.add(name=name, datatype=datatype, shape=[size])
    response.raw_output_contents.append(raw)
