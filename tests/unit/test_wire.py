from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any
from unittest.mock import patch

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.wire import fast
from shared.wire.generic import check, decoder
from shared.wire.tags import NESTED

CARD = wire.ModelCard("m", "sim", 10, 20, "none", "f", ("resume",), 4)

GOLDEN: dict[str, tuple[wire.Frame, str]] = {
    "claim": (wire.Claim(1, 7, "w", 3), "9601010107a17703"),
    "begun": (wire.Begun(0, 7, b"\1\0\0\0", 2, "f"), "9701020007c4040100000002a166"),
    "chunk": (wire.Chunk(0, 7, 5, (9,), " 9"), "9a01030007059109a22039c000c0"),
    "chunks": (
        wire.Chunk(1, 7, 5, (9, 8), " 9 8", (2, 4), 1),
        "9a0103010705920908a4203920389202" + "0401c0",
    ),
    "done": (wire.Done(0, 7, (2,), ("stop",), 2), "9701040007910291a473746f7002"),
    "failed": (
        wire.Failed(0, 7, "Unavailable", "no", "", 1.5),
        "9a01050007ab556e617661696c61626c65a26e6fa0cb3ff800000000000000c400",
    ),
    "parts": (wire.Parts(0, 7, 3, (b"\0ab", b"\1c")), "96010700070392c403006162c4020163"),
    "taken": (wire.Taken(7, 3), "9401120703"),
    "released": (wire.Released(0, 7, (2,)), "95010600079102"),
    "go": (wire.Go(7, 1500), "94010a07cd05dc"),
    "stop": (wire.Stop(7), "93010b07"),
    "cancel": (wire.Cancel(7, "g"), "94010c07a167"),
    "resend": (wire.Resend(7, 0, 3, True), "96010d070003c3"),
    "digest_reply": (
        wire.DigestReply("g", 4, (7,), ((8, (1, 2)),), (9,)),
        "97010ea1670491079192089201029109",
    ),
    "probe": (wire.Probe("g", 5), "94010fa16705"),
    "later": (wire.Later(7, 100), "9401100764"),
    "closed": (wire.Closed((7,)), "9301119107"),
    "digest": (
        wire.Digest("w", 4, (wire.DigestEntry("R", 7, (2,), True),)),
        "970114a177049194a152079102c300c3",
    ),
    "probe_reply": (wire.ProbeReply("w", 5), "940115a17705"),
    "heartbeat": (
        wire.Heartbeat("w", 1, "m", "ready", 5, 2, 4),
        "9c0116a17701a16da5726561647905020400cb000000000000000000",
    ),
    "announce": (
        wire.Announce("w", 9, "n", "ready", "m", CARD, "", "s/1"),
        "9a0117a17709a16ea57265616479a16d99a16da373696d0a14a46e6f6e65a166"
        "91a6726573756d6504c400a0a3732f31",
    ),
    "gateway_beat": (wire.GatewayBeat("g"), "950118a167c2c2"),
    "ended": (wire.Ended(7), "93011907"),
    "echo": (wire.Echo(5), "93011a05"),
    "cancel_ask": (wire.CancelAsk("t", "r"), "94011ea174a172"),
    "cancel_answer": (wire.CancelAnswer("g", True), "94011fa167c3"),
    "request": (
        wire.Request("R", 0, "g", "n", "m", "hi", None, None, wire.Sampling(max_tokens=3)),
        "dc001a0128a15200a167a16ea16da26869c0c09d03c0c0c0c090c0cb0000000000000000cb"
        "0000000000000000cb3ff0000000000000c0c2010290a090a0a0c0a000c090000000c2",
    ),
}
"""What crosses the wire today. A change here breaks clusters that run two versions at once."""


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    frame, expected = GOLDEN[name]
    assert wire.encode(frame).hex() == expected
    assert wire.decode(bytes.fromhex(expected)) == frame


def test_every_frame_has_golden_bytes_and_a_tag_of_its_own() -> None:
    assert {type(frame) for frame, _ in GOLDEN.values()} == set(wire.TAGS.values())
    assert len(set(wire.TAGS.values())) == len(wire.TAGS)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_newer_version_with_more_fields_is_read(name: str) -> None:
    frame, expected = GOLDEN[name]
    array = msgpack.unpackb(bytes.fromhex(expected))
    newer = msgpack.packb([wire.VERSION + 1, *array[1:], {"something": "new"}])
    assert wire.decode(newer) == frame


@pytest.mark.parametrize("name", sorted(GOLDEN.keys() - {"chunks"}))
def test_an_older_version_without_the_fields_that_have_defaults_is_read(name: str) -> None:
    frame, expected = GOLDEN[name]
    array = msgpack.unpackb(bytes.fromhex(expected))
    required = sum(1 for field in fields(frame) if not _has_default(field))
    older = wire.decode(msgpack.packb(array[: 2 + required]))
    for field in fields(frame)[:required]:
        assert getattr(older, field.name) == getattr(frame, field.name)


def _has_default(field: Any) -> bool:
    return field.default is not MISSING


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"garbage", "not msgpack|not a frame"),
        (msgpack.packb(7), "not a frame"),
        (msgpack.packb([1]), "not a frame"),
        (msgpack.packb({"a": 1}), "not a frame"),
        (msgpack.packb([0, 1, 1]), "wire version 0"),
        (msgpack.packb(["1", 1, 1]), "wire version"),
        (msgpack.packb([1, 99]), "unknown tag 99"),
        (msgpack.packb([1, "x"]), "unknown tag"),
        (msgpack.packb([1, 1, 0]), "Claim: 1 fields, want 4"),
        (msgpack.packb([1, 1, 0, "7", "w", 0]), "want an integer, got str"),
        (msgpack.packb([1, 1, True, 7, "w", 0]), "want an integer, got bool"),
        (msgpack.packb([1, 3, 0, 7, 0, [], "", None, 0, None]), "ends"),
        (msgpack.packb([1, 3, 0, 7, 0, [1, 2], "ab", [1], 0, None]), "ends"),
        (msgpack.packb([1, 3, 0, 7, 0, ["x"], "a", None, 0, None]), "want an integer"),
        (msgpack.packb([1, 14, "g", 1, [], [[1]], []]), "want a pair"),
        (msgpack.packb([1, 20, "w", 1, [7]]), "want an array"),
        (msgpack.packb([1, 2, 0, 7, "text", 0, "f"]), "want bytes"),
        (msgpack.packb([1, 24, "g", 1]), "want a boolean"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(wire.WireError, match=complaint):
        wire.decode(data)


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    try:
        wire.decode(data)
    except wire.WireError:
        return


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 1 << 40)
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(sorted(wire.TAGS)), st.lists(_plain, max_size=18))
def test_no_fields_do_worse_than_be_refused(tag: int, values: list[Any]) -> None:
    try:
        frame = wire.decode(msgpack.packb([1, tag, *values]))
    except wire.WireError:
        return
    assert type(frame) is wire.TAGS[tag]


SLOW = {
    tag: decoder(cls, {one.__name__: check(one) for one in NESTED})
    for tag, cls in wire.TAGS.items()
    if cls not in (wire.Chunk, wire.Parts)  # Theirs refuse more than the generic ones.
}  # fmt: skip
FIRST = wire.Request(
    "R", 0, "g", "n", "m", None, (wire.Message("user", "hi"),), None,
    wire.Sampling(temperature=0.5, stop=("x",), seed=3),
)  # fmt: skip
USUAL: list[tuple[wire.Frame, bool]] = [
    (wire.Go(7, None), True),
    (wire.Go(7, 1500), True),
    (wire.Claim(1, 7, "w", 3), True),
    (wire.Begun(0, 7, b"\1\0\0\0", 2, "f"), True),
    (wire.Done(0, 7, (2, 3), ("stop", "length"), 5), True),
    (wire.Closed((7, 8)), True),
    (FIRST, True),
    (replace(FIRST, prompt="hi", messages=None), True),
    (replace(FIRST, token_ids=(1, 2), messages=None), True),
    (replace(FIRST, messages=None, call=b"c", sampling=wire.Sampling()), True),
    (replace(FIRST, delivered=((1,),), fingerprint="f"), False),
    (replace(FIRST, labels=(("a", "b"),)), False),
    (replace(FIRST, structured=wire.Structured("regex", "x")), False),
    (replace(FIRST, sampling=wire.Sampling(temperature=1)), False),
]
"""Frames, and whether the quick decoder needs no help with them."""


def _outcome(read: Callable[[], wire.Frame]) -> str:
    try:
        return repr(read())  # 1, 1.0 and True are equal, but not the same.
    except wire.WireError as error:
        return f"refused: {error}"


def _read_slowly(array: list[Any]) -> str:
    plain = msgpack.unpackb(msgpack.packb(array), use_list=False)
    return _outcome(lambda: SLOW[plain[1]](plain, 2))


@pytest.mark.parametrize(("frame", "alone"), USUAL)
def test_quick_decoders_do_the_usual_alone(frame: wire.Frame, alone: bool) -> None:
    helped: list[int] = []

    def slow(array: tuple[Any, ...], offset: int) -> wire.Frame:
        helped.append(offset)
        return SLOW[array[1]](array, offset)  # type: ignore[no-any-return]

    array = msgpack.unpackb(wire.encode(frame), use_list=False)
    with patch("shared.wire.fast._generic_request", slow):
        read = fast.decode_request if array[1] == 40 else fast.quick(type(frame), slow)
        assert read(array, 2) == frame
    assert (not helped) == alone
    assert _outcome(lambda: wire.decode(wire.encode(frame))) == _read_slowly([*array])


_changed = st.one_of(
    _plain, st.floats(allow_nan=False), st.sampled_from([True, 1, 1.0, "", b"", [], None])
)


@given(st.data())
def test_quick_and_generic_decoders_agree_on_everything(data: st.DataObject) -> None:
    frames = [frame for frame, _ in USUAL] + [frame for frame, _ in GOLDEN.values()]
    known = [frame for frame in frames if not isinstance(frame, wire.Chunk | wire.Parts)]
    array = msgpack.unpackb(wire.encode(data.draw(st.sampled_from(known))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(2, len(array)))
        inner = array[place] if place < len(array) else None
        if place == len(array):
            array.append(data.draw(_changed))
        elif isinstance(inner, list) and inner and data.draw(st.booleans()):
            inner[data.draw(st.integers(0, len(inner) - 1))] = data.draw(_changed)
        elif data.draw(st.integers(0, 5)) == 0:
            del array[place:]
        else:
            array[place] = data.draw(_changed)
    assert _outcome(lambda: wire.decode(msgpack.packb(array))) == _read_slowly(array)


def test_the_fast_path_of_chunks_is_the_slow_one() -> None:
    slow = wire.encode(wire.Chunk(1, 7, 5, (9, 8), " 9 8", (2, 4), 1))
    assert wire.encode_chunk(1, 7, 5, [9, 8], " 9 8", [2, 4], 1, None) == slow
