"""Media as what they are: parts for an <img>, WAV for an <audio>, single ones by their type."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.policy import HTTP

import pytest
import pytest_asyncio

from gateway.app import App
from tests.integration.function_app import png
from tests.integration.function_peer import gateway, nats_and_functions
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import call, connect

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMG = {"accept": "image/avif,image/webp,image/*,*/*;q=0.8"}
AUDIO = {"accept": "audio/webm,audio/ogg,audio/wav,audio/*;q=0.9,*/*;q=0.5"}


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_functions(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


@pytest.mark.parametrize("path", ["frames/media?n=3", "frames/predict?n=3"])
async def test_images_replace_one_another(app: App, path: str) -> None:
    answer = await call(app, "GET", f"/v1/models/{path}", None, IMG)
    kind = answer.headers["content-type"]
    assert kind == "multipart/x-mixed-replace; boundary=frame"
    whole = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + answer.body, policy=HTTP)
    parts = [part.get_payload(decode=True) for part in whole.iter_parts()]
    assert parts[:3] == [png(shade) for shade in (0, 40, 80)]
    assert not any(parts[3:])
    assert answer.body.count(b"content-type: image/png\r\n") == 3


async def test_a_frame_is_complete_when_it_comes(app: App) -> None:
    http = await connect(app)
    await http.send("POST", "/v1/models/frames/media", {"inputs": {"n": 1}})
    first = await anext(http.body(await http.head()))
    http.abort()
    assert first.endswith(png(0) + b"\r\n--frame\r\n")


@pytest.mark.parametrize("path", ["picture/media?shade=9", "picture/predict?shade=9"])
async def test_a_single_image(app: App, path: str) -> None:
    answer = await call(app, "GET", f"/v1/models/{path}", None, IMG)
    assert (answer.headers["content-type"], answer.body) == ("image/png", png(9))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]


async def test_json_is_still_had(app: App) -> None:
    answer = await call(app, "GET", "/v1/models/picture/predict")
    assert answer.json["result"]["type"] == "image/png"


async def test_samples_become_one_wav_that_has_no_end(app: App) -> None:
    answer = await call(app, "GET", "/v1/models/melody/media?n=3", None, AUDIO)
    assert answer.headers["content-type"] == "audio/wav"
    form = struct.unpack("<4sI8sIHHIIHH4sI", answer.body[:44])
    assert form == (
        b"RIFF", 0xFFFFFFFF, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0xFFFFFFFF,
    )  # fmt: skip
    samples = struct.unpack("<2400h", answer.body[44:])
    assert samples == (0,) * 800 + (1,) * 800 + (2,) * 800


async def test_samples_go_as_they_are_where_they_are_wanted(app: App) -> None:
    answer = await call(
        app, "GET", "/v1/models/melody/media?n=2", None, {"accept": "audio/L16"}
    )  # fmt: skip
    assert answer.headers["content-type"] == "audio/L16;rate=8000;channels=1"
    assert answer.body == b"\0\0" * 800 + b"\0\1" * 800


async def test_wav_files_become_one(app: App) -> None:
    answer = await call(app, "GET", "/v1/models/waves/media?n=2", None, AUDIO)
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.body[:4] == b"RIFF"
    assert answer.body.count(b"RIFF") == 1
    assert answer.body[44:] == b"\0\0" * 100 + b"\1\0" * 100


async def test_a_single_sound(app: App) -> None:
    answer = await call(app, "GET", "/v1/models/beep/media")
    with wave.open(io.BytesIO(answer.body)) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 10)
        assert file.readframes(10) == b"\2\1" * 10


async def test_what_cannot_be_shown_is_refused(app: App) -> None:
    answer = await call(app, "GET", "/v1/models/echo/media?text=a")
    assert (answer.status, answer.error["param"]) == (400, "model")
    answer = await call(app, "GET", "/v1/models/picture/media?kind=image/x%0D%0Aset-cookie:a")
    assert answer.status == 500
    assert "set-cookie" not in answer.headers
    assert (await call(app, "GET", "/v1/models/melody/media?n=0")).status == 204


async def test_a_failure_cuts_the_stream_off(app: App) -> None:
    http = await connect(app)
    await http.send("GET", "/v1/models/frames/media?n=1&fail=true")
    head = await http.head()
    assert head.status == 200
    got = b""
    with pytest.raises(EOFError):
        async for part in http.body(head):
            got += part
    http.abort()
    assert png(0) in got


async def test_leaving_ends_a_media_stream(app: App) -> None:
    http = await connect(app)
    await http.send("GET", "/v1/models/melody/media?n=1000000")
    assert (await http.head()).status == 200
    http.abort()
    await eventually(lambda: not app.link.router.sessions)
