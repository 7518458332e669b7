"""The names that a signature has in protobuf."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shared.signature import Signature

PACKAGE = "millstream.models"


def simple_name(signature: Signature) -> str:
    """The service's name alone: `Echo`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", signature.name))


def package(signature: Signature) -> str:
    """The package of the version's messages: `millstream.models.v1`."""
    return f"{PACKAGE}.v{re.sub('[^A-Za-z0-9]', '_', signature.version)}"


def service_name(signature: Signature) -> str:
    """The full name of the version's service: `millstream.models.v1.Echo`."""
    return f"{package(signature)}.{simple_name(signature)}"


def alias_name(signature: Signature) -> str:
    """The full name of the default version's service: `millstream.models.Echo`."""
    return f"{PACKAGE}.{simple_name(signature)}"


def method_name(signature: Signature) -> str:
    """The name of the one method."""
    return "PredictStream" if signature.streaming else "Predict"


def file_name(signature: Signature) -> str:
    """The file of the version's service."""
    return _path(package(signature), signature)


def alias_file_name(signature: Signature) -> str:
    """The file of the service without a version."""
    return _path(PACKAGE, signature)


def enum_values(enum: str, members: Iterable[str]) -> list[str]:
    """The names of an enum's values, that for unset first."""
    prefix = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", enum).upper()
    return [f"{prefix}_{member}" for member in ("UNSPECIFIED", *members)]


def _path(package: str, signature: Signature) -> str:
    return f"{package.replace('.', '/')}/{signature.name.replace('-', '_')}.proto"
