"""Which functions are embeddings: those from one text to a vector of float32. Pure."""

from __future__ import annotations

from gateway.catalog import Entry
from shared.errors import InvalidRequest
from shared.signature import Field, Scalar, Signature, TensorType

DIMENSIONS = "dimensions"
"""The parameter that says how long the vector is to be, where a function has it."""


def is_embedding(entry: Entry) -> bool:
    """Whether a function has the shape of an embedding: from a text to a vector of float32."""
    return entry.typed is not None and _text_parameter(entry.typed.signature) is not None


def demand(signature: Signature) -> Field:
    """The parameter that takes the text.

    Raises:
        InvalidRequest: The function is no embedding.
    """
    parameter = _text_parameter(signature)
    if parameter is None:
        raise InvalidRequest(
            f"{signature.served_name!r} gives no embeddings: want a function of one text to a "
            "float32 tensor of one dimension",
            field="model",
        )
    return parameter


def takes_dimensions(signature: Signature) -> bool:
    """Whether the length of the vector can be asked for."""
    return any(
        field.name == DIMENSIONS and field.type == Scalar("int64")
        for field in signature.inputs.fields
    )


def _text_parameter(signature: Signature) -> Field | None:
    output = signature.output
    if signature.streaming or not isinstance(output, TensorType) or output.dtype != "float32":
        return None
    if output.shape is None or len(output.shape) != 1:
        return None
    needed = [field for field in signature.inputs.fields if field.required]
    found = needed or list(signature.inputs.fields[:1])
    if len(found) != 1 or found[0].type != Scalar("string"):
        return None
    return found[0]
