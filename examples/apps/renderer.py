"""An image stream: `millstream up examples.apps.renderer:app`.

Renders the Mandelbrot set and sends a PNG frame as it refines, coarse first; a browser shows the
stream in an <img>. The generator is paused while its reader is behind.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy

from millstream import App, Image

app = App()


@app.model("mandelbrot", idempotent=True)
def mandelbrot(
    width: int = 320, height: int = 200, frames: int = 6, x: float = -0.6, zoom: float = 1.0
) -> Iterator[Image]:
    """Yield frames of the whole picture, each sharper than the one before."""
    for frame in range(frames):
        block = 2 ** (frames - 1 - frame)
        picture = escape_times(-(-width // block), -(-height // block), x, zoom)
        sharp = numpy.repeat(numpy.repeat(picture, block, 0), block, 1)[:height, :width]
        yield Image(png(sharp), "image/png")


def escape_times(width: int, height: int, x: float, zoom: float) -> numpy.ndarray:
    """How soon each point escapes, as gray values 0 to 255; shape [height, width]."""
    across = numpy.linspace(x - 1.6 / zoom, x + 1.6 / zoom, width)
    down = numpy.linspace(-1.0 / zoom, 1.0 / zoom, height)[:, None]
    point = across + 1j * down
    value = numpy.zeros_like(point)
    times = numpy.full(point.shape, 255, numpy.uint8)
    inside = numpy.ones(point.shape, bool)
    for step in range(64):
        value[inside] = value[inside] ** 2 + point[inside]
        escaped = inside & (numpy.abs(value) > 2)
        times[escaped] = step * 4
        inside &= ~escaped
    return times


def png(gray: numpy.ndarray) -> bytes:
    """Encode gray values, shape [height, width], as a PNG image."""
    height, width = gray.shape
    lines = b"".join(b"\0" + line.tobytes() for line in gray)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
