from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.buckets import Bucket
from gateway.access.tenants import ASSUMED_TOKENS, Limits, Tenant
from shared.errors import Forbidden, MillstreamError, Overloaded

INTERACTIVE, STANDARD, BATCH = 1, 2, 3


def test_a_bucket_begins_full_and_refills_at_its_rate() -> None:
    bucket = Bucket(2.0, 4.0, now=10.0)
    assert bucket.wait(4.0, 10.0) == 0.0
    bucket.take(4.0, 10.0)
    assert bucket.wait(1.0, 10.0) == pytest.approx(0.5)
    assert bucket.level(11.0) == pytest.approx(2.0)
    assert bucket.level(100.0) == 4.0


def test_a_bucket_in_debt_waits_longer() -> None:
    bucket = Bucket(10.0, 10.0, now=0.0)
    bucket.take(30.0, 0.0)
    assert bucket.wait(10.0, 0.0) == pytest.approx(3.0)


def test_more_than_a_bucket_holds_waits_for_a_full_one() -> None:
    bucket = Bucket(1.0, 5.0, now=0.0)
    assert bucket.wait(50.0, 0.0) == 0.0
    bucket.take(5.0, 0.0)
    assert bucket.wait(50.0, 0.0) == pytest.approx(5.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5)), max_size=30), st.floats(0.1, 100))
def test_a_bucket_never_gives_more_than_rate_and_burst(
    asked: list[tuple[float, float]], rate: float
) -> None:
    capacity, now, taken = 7.0, 0.0, 0.0
    bucket = Bucket(rate, capacity, now)
    for pause, amount in asked:
        now += pause
        if bucket.wait(amount, now) == 0.0:
            bucket.take(amount, now)
            taken += amount
    assert taken <= capacity + rate * now + 1e-6 * (1 + taken)


def test_without_limits_everything_goes() -> None:
    tenant = Tenant("a", Limits(), 0.0)
    for _ in range(1000):
        tenant.begin("any", BATCH, 10**9, 0.0)
    assert tenant.open == 1000


@pytest.mark.parametrize(
    ("limits", "model", "urgency", "field"),
    [
        (Limits(models=("small",)), "large", STANDARD, "model"),
        (Limits(priorities=("batch",)), "small", INTERACTIVE, "priority"),
        (Limits(models=("small",), priorities=("batch",)), "small", STANDARD, "priority"),
    ],
)
def test_what_is_not_granted_is_forbidden(
    limits: Limits, model: str, urgency: int, field: str
) -> None:
    tenant = Tenant("a", limits, 0.0)
    with pytest.raises(Forbidden) as caught:
        tenant.begin(model, urgency, 1, 0.0)
    assert caught.value.field == field
    assert tenant.open == 0


def test_requests_at_a_time() -> None:
    tenant = Tenant("a", Limits(streams=1), 0.0)
    lease = tenant.begin("m", STANDARD, 1, 0.0)
    assert refused(tenant).field == "tenants/a/streams"
    tenant.end(lease, 1, 0.0)
    tenant.begin("m", STANDARD, 1, 0.0)


def test_requests_a_second() -> None:
    tenant = Tenant("a", Limits(requests_per_second=2.0, request_burst=2.0), 0.0)
    for _ in range(2):
        tenant.end(tenant.begin("m", STANDARD, 1, 0.0), 1, 0.0)
    error = refused(tenant)
    assert error.field == "tenants/a/requests_per_second"
    assert error.retry_after == pytest.approx(0.5)
    tenant.begin("m", STANDARD, 1, 0.5)


def test_tokens_are_reserved_and_settled_by_what_was_used() -> None:
    tenant = Tenant("a", Limits(tokens_per_second=10.0, token_burst=100.0), 0.0)
    lease = tenant.begin("m", STANDARD, 80, 0.0)
    error = refused(tenant, most=80)
    assert error.field == "tenants/a/tokens_per_second"
    assert error.retry_after == pytest.approx(6.0)
    tenant.end(lease, 15, 0.0)
    tenant.begin("m", STANDARD, 80, 0.0)


def test_a_long_answer_is_paid_for_afterwards() -> None:
    tenant = Tenant("a", Limits(tokens_per_second=10.0, token_burst=100.0), 0.0)
    lease = tenant.begin("m", STANDARD, 1000, 0.0)
    tenant.end(lease, 400, 0.0)
    assert refused(tenant, most=100).retry_after == pytest.approx(40.0)


def test_a_request_that_names_no_most_reserves_an_assumed_one() -> None:
    tenant = Tenant("a", Limits(tokens_per_second=1.0, token_burst=1000.0), 0.0)
    assert tenant.begin("m", STANDARD, None, 0.0).reserved == ASSUMED_TOKENS


def test_a_refusal_counts_nothing() -> None:
    limits = Limits(requests_per_second=1.0, tokens_per_second=1.0, token_burst=10.0)
    tenant = Tenant("a", limits, 0.0)
    tenant.begin("m", STANDARD, 10, 0.0)
    with pytest.raises(MillstreamError):
        tenant.begin("m", STANDARD, 10, 5.0)
    assert tenant.open == 1
    tenant.begin("m", STANDARD, 10, 10.0)


def test_new_limits_hold_at_once_and_open_requests_stay_counted() -> None:
    tenant = Tenant("a", Limits(), 0.0)
    lease = tenant.begin("m", STANDARD, None, 0.0)
    tenant.change(Limits(streams=1), 0.0)
    refused(tenant)
    tenant.end(lease, 10, 0.0)
    tenant.begin("m", STANDARD, None, 0.0)
    assert math.isinf(lease.reserved) is False


def refused(tenant: Tenant, most: int | None = 1) -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        tenant.begin("m", STANDARD, most, 0.0)
    assert caught.value.retry_after is not None
    return caught.value
