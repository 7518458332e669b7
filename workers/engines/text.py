"""Token ids to text, token by token: whole characters only, and never (part of) a stop string.

A `TextStream` holds one answer: `push` tokens, then `take` what is decided. It is deterministic in
the tokens alone, so an answer replayed over the tokens that another worker delivered goes on
exactly where that one stopped. A token costs O(1), amortised, whatever the stop strings.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.wire import TokenLogprobs
from workers.engines.pieces import Pieces

__all__ = ["Pieces", "StopMatcher", "Taken", "TextStream"]

_decoder = codecs.getincrementaldecoder("utf-8")


class StopMatcher:
    """Finds the first of several strings in a text that comes bit by bit (Aho-Corasick).

    The first is the one that ends first; of those that end together the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._edges: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._length = [0]  # of the longest stop string that ends at this node
        for stop in filter(None, stops):
            node = 0
            for char in stop:
                if char not in self._edges[node]:
                    self._edges[node][char] = len(self._edges)
                    self._edges.append({})
                    self._depth.append(self._depth[node] + 1)
                    self._length.append(0)
                node = self._edges[node][char]
            self._length[node] = len(stop)
        self._back = self._link()
        self._node = 0

    def _link(self) -> list[int]:
        """Per node, where to go on when no edge fits: its longest suffix that is a prefix."""
        back = [0] * len(self._edges)
        queue = deque(self._edges[0].values())
        while queue:
            node = queue.popleft()
            self._length[node] = self._length[node] or self._length[back[node]]
            for char, child in self._edges[node].items():
                queue.append(child)
                place = back[node]
                while place and char not in self._edges[place]:
                    place = back[place]
                back[child] = self._edges[place].get(char, 0)
        return back

    @property
    def held(self) -> int:
        """Characters at the end of the text that may begin a stop string."""
        return self._depth[self._node]

    def feed(self, text: str) -> int | None:
        """Read on; where the first stop string begins, relative to `text` (negative: before it)."""
        node = self._node
        for place, char in enumerate(text):
            while node and char not in self._edges[node]:
                node = self._back[node]
            node = self._edges[node].get(char, 0)
            if self._length[node]:
                self._node = node
                return place + 1 - self._length[node]
        self._node = node
        return None


@dataclass(slots=True)
class Taken:
    """Tokens that are decided; the fields are those of `workers.engines.base.Output`."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    ends: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    token: int
    text: str
    logprobs: TokenLogprobs | None
    delivered: bool


class TextStream:
    """One answer's tokens on their way to text.

    A character that the answer leaves unfinished has no text. Of a token in which a stop string
    begins, the text before it is given out; tokens wholly inside it are not.

    Args:
        pieces: The vocabulary.
        stops: The stop strings.

    Attributes:
        stopped: Whether a stop string is complete.
    """

    def __init__(self, pieces: Pieces, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._pieces = pieces
        self._utf8 = _decoder("replace")
        self._partial = False
        self._matcher = StopMatcher(stops) if any(stops) else None
        self._held: deque[_Held] = deque()
        self._held_chars = 0
        self._taken = Taken()

    def replay(self, delivered: Sequence[int]) -> int:
        """Read tokens that the client has already; they are never given out again.

        Returns:
            How many were read; reading ends with a stop string, see `stopped`.
        """
        for count, token in enumerate(delivered, 1):
            if self.push(token, delivered=True):
                return count
        return len(delivered)

    def push(
        self, token: int, logprobs: TokenLogprobs | None = None, *, delivered: bool = False
    ) -> bool:
        """Add the next token; whether it completes a stop string, which ends the answer."""
        text = self._decode(token)
        if self._matcher is None:
            if not delivered:
                self._give(token, text, logprobs)
            return False
        start = self._matcher.feed(text)
        self._held.append(_Held(token, text, logprobs, delivered))
        self._held_chars += len(text)
        if start is not None:
            self.stopped = True
            self._release_before(self._held_chars - len(text) + start)
            return True
        self._release_up_to(self._held_chars - self._matcher.held)
        return False

    @property
    def decided(self) -> int:
        """How many tokens `take` would give."""
        return len(self._taken.token_ids)

    def flush(self) -> None:
        """No token will follow: what is held back is no stop string."""
        while self._held:
            self._pop()

    def take(self) -> Taken | None:
        """What has been decided since the last call; None if nothing."""
        taken = self._taken
        if not taken.token_ids:
            return None
        self._taken = Taken()
        return taken

    def _decode(self, token: int) -> str:
        piece = self._pieces[token]
        if not self._partial and type(piece) is str:
            return piece
        raw = piece.encode() if isinstance(piece, str) else piece
        text = self._utf8.decode(raw)
        self._partial = bool(self._utf8.getstate()[0])
        return text

    def _give(self, token: int, text: str, logprobs: TokenLogprobs | None) -> None:
        taken = self._taken
        taken.token_ids.append(token)
        taken.text += text
        taken.ends.append(len(taken.text))
        if logprobs is not None:
            taken.logprobs.append(logprobs)

    def _pop(self, chars: int | None = None) -> None:
        held = self._held.popleft()
        self._held_chars -= len(held.text)
        if not held.delivered:
            self._give(held.token, held.text[:chars], held.logprobs)

    def _release_up_to(self, safe: int) -> None:
        """Give out the held tokens that end within the first `safe` held characters."""
        while self._held and len(self._held[0].text) <= safe:
            safe -= len(self._held[0].text)
            self._pop()

    def _release_before(self, cut: int) -> None:
        """Give out the held text before `cut`, and forget the rest."""
        while self._held and cut > 0:
            length = len(self._held[0].text)
            self._pop(cut)
            cut -= length
        self._held.clear()
        self._held_chars = 0
