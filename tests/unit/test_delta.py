from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.v1 import inference_pb2 as pb
from shared.wire.delta import encode_delta

pytestmark = pytest.mark.unit

UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.integers(0, 2**64 - 1), st.lists(UINT32), TEXT, UINT32, UINT32)
@example(0, [], "", 0, 0)
@example(127, [127], "x" * 127, 1, 1)
@example(128, [128], "x" * 128, 128, 128)
@example(2**21, [2**21 - 1, 2**21], "", 0, 0)
@example(2**14, [2**14 - 1, 2**14], "x" * 2**14, 2**14, 2**14)
@example(5, [0], "", 0, 0)
@example(0, [0] * 2**14, "", 0, 0)
def test_it_writes_the_bytes_that_protobuf_writes(
    index: int, ids: list[int], text: str, choice: int, attempt: int
) -> None:
    message = pb.GenerateResponse(
        delta=pb.Delta(index=index, text=text, token_ids=ids, choice=choice, attempt=attempt)
    )
    encoded = encode_delta(index, tuple(ids), text, choice, attempt)
    assert encoded == message.SerializeToString()
    assert pb.GenerateResponse.FromString(encoded) == message


def test_half_a_character_is_refused_as_protobuf_refuses_it() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_delta(0, (1,), "\ud800", 0, 0)
