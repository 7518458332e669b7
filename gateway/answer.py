"""An answer at the gateway: what the client has, what is missing, and asking for it. Pure.

Who may speak is `gateway.session`'s business; everything here comes from an exec that may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.lane import Lane
from gateway.ports import Outlet
from shared import wire

RESEND_EVERY = 0.05
GAP_LIMIT = 1.0

Ask = Callable[[int, int, bool], None]
"""Asks the exec for a choice's tokens from an index on, and for its `Begun` if that is missing."""


def _ask_nobody(_choice: int, _index: int, _begun: bool) -> None:
    pass


class Answer:
    """One answer.

    Args:
        lanes: One a choice.
        outlet: Gets what is new and next. Its methods are looked up once: a token then touches
            neither the outlet nor what stands before it.
        ask: Asks for what is missing.
        count: Counts an event.

    Attributes:
        lanes: Its choices.
        begun: What a continuation needs; kept from the first attempt that began.
        done: The exec's last word, which waits for the frontier.
        first_token: When the first was delivered.
        gap_since: Since when something has been missing and nothing came, or None.
    """

    __slots__ = (
        "_ask", "_asked", "_count", "_first", "_forward", "_give", "begun", "done", "first_token",
        "gap_since", "lanes",
    )  # fmt: skip

    def __init__(
        self, lanes: Sequence[Lane], outlet: Outlet, ask: Ask, count: Callable[[str], None]
    ) -> None:
        self._give = outlet.delta
        self._forward = outlet.forward
        self._ask = ask
        self._count = count
        self._asked = 0.0
        self.lanes = lanes
        self._first = lanes[0]
        self.begun: wire.Begun | None = None
        self.done: wire.Done | None = None
        self.first_token: float | None = None
        self.gap_since: float | None = None

    @property
    def frontiers(self) -> tuple[int, ...]:
        """Tokens delivered of each choice: the exec need not keep what is below."""
        return tuple([lane.frontier for lane in self.lanes])

    @property
    def reached(self) -> int:
        """Tokens delivered, over all choices."""
        return sum(self.frontiers)

    @property
    def complete(self) -> bool:
        """Whether everything that the exec said is delivered."""
        return self.done is not None and not self._missing()

    def continuation(self, request: wire.Request) -> wire.Request:
        """A request that goes on from what was delivered."""
        begun = self.begun
        if begun is None:  # Then nothing was delivered either: see `on_chunk`.
            return request
        return replace(
            request,
            prompt=None,
            messages=None,
            token_ids=begun.ids(),
            delivered=tuple(tuple(lane.delivered) for lane in self.lanes),
            fingerprint=begun.fingerprint,
        )

    # ---- what the exec says ---------------------------------------------------------------------

    def on_begun(self, begun: wire.Begun, now: float) -> None:
        """Keep what a continuation will need, and deliver what waited for it."""
        if self.begun is None:
            self.begun = begun
            if self.gap_since is not None:
                self._progress(now)

    def on_chunk(self, chunk: wire.Chunk | wire.Parts, now: float) -> bool:
        """Deliver what is new and next, keep what is early, drop what is said already.

        Nothing is delivered before `Begun` is here: without the prompt's ids the answer could not
        be continued after its first tokens.

        Returns:
            True where nothing is missing and nothing waits: the usual case.
        """
        choice = chunk.choice
        if not choice:
            lane = self._first
        elif 0 < choice < len(self.lanes):
            lane = self.lanes[choice]
        else:
            self._count("malformed")
            return False
        if chunk.index == lane.frontier and self.begun is not None:
            self._deliver(lane, chunk, now)
            if self.gap_since is None and self.done is None:
                return True
            self._progress(now)
        elif chunk.index >= lane.frontier:
            lane.hold(chunk)
            self.repair(now)
        elif chunk.stop > lane.frontier:
            return self.on_chunk(chunk.after(lane.frontier), now)
        return False

    def on_token(self, index: int, token: int, message: bytes) -> bool:
        """Deliver the first choice's next token, whose message is ready.

        Where one was delivered before it and there is no gap, `begun` and `first_token` are known
        and `done` is not.

        Returns:
            Whether it was delivered. It is not where more is to be done: if it is the first, or not
            the next, while something is missing, or where the client gets other messages.
        """
        delivered, forward = self._first.delivered, self._forward
        if index != len(delivered) or not index or forward is None or self.gap_since is not None:
            return False
        delivered.append(token)
        forward(message)
        return True

    def on_done(self, done: wire.Done, now: float) -> None:
        """The exec is through; the end waits for the frontier."""
        if len(done.totals) != len(self.lanes) or len(done.reasons) != len(self.lanes):
            self._count("malformed")
            return
        self.done = done
        if self._missing():
            self.repair(now)

    def _deliver(self, lane: Lane, chunk: wire.Chunk | wire.Parts, now: float) -> None:
        assert type(chunk) is wire.Chunk
        try:
            lane.advance(chunk)
        except OverflowError:
            self._count("malformed")
            return
        if self.first_token is None:
            self.first_token = now
        self._give(
            chunk.index, chunk.token_ids, chunk.text, chunk.choice, chunk.attempt, chunk.logprobs,
            chunk.ends,
        )  # fmt: skip

    def _progress(self, now: float) -> None:
        """Something missing came: deliver what waited for it, and see what is missing still."""
        if self.begun is not None:
            for lane in self.lanes:
                for chunk in lane.due():
                    self._deliver(lane, chunk, now)
        self.gap_since = now if self._missing() else None

    # ---- what is missing ------------------------------------------------------------------------

    def _missing(self) -> bool:
        """Whether something was said, or is known to have been, that is not here."""
        if any([lane.early for lane in self.lanes]):  # noqa: C419  # No generator: thrice as fast.
            return True
        done = self.done
        if done is None:
            return False
        return self.begun is None or any(
            [lane.frontier < total for lane, total in zip(self.lanes, done.totals, strict=True)]  # noqa: C419
        )

    def repair(self, now: float) -> None:
        """Ask for what is missing: at once, then every 50 ms."""
        if self.gap_since is None:
            self.gap_since = now
            self._count("gap")
        elif now - self._asked < RESEND_EVERY:
            return
        self._asked = now
        begun = self.begun is None
        for choice, lane in enumerate(self.lanes):
            if begun or lane.early or (self.done and lane.frontier < self.done.totals[choice]):
                self._ask(choice, lane.frontier, begun)

    def unfillable(self, now: float) -> bool:
        """Whether a gap has been there for so long that asking is in vain."""
        return self.gap_since is not None and now - self.gap_since > GAP_LIMIT

    def compare(self, entry: wire.DigestEntry) -> None:
        """Ask for what a worker's digest says it sent and is not here."""
        pairs = zip(entry.totals, self.lanes, strict=False)
        if entry.ended or any([sent > lane.frontier for sent, lane in pairs]):  # noqa: C419
            self._count("repair")
            for choice, lane in enumerate(self.lanes):
                self._ask(choice, lane.frontier, self.begun is None)

    def over(self) -> None:
        """The request has ended: nothing is asked for, and the session is let go.

        The two hold each other otherwise, and wait for the garbage collector with all they keep.
        """
        self._ask = _ask_nobody

    def freeze(self) -> None:
        """The exec lost the right to speak: what it said beyond the frontier never was."""
        self.done = None
        self.gap_since = None
        for lane in self.lanes:
            lane.early.clear()
