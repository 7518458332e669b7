"""Images, audio and video as what they are: parts for an <img>, one long file for an <audio>. Pure.

Raw samples become WAV, which browsers play: `audio/L16` (RFC 2586: big-endian) and `audio/pcm`
(little-endian), where their type says the rate. A stream of WAV files becomes one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from shared.errors import InternalError, InvalidRequest, MillstreamError
from shared.signature import MediaType, Signature
from shared.values import Media

FRAME = "frame"
"""What separates the parts of an image stream."""
WAV = "audio/wav"
UNKNOWN = 0xFFFFFFFF
"""The length of a file whose end is not known."""

_TYPE = re.compile(r"[a-z]+/[\w.+-]{1,100}(; ?[\w-]+=[\w.+-]+)*", re.IGNORECASE)
_WAV_NAMES = (WAV, "audio/x-wav", "audio/wave", "audio/vnd.wave")


def kind_of(signature: Signature) -> str:
    """The kind of media that a function gives; "" where it gives none."""
    return signature.output.kind if isinstance(signature.output, MediaType) else ""


def wanted(kind: str, accept: Sequence[str]) -> bool:
    """Whether a client names the kind among what it accepts."""
    return bool(kind) and any(
        name.startswith(f"{kind}/") or (kind == "image" and name.startswith("multipart/"))
        for name in accept
    )


def demand(signature: Signature) -> None:
    """Refuse a function that gives no media.

    Raises:
        InvalidRequest: It gives something else.
    """
    if not kind_of(signature):
        raise InvalidRequest(
            f"function {signature.served_name!r} gives no image, audio or video: call predict",
            field="model",
        )


def checked(kind: str, result: Any) -> Media:
    """What a function gave, fit for a header.

    Raises:
        InternalError: It is no media of the kind, or its type is none.
    """
    if not isinstance(result, Media) or not result.type.startswith(f"{kind}/"):
        raise InternalError(f"the worker gave no {kind}")
    if not _TYPE.fullmatch(result.type):
        raise InternalError(f"the worker gave the media type {result.type[:80]!r}")
    return result


def whole(kind: str, result: Any, accept: Sequence[str]) -> Media:
    """The one answer of a function.

    Raises:
        InternalError: It is no media of the kind.
    """
    media = checked(kind, result)
    samples = _samples(media.type, accept)
    if samples is None:
        return media
    data = samples.little(media.data)
    return Media(WAV, samples.header(len(data)) + data)


class Frames:
    """Images that replace one another: multipart/x-mixed-replace.

    A frame's closing boundary goes out with it, so that it shows at once.
    """

    content_type = f"multipart/x-mixed-replace; boundary={FRAME}"
    comment: ClassVar[bytes] = b""

    def item(self, index: int, result: Any) -> bytes:
        """The next frame."""
        media = checked("image", result)
        start = f"--{FRAME}\r\n" if index == 0 else ""
        head = f"content-type: {media.type}\r\ncontent-length: {len(media.data)}\r\n\r\n"
        return f"{start}{head}".encode() + media.data + f"\r\n--{FRAME}\r\n".encode()

    def finished(self, items: int) -> bytes:
        """The end."""
        return f"--{FRAME}--\r\n".encode()

    def failed(self, error: MillstreamError) -> None:
        """An image stream has no word for it."""


class Track:
    """Audio or video whose pieces are put end to end.

    Args:
        kind: audio or video.
        accept: What the client names.
    """

    comment: ClassVar[bytes] = b""

    def __init__(self, kind: str, accept: Sequence[str]) -> None:
        self._kind = kind
        self._accept = accept
        self._type = ""
        self._samples: Samples | None = None
        self.content_type = ""

    def item(self, index: int, result: Any) -> bytes:
        """The next piece."""
        media = checked(self._kind, result)
        first = not self._type
        if first:
            self._type = self.content_type = media.type
            self._samples = _samples(media.type, self._accept)
        elif media.type != self._type:
            raise InternalError(f"the worker went from {self._type} to {media.type}")
        if self._samples is not None:
            self.content_type = WAV
            data = self._samples.little(media.data)
            return self._samples.header(UNKNOWN) + data if first else data
        if self._type.lower() in _WAV_NAMES:
            return _wav_piece(media.data, first=first)
        return media.data

    def finished(self, items: int) -> bytes:
        """The body ends."""
        return b""

    def failed(self, error: MillstreamError) -> None:
        """A track has no word for it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Raw samples of 16 bits.

    Attributes:
        rate: A second.
        channels: Side by side.
        big: Whether the larger byte comes first.
    """

    rate: int
    channels: int
    big: bool

    def little(self, data: bytes) -> bytes:
        """The samples with the smaller byte first.

        Raises:
            InternalError: They are no whole number of samples.
        """
        if len(data) % 2:
            raise InternalError("the worker gave half a sample")
        if not self.big:
            return data
        swapped = bytearray(len(data))
        swapped[::2], swapped[1::2] = data[1::2], data[::2]
        return bytes(swapped)

    def header(self, size: int) -> bytes:
        """The beginning of a WAV file with so many bytes of samples."""
        frame = 2 * self.channels
        form = struct.pack(
            "<IHHIIHH", 16, 1, self.channels, self.rate, self.rate * frame, frame, 16
        )
        whole = UNKNOWN if size == UNKNOWN else size + 36
        return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + form + _data(size)


def _samples(said: str, accept: Sequence[str]) -> Samples | None:
    """What raw samples a type says, where the client would rather have WAV."""
    name, *given = (part.strip().lower() for part in said.split(";"))
    if name not in ("audio/l16", "audio/pcm") or name in accept:
        return None
    parameters = dict(part.partition("=")[::2] for part in given)
    rate, channels = parameters.get("rate", ""), parameters.get("channels", "1")
    if not (rate.isdecimal() and channels.isdecimal() and 0 < int(channels) < 256):
        return None
    return Samples(min(int(rate), 1_000_000), int(channels), big=name == "audio/l16")


def _wav_piece(data: bytes, *, first: bool) -> bytes:
    """A WAV file's beginning made endless, or of a later one only the samples."""
    if data[:4] != b"RIFF":
        return data
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if name == b"data":
            samples = data[place + 8 : place + 8 + size]
            head = b"RIFF" + struct.pack("<I", UNKNOWN) + data[8:place] + _data(UNKNOWN)
            return head + samples if first else samples
        place += 8 + size + size % 2
    return data


def _data(size: int) -> bytes:
    return b"data" + struct.pack("<I", size)
