"""Random faults: MILLSTREAM_FAULTS of them (5), from MILLSTREAM_SEED on (0)."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.random_scenarios import run, scenario

FAULTS = int(os.environ.get("MILLSTREAM_FAULTS", "5"))
SEED = int(os.environ.get("MILLSTREAM_SEED", "0"))


async def test_random_faults(tmp_path: Path) -> None:
    wrong = await run(tmp_path, range(SEED, SEED + FAULTS))
    assert not wrong, wrong


def test_a_seed_is_a_scenario() -> None:
    assert scenario(7) == scenario(7)
    assert len({scenario(seed) for seed in range(50)}) > 40
