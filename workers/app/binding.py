"""A function's messages on one side, its arguments and results on the other."""

from __future__ import annotations

from typing import Any

from shared.signature import Scalar
from shared.typed import RESULT, Typed
from workers.app import written
from workers.app.decoding import Dimensions, Refused, fields_decoder
from workers.app.encoding import field_encoder
from workers.app.failures import ContractError
from workers.app.scalars import Wrong
from workers.app.signatures import ModelSpec

MOST_RESULT = 64 * 2**20
"""Bytes of one result or item: it is sent in one go, while the worker's heartbeat waits."""


class Binding:
    """Decodes requests and encodes responses of one function.

    Args:
        model: The function.

    Attributes:
        typed: Its messages.
    """

    def __init__(self, model: ModelSpec) -> None:
        self.typed = typed = Typed(model.signature)
        self._decode = fields_decoder(model.reading.slots)
        self._response = typed.response
        self._optional = model.reading.output_optional
        self._streaming = model.signature.streaming
        self._written = _written(model)
        self._encode = None
        if model.reading.output is not None:
            field = typed.response.DESCRIPTOR.fields_by_name[RESULT]
            self._encode = field_encoder(model.reading.output, field)

    def decode(self, call: bytes) -> tuple[dict[str, Any], Dimensions]:
        """The arguments by name, and the lengths of the named dimensions of their tensors.

        Raises:
            InvalidRequest: It is malformed, or not as the annotations want it.
        """
        message = self.typed.parse(call)
        self.typed.check(message)
        dimensions: Dimensions = {}
        try:
            return self._decode(message, dimensions), dimensions
        except Refused as refused:
            raise refused.invalid() from None

    def encode(self, result: Any, index: int, dimensions: Dimensions) -> bytes:
        """A response of bounded size.

        Args:
            result: What the function returned or yielded.
            index: The item's position.
            dimensions: Of the request: equal names are equal lengths.

        Raises:
            ContractError: It is not what the annotations promise, or larger than `MOST_RESULT`.
        """
        data = self._serialized(result, index, dimensions)
        if len(data) > MOST_RESULT:
            raise ContractError(
                f"the result takes {len(data)} bytes and at most {MOST_RESULT} are allowed: "
                "yield it in pieces"
            )
        return data

    def _serialized(self, result: Any, index: int, dimensions: Dimensions) -> bytes:
        if type(result) is self._written:
            try:
                return written.response(result, index if self._streaming else 0)
            except UnicodeEncodeError:
                pass  # Refused below, in the words that all values have.
        given: dict[str, Any] = {"index": index} if self._streaming else {}
        if self._encode is None:
            if result is not None:
                raise ContractError(f"the result: want None, got {type(result).__name__}")
        elif result is not None or not self._optional:
            try:
                given[RESULT] = self._encode(result, dimensions.copy())
            except Wrong as wrong:
                raise wrong.within("the result").contract() from None
        data: bytes = self._response(**given).SerializeToString()
        return data


def _written(model: ModelSpec) -> type[str] | type[bytes] | None:
    """The type of results that are written by hand; of all others protobuf makes messages."""
    match model.signature.output:
        case Scalar(kind="string"):
            return str
        case Scalar(kind="bytes"):
            return bytes
    return None
