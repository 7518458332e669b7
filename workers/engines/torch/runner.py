"""A step: a chunk of prompt, one token for every lane, and what they say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shared.errors import EngineError
from workers.engines.base import Output
from workers.engines.torch.batch import Layout
from workers.engines.torch.generation import Generation
from workers.engines.torch.loading import Loaded
from workers.engines.torch.sampler import Picks, Sampler
from workers.engines.torch.scheduler import Prefill, Scheduler


@dataclass(slots=True)
class _Said:
    """What a step produced.

    Attributes:
        outputs: In the order of the slots.
        ended: Slots whose answer is complete.
        failed: Jobs that failed.
    """

    outputs: list[Output] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)


class Runner:
    """Owns model, cache and batch; used by one thread, in inference mode.

    Args:
        loaded: The model.
        slots: Lanes that run at once.
        chunk: Prompt tokens per step.

    Attributes:
        scheduler: Who runs.
    """

    def __init__(self, loaded: Loaded, slots: int, chunk: int) -> None:
        self.scheduler: Scheduler[Generation] = Scheduler(slots, chunk)
        self._model = loaded.model
        self._cache = loaded.cache
        self._layout = Layout(loaded.cache, loaded.device, loaded.torch_dtype)
        self._sampler = Sampler(loaded.config.vocab_size, loaded.device)
        self._bound = -1
        self._counted = (-1, 0)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.scheduler.idle

    @property
    def jobs(self) -> int:
        """How many jobs have a slot."""
        if self._counted[0] != self.scheduler.version:
            jobs = len({lane.job for lane in self.scheduler.lanes})
            self._counted = (self.scheduler.version, jobs)
        return self._counted[1]

    def warm_up(self) -> None:
        """Run the kernels once, on padding."""
        for width in (1, 2):
            hidden = self._model.forward(self._layout.padding(width), self._cache)
            self._model.logits(hidden).argmax(dim=-1).tolist()

    def add(self, lane: Generation) -> None:
        """Queue a lane."""
        self.scheduler.add(lane)

    def abort(self, jobs: Collection[int]) -> None:
        """Drop jobs, between two steps."""
        self._cache.copy(self.scheduler.discard(jobs))

    def step(self) -> list[Output]:
        """Advance every running lane by one token, or one lane by a chunk of its prompt."""
        scheduler = self.scheduler
        prefill = scheduler.plan()
        states = []
        if scheduler.decoding:
            batch = self._layout.decode(scheduler.lanes[: scheduler.decoding])
            states.append(self._model.forward(batch, self._cache))
        if prefill is not None:
            states.append(self._prefill(prefill))
        copies = scheduler.advance(prefill)
        if copies:
            self._cache.copy(copies)
            everything = torch.cat(states)
            states = [everything, everything[[copy.source for copy in copies]]]
        hidden = states[0] if len(states) == 1 else torch.cat(states)
        return self._conclude(self._model.logits(hidden))

    def _prefill(self, prefill: Prefill) -> Tensor:
        """Compute prompt tokens; the hidden states of each lane's last one."""
        lanes = self.scheduler.lanes[prefill.first :]
        batch = self._layout.prefill(prefill, lanes)
        hidden = self._model.forward(batch, self._cache)
        return hidden[[row * batch.width + count - 1 for row, count in enumerate(prefill.counts)]]

    def _conclude(self, logits: Tensor) -> list[Output]:
        """Sample for the lanes that decode now, and let go of those that are done."""
        scheduler = self.scheduler
        lanes = scheduler.lanes[: scheduler.decoding]
        said = self._speak(lanes, self._pick(logits[: len(lanes)], lanes))
        for slot, lane in enumerate(scheduler.lanes[len(lanes) :], len(lanes)):
            # A prompt that breaks the arithmetic is found before its cache row moves anywhere.
            if not logits[slot].isfinite().all():
                self._fail(slot, lane, said)
        if said.ended:
            self._cache.copy(scheduler.leave(said.ended))
        if said.failed:
            self.abort(said.failed)
        return said.outputs

    def _pick(self, logits: Tensor, lanes: list[Generation]) -> Picks:
        if not lanes:
            return Picks([], {})
        try:
            if self._bound != self.scheduler.version:
                self._sampler.bind(lanes)
                self._bound = self.scheduler.version
            return self._sampler.pick(logits, lanes)
        except Exception:  # one lane's failure is found below, and is not its neighbours'
            self._bound = -1
            return self._pick_each(logits, lanes)

    def _pick_each(self, logits: Tensor, lanes: list[Generation]) -> Picks:
        picks = Picks([], {})
        for row, lane in enumerate(lanes):
            try:
                self._sampler.bind([lane])
                alone = self._sampler.pick(logits[row : row + 1], [lane])
            except Exception as error:  # it becomes this lane's error
                picks.tokens.append(-1)
                picks.errors[row] = repr(error)
                continue
            picks.tokens += alone.tokens
            if 0 in alone.candidates:
                picks.candidates[row] = alone.candidates[0]
        return picks

    def _speak(self, lanes: list[Generation], picks: Picks) -> _Said:
        said = _Said()
        candidates = picks.candidates
        for slot, (lane, token) in enumerate(zip(lanes, picks.tokens, strict=True)):
            if token < 0:
                self._fail(slot, lane, said, picks.errors.get(slot))
                continue
            try:
                output = lane.accept(token, candidates.get(slot))
            except Exception as error:  # a fault in one answer's text is not its neighbours'
                self._fail(slot, lane, said, repr(error))
                continue
            if output is not None:
                said.outputs.append(output)
                if output.finish is not None:
                    said.ended.add(slot)
        return said

    def _fail(self, slot: int, lane: Generation, said: _Said, reason: str | None = None) -> None:
        """End a lane's job with an error; zero its row, since masked values must be finite."""
        self._cache.clear(slot)
        said.failed.add(lane.job)
        reason = reason or "the model's scores are not finite"
        said.outputs.append(Output(lane.job, [], "", [], error=EngineError(reason)))
