"""The headers of a queued request, byte by byte: two versions of a cluster read each other's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.wire import envelope

REQUEST = wire.Request(
    "01ABC", 2, "gw-1", "name", "m", "p", None, None, wire.Sampling(), deaths=1
)  # fmt: skip
BLOCK = (
    b"NATS/1.0\r\nNats-Msg-Id: 01ABC.2\r\nNats-TTL: 61\r\nMs-Gateway: gw-1\r\nMs-Deaths: 1\r\n\r\n"
)


def test_golden_bytes() -> None:
    assert envelope.message_id("01ABC", 2) == "01ABC.2"
    assert envelope.headers(REQUEST, ttl=61) == BLOCK
    assert envelope.identity(BLOCK) == ("gw-1", "01ABC", 2, 1)
    assert envelope.stored_id(BLOCK) == "01ABC.2"


def test_headers_that_are_missing_or_not_known_are_no_fault() -> None:
    block = b"NATS/1.0\r\nOther: x\r\nMs-Gateway: g\r\nNats-Msg-Id: a.b.0\r\n\r\n"
    assert envelope.identity(block) == ("g", "a.b", 0, 0)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.0\r\n\r\n",
        b"NATS/1.0\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: nodot\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: .0\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.x\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.-1\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.0\r\nMs-Gateway: \r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.0\r\nMs-Gateway: \xff\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: \xff.0\r\nMs-Gateway: g\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.0\r\nMs-Gateway: g\r\nMs-Deaths: many\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: R.0\r\nMs-Gateway: g\r\nMs-Deaths: -1\r\n\r\n",
    ],
)
def test_headers_that_name_nobody_are_refused(block: bytes) -> None:
    with pytest.raises(wire.WireError, match="headers"):
        envelope.identity(block)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(block: bytes) -> None:
    envelope.stored_id(block)
    try:
        envelope.identity(block)
    except wire.WireError:
        return


def test_an_id_that_is_no_text_is_nobody_s() -> None:
    assert (
        envelope.stored_id(b"NATS/1.0\r\nNats-Msg-Id: \xff\r\n\r\n") == "\N{REPLACEMENT CHARACTER}"
    )
    assert envelope.stored_id(b"NATS/1.0\r\nMs-Gateway: g\r\n\r\n") is None


def test_a_prompt_s_ids_are_little_endian_words() -> None:
    packed = wire.pack_ids((1, 2**32 - 1))
    assert packed == b"\x01\0\0\0\xff\xff\xff\xff"
    begun = wire.Begun(0, 7, packed, 0, "f")
    assert begun.ids() == (1, 2**32 - 1)
    assert begun.prompt_tokens == 2
    assert wire.Begun(0, 7, wire.pack_ids(()), 0, "f").ids() == ()


def test_an_exec_tells_its_workers_boot() -> None:
    boot = 2**32 - 1
    assert ((boot << wire.BOOT_SHIFT) + 2**31 - 1) >> wire.BOOT_SHIFT == boot
