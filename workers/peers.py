"""The gateways as a worker sees them: who lives, what it runs for each, and the leases. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from shared import wire
from workers.digests import Round
from workers.execution import Execution

DIGEST_EVERY = 0.5
QUIET_AFTER = 1.2
LEASE = 2.9
"""Just under the three seconds in which a dead gateway's requests must stop."""
FORGET_AFTER = 60.0


class Standing(Enum):
    """How a gateway stands."""

    LIVE = auto()
    QUIET = auto()
    GONE = auto()


class Peer:
    """One gateway.

    Attributes:
        name: Its id.
        heard: When it was heard of last.
        answered: When it answered a digest last, or the lease began.
        digest_due: When it gets the next digest.
        execs: What runs for it, or has ended and is not closed.
        proven: Whether it was ever heard, or is only named by a request.
        round: The digest that it is being told.
        slices: Whether it takes a digest in slices.
    """

    __slots__ = ("answered", "digest_due", "execs", "heard", "name", "proven", "round", "slices")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.heard = now
        self.answered = now
        self.digest_due = now + DIGEST_EVERY
        self.execs: dict[int, Execution] = {}
        self.proven = False
        self.round: Round | None = None
        self.slices = False


class Peers:
    """Every gateway heard of.

    Args:
        slice_: So many execs of a gateway fit into one digest.
    """

    def __init__(self, slice_: int) -> None:
        self._peers: dict[str, Peer] = {}
        self._slice = slice_

    def get(self, name: str) -> Peer | None:
        """One that was heard of."""
        return self._peers.get(name)

    def meet(self, name: str, now: float) -> Peer:
        """One that was heard of, or is from now on."""
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(name, now)
        return peer

    def heard(self, beat: wire.GatewayBeat, now: float) -> None:
        """A gateway lives, or says good-bye."""
        peer = self.meet(beat.gateway, now)
        peer.proven = not beat.gone
        peer.slices = beat.slices
        peer.heard = now - LEASE - 1.0 if beat.gone else now

    def standing(self, name: str, now: float) -> Standing:
        """How a gateway stands; one never heard of is met, and lives until it proves silent."""
        silent = now - self.meet(name, now).heard
        if silent < QUIET_AFTER:
            return Standing.LIVE
        return Standing.QUIET if silent < LEASE else Standing.GONE

    def begin(self, execution: Execution, now: float) -> None:
        """Something runs for a gateway; its lease begins with the first."""
        peer = self.meet(execution.gateway, now)
        if not peer.execs:
            peer.answered = now
        peer.execs[execution.exec] = execution

    def end(self, execution: Execution) -> None:
        """It is forgotten."""
        peer = self._peers.get(execution.gateway)
        if peer is not None:
            peer.execs.pop(execution.exec, None)

    def renew(self, now: float) -> None:
        """This worker's link was away: leases begin anew, digests are due."""
        for peer in self._peers.values():
            peer.answered = peer.heard = peer.digest_due = now
            peer.round = None

    def stalled(self, seconds: float, now: float) -> None:
        """This process stood still: what could not have been heard is not held against them."""
        for peer in self._peers.values():
            peer.answered = min(now, peer.answered + seconds)
            peer.heard = min(now, peer.heard + seconds)

    def lapsed(self, now: float) -> list[Execution]:
        """What runs for gateways that have not answered for a whole lease."""
        found: list[Execution] = []
        for peer in self._peers.values():
            if peer.execs and now - peer.answered > LEASE:
                found.extend(peer.execs.values())
        return found

    def due(self, now: float) -> Iterator[tuple[Peer, Round]]:
        """Yield those that get a digest now, or more of one. One with nothing in it counts too.

        What this worker gave up by itself is told by its absence, so who lives gets digests
        whether or not anything runs for it.
        """
        for peer in list(self._peers.values()):
            if not peer.execs and now - peer.heard > FORGET_AFTER:
                del self._peers[peer.name]
                continue
            begins = now >= peer.digest_due and (peer.execs or now - peer.heard < LEASE)
            if peer.round is None and begins:
                peer.digest_due = now + DIGEST_EVERY
                execs = [*peer.execs.values()]
                peer.round = Round(execs, self._slice if peer.slices else len(execs))
            if peer.round is not None:
                yield peer, peer.round
                if peer.round.over:
                    peer.round = None

    @property
    def telling(self) -> bool:
        """Whether a digest is under way."""
        return any(peer.round is not None for peer in self._peers.values())
