"""Encoded images, audio and video as `millstream.v1.Media` carries them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """Encoded bytes.

    Attributes:
        type: Their media type, e.g. image/png.
        data: The bytes.
    """

    type: str
    data: bytes
