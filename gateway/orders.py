"""What a gateway tells workers of single execs until they have it: cancels, closings. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gateway.fleet import Fleet
from shared import wire

CANCEL_EVERY = 0.05

Tell = Callable[[str, wire.Frame], None]


class Orders:
    """Cancels, told again until `Ended` comes; closings, told once in a bunch.

    Args:
        gateway: Who tells.
        fleet: Knows which worker runs an exec, and whether it lives.
        tell: Sends to a worker.
    """

    def __init__(self, gateway: str, fleet: Fleet, tell: Tell) -> None:
        self._gateway = gateway
        self._fleet = fleet
        self._tell = tell
        self._cancels: dict[int, tuple[str, float]] = {}
        self._closed: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """How much is still to be told."""
        return len(self._cancels) + len(self._closed)

    def cancel(self, worker: str, exec_: int, now: float) -> None:
        """End an exec; an empty worker is looked up by the exec's boot number."""
        worker = worker or self._fleet.boots.get(exec_ >> wire.BOOT_SHIFT, "")
        if worker and exec_ not in self._cancels:
            self._cancels[exec_] = (worker, now + CANCEL_EVERY)
            self._tell(worker, wire.Cancel(exec_, self._gateway))

    def ended(self, exec_: int) -> None:
        """It says that it ended."""
        self._cancels.pop(exec_, None)

    def close(self, worker: str, exec_: int) -> None:
        """The exec's last word is here; its worker hears so at the next tick."""
        worker = worker or self._fleet.boots.get(exec_ >> wire.BOOT_SHIFT, "")
        if worker:
            self._closed.setdefault(worker, []).append(exec_)

    def tick(self, now: float) -> None:
        """Tell what is due. Who is lost is told nothing: should it return, its digest asks."""
        if self._closed:
            closed, self._closed = self._closed, {}
            for worker, execs in closed.items():
                self._tell(worker, wire.Closed(tuple(execs)))
        for exec_, (worker, due) in list(self._cancels.items()):
            if due > now:
                continue
            known = self._fleet.workers.get(worker)
            if known is None or (known.lost is not None and known.lost_cause != "hung"):
                del self._cancels[exec_]
            else:
                self._cancels[exec_] = (worker, now + CANCEL_EVERY)
                self._tell(worker, wire.Cancel(exec_, self._gateway))
