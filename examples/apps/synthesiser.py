"""An audio stream: `millstream up examples.apps.synthesiser:app`.

Sends a melody as PCM while it plays, a tenth of a second at a time. `seconds=0` plays without end:
it is made as fast as it is heard, since the generator is paused while its reader is behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy

from millstream import App, Audio

app = App()

RATE = 16_000
MELODY = (262, 294, 330, 349, 392, 440, 494, 523)
PIECE = RATE // 10


@app.model("melody", idempotent=True)
def melody(seconds: float = 4.0, tempo: float = 3.0) -> Iterator[Audio]:
    """Yield pieces of 16-bit PCM, one channel, 16 kHz; L16 is big-endian."""
    pieces = range(int(seconds * 10)) if seconds > 0 else itertools.count()
    phase = 0.0
    for piece in pieces:
        tone = MELODY[int(piece / 10 * tempo) % len(MELODY)]
        angles = phase + 2 * numpy.pi * tone / RATE * numpy.arange(PIECE)
        phase = float(angles[-1] + 2 * numpy.pi * tone / RATE)
        wave = (numpy.sin(angles) * 12_000).astype(">i2")
        yield Audio(wave.tobytes(), f"audio/L16;rate={RATE};channels=1")
