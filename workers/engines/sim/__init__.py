"""The simulated engine: deterministic tokens at a settable pace, for tests and benchmarks.

In `count` mode token k of every answer has id k and text `" k"`, whatever the prompt, so any
checker knows what must arrive. In `chain` mode token k carries the exec that made it and a hash of
the prompt and every token before it, so that a splice of two answers or a wrong continuation shows
(`chain_next`, `chain_broken`).

- `engine`: `SimEngine`.
- `options`: its settings.
- `tokens`: prompts as tokens, tokens as text, the hashes of `chain` mode.
"""

from workers.engines.sim.engine import SimEngine
from workers.engines.sim.options import SimOptions
from workers.engines.sim.tokens import (
    chain_after,
    chain_broken,
    chain_next,
    chain_seed,
    chain_tag,
)

__all__ = [
    "SimEngine",
    "SimOptions",
    "chain_after",
    "chain_broken",
    "chain_next",
    "chain_seed",
    "chain_tag",
]
