from __future__ import annotations

import math
import pickle

import pytest
from grpclib.const import Status

from millstream import errors
from shared.errors import InternalError, MillstreamError, RequestTooLarge

ALL = sorted(MillstreamError.kinds.values(), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_maps_and_survives_the_wire(cls: type[MillstreamError]) -> None:
    assert Status(cls.grpc_status) not in (Status.OK, Status.UNKNOWN)
    assert 400 <= cls.http_status < 600
    error = cls("what", field="f", retry_after=1.5)
    again = MillstreamError.from_wire(error.kind, error.message, error.field, error.retry_after)
    assert (type(again), str(again), again.field, again.retry_after) == (cls, "what", "f", 1.5)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.field, copied.retry_after) == (cls, "f", 1.5)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 1e300])
def test_a_time_to_retry_that_is_none_is_dropped(seconds: float) -> None:
    assert MillstreamError("x", retry_after=seconds).retry_after is None


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    import shared.errors as module

    told = {
        words[0]: (words[1], int(words[2]))
        for line in (module.__doc__ or "").splitlines()
        if len(words := line.replace("|", " ").replace("`--", " ").replace("--", " ").split()) > 2
        and words[0] in MillstreamError.kinds
    }
    assert told == {cls.__name__: (Status(cls.grpc_status).name, cls.http_status) for cls in ALL}


def test_clients_have_all_of_the_tree_and_nothing_else() -> None:
    assert errors.__all__ == sorted([MillstreamError.__name__, *MillstreamError.kinds])
    assert all(getattr(errors, cls.__name__) is cls for cls in ALL)


def test_a_kind_of_a_newer_version_is_internal() -> None:
    assert isinstance(MillstreamError.from_wire("FromTheFuture", "x"), InternalError)


def test_too_large_says_both_sizes() -> None:
    assert "900 bytes" in str(RequestTooLarge.of(900, 800))
    assert "800" in str(RequestTooLarge.of(900, 800))
