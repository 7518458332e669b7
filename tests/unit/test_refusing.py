"""Refusing what would be late, and the switch for it."""

from __future__ import annotations

import pytest

from gateway.admission import LEAST_SAMPLES, Admission
from gateway.settings import GatewaySettings
from shared.errors import Overloaded
from shared.settings import load


def busy(admission: Admission) -> float:
    """Ten a second are taken, and twenty wait; returns the time."""
    now = 0.0
    for _ in range(2 * LEAST_SAMPLES):
        now += 0.1
        admission.waits("m", 2)
        admission.taken("m", 2, now)
        admission.done("m", 0.1)
    for _ in range(20):
        admission.waits("m", 2)
    return now


def test_it_can_be_switched_off() -> None:
    refusing, patient = Admission(), Admission(refuses=False)
    with pytest.raises(Overloaded):
        refusing.check("m", 2, 0.5, busy(refusing))
    patient.check("m", 2, 0.5, busy(patient))


@pytest.mark.parametrize(("given", "refuses"), [({}, True), ({"refuse_late": "false"}, False)])
def test_the_setting(given: dict[str, str], refuses: bool) -> None:
    assert load(GatewaySettings, given).refuse_late is refuses
