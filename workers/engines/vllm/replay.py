"""Makes vLLM say again what another worker said: then everything that depends on it is exact.

A continuation's prompt could simply end in the delivered tokens, and for greedy and unseeded
answers it does. But penalties count tokens of the answer only, a seeded generator advances with
every token of it, and a grammar's state is that of the answer so far. Where these matter the
delivered tokens are sampled anew, each with every other token ruled out, at the price of a step a
token. Runs in vLLM's own process, which imports it by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

PATH = "workers.engines.vllm.replay:Replay"
KEY = "millstream_replay"


class Replay(LogitsProcessor):  # type: ignore[misc]  # vllm is untyped to mypy
    """Forces the tokens of `extra_args[KEY]`, one a step, from the start of an answer."""

    def __init__(self, _config: Any, _device: torch.device, _pin_memory: bool) -> None:
        # Rows to (what to say, what was said: a list that vLLM appends to).
        self._rows: dict[int, tuple[Sequence[int], Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """It decides the token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests from row to row; forget those that have said everything."""
        process_dict_updates(self._rows, batch_update, _begin)
        if self._rows:
            for row in [row for row, (say, said) in self._rows.items() if len(said) >= len(say)]:
                del self._rows[row]

    def apply(self, logits: Tensor) -> Tensor:
        """Rule out every token but the next to be said."""
        for row, (say, said) in self._rows.items():
            token = say[len(said)]
            logits[row].fill_(-torch.inf)
            logits[row, token] = 0.0
        return logits


def _begin(
    params: SamplingParams, _prompt: list[int] | None, said: list[int]
) -> tuple[Sequence[int], Sequence[int]] | None:
    say = (params.extra_args or {}).get(KEY)
    return (say, said) if say and len(said) < len(say) else None
