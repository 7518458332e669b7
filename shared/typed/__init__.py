"""A function's signature as protobuf: its service, its messages, and the checks of what they carry.

Everything else here is gathered from modules of their own, for the one import.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from shared.signature import Signature
from shared.typed.contract import checker
from shared.typed.describe import INDEX, RESULT, alias_file, files
from shared.typed.names import alias_name, method_name, service_name
from shared.typed.rules import validate
from shared.typed.strict import Strict
from shared.typed.text import dump, fingerprint, load, natural

__all__ = [
    "INDEX",
    "RESULT",
    "Typed",
    "alias_file",
    "alias_name",
    "dump",
    "files",
    "fingerprint",
    "load",
    "natural",
    "service_name",
    "validate",
]


class Typed:
    """A signature's messages, in a pool of their own; building it takes some hundred microseconds.

    Args:
        signature: Of the function.

    Attributes:
        signature: The same.
        files: What defines the service: imports first, its own file the last.
        request: The class of requests: a field for each parameter.
        response: The class of responses: `result`, and `index` where the function streams.
        service: The service's full name.
        alias: The full name of the service without a version.
        method: `Predict`, or `PredictStream` where the function streams.
        path: The method's path.
        alias_path: The method's path in the service without a version.

    Raises:
        ValueError: The signature cannot be served.
    """

    def __init__(self, signature: Signature) -> None:
        validate(signature)
        self.signature = signature
        self.files = files(signature)
        self.service = service_name(signature)
        self.alias = alias_name(signature)
        self.method = method_name(signature)
        self.path = f"/{self.service}/{self.method}"
        self.alias_path = f"/{self.alias}/{self.method}"
        pool = DescriptorPool()
        try:
            for described in self.files:
                pool.AddSerializedFile(described.SerializeToString())
        except TypeError as error:
            raise ValueError(f"protobuf refuses it: {error}") from None
        find = pool.FindMessageTypeByName
        self.request: Any = message_factory.GetMessageClass(find(f"{self.service}Request"))
        self.response: Any = message_factory.GetMessageClass(find(f"{self.service}Response"))
        self._strict = Strict(self.request)
        self._check = checker(signature.inputs.fields)

    def parse(self, data: bytes) -> Any:
        """Parse a request strictly; its values are not checked: see `check`.

        Raises:
            InvalidRequest: It is malformed; `field` is the path.
        """
        return self._strict(data)

    def check(self, message: Any) -> None:
        """Check a request's values: required ones, tensors, enums, media, times.

        Raises:
            InvalidRequest: One is not as the signature wants it; `field` is the path.
        """
        self._check(message)
