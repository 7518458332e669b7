"""What a worker answers JetStream, byte by byte."""

from __future__ import annotations

import pytest

from workers import acks
from workers.intake import SURPLUS_DELAY


def test_golden_bytes() -> None:
    said = (acks.ACK, acks.TERM, acks.WORKING, acks.NAK)
    assert said == (b"+ACK", b"+TERM", b"+WPI", b"-NAK")
    assert acks.nak(1.0) == b'-NAK {"delay": 1000000000}'
    assert acks.nak(SURPLUS_DELAY) == b'-NAK {"delay": 10000000}'


@pytest.mark.parametrize(
    ("token", "deliveries"),
    [
        ("$JS.ACK.MS_REQ.m_standard.3.17.9.1700000000.0", 3),
        ("$JS.ACK.hub.ACCHASH.MS_REQ.m_standard.4.17.9.1700000000.0.xyz", 4),
    ],
)
def test_both_forms_of_ack_subject_tell_the_deliveries(token: str, deliveries: int) -> None:
    assert acks.deliveries(token) == deliveries


@pytest.mark.parametrize("token", ["", "_INBOX.x.1", "a.b.c.d.e.f.g.h.i"])
def test_what_is_no_ack_subject_is_refused(token: str) -> None:
    with pytest.raises(ValueError):
        acks.deliveries(token)
