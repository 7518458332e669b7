"""Bytes with a media type: what multimodal functions take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Media:
    """Encoded bytes of one kind.

    Attributes:
        data: The bytes.
        type: Their media type, which begins with the kind.
    """

    kind: ClassVar[str] = ""

    data: bytes
    type: str = ""

    def __post_init__(self) -> None:
        """Refuse another kind's media type.

        Raises:
            ValueError: The type does not begin with the kind.
        """
        if not self.type.startswith(f"{self.kind}/"):
            raise ValueError(f"the media type is {self.type!r}: want {self.kind}/...")


@dataclass(frozen=True, slots=True)
class Image(Media):
    """An image."""

    kind: ClassVar[str] = "image"

    type: str = "image/png"


@dataclass(frozen=True, slots=True)
class Audio(Media):
    """A piece of audio; the parameters of raw samples are said: `audio/L16;rate=16000`."""

    kind: ClassVar[str] = "audio"

    type: str = "audio/wav"


@dataclass(frozen=True, slots=True)
class Video(Media):
    """A piece of video."""

    kind: ClassVar[str] = "video"

    type: str = "video/mp4"
