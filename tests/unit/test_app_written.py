from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream import App
from workers.app import written
from workers.app.binding import Binding
from workers.app.failures import ContractError

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
UINT64 = st.integers(0, 2**64 - 1)

app = App()


@app.model("text")
async def text() -> AsyncIterator[str | None]:
    yield ""


@app.model("raw")
async def raw() -> AsyncIterator[bytes]:
    yield b""


@app.model("once")
async def once() -> str:
    return ""


BINDINGS = {model.signature.name: Binding(model) for model in app.models.values()}


@given(TEXT, UINT64)
@example("", 0)
@example("x" * 127, 127)
@example("x" * 128, 128)
@example("x" * (2**14 - 1), 2**14 - 1)
@example("x" * 2**14, 2**14)
@example("\u00e9" * 2**13, 2**21)
def test_text_is_written_as_protobuf_writes_it(result: str, index: int) -> None:
    message = BINDINGS["text"].typed.response(result=result, index=index)
    assert written.response(result, index) == message.SerializeToString()
    assert BINDINGS["text"].encode(result, index, {}) == message.SerializeToString()


@given(st.binary(), UINT64)
@example(b"", 0)
@example(bytes(2**14), 2**14)
def test_bytes_are_written_as_protobuf_writes_them(result: bytes, index: int) -> None:
    message = BINDINGS["raw"].typed.response(result=result, index=index)
    assert BINDINGS["raw"].encode(result, index, {}) == message.SerializeToString()


def test_one_that_does_not_stream_has_no_index() -> None:
    message = BINDINGS["once"].typed.response(result="x")
    assert BINDINGS["once"].encode("x", 0, {}) == message.SerializeToString()


def test_the_others_take_the_way_through_protobuf() -> None:
    empty = BINDINGS["text"].typed.response(index=3)
    assert BINDINGS["text"].encode(None, 3, {}) == empty.SerializeToString()
    with pytest.raises(ContractError, match="lone surrogates"):
        BINDINGS["text"].encode("\ud800", 3, {})
    with pytest.raises(ContractError, match="want bytes, got str"):
        BINDINGS["raw"].encode("text", 3, {})
