"""What a function is asked for, and what it must give.

An item tells its call, its index and the exec that gave it, and all its bytes depend on these. So
the checker sees order, gaps, what is cut short, and an item that is spliced of two runs.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import astuple, dataclass
from functools import lru_cache

from shared import wire

SIZES = {
    "small": (0, 40, 900),
    "mixed": (0, 900, 20_000, 150_000),
    "long": (0, 40, wire.PART_MOST - 1, wire.PART_MOST, 300_000, 700_000, 1_200_000),
}
"""Bytes of the items of a call, by its kind: from empty ones to one that is more than a window.
An item's length differs from exec to exec, but which are empty is the same for all."""
ITEM_MOST = 1_200_000
LONG_MOST = 8
"""Long items a call, at most: a schedule should not move a hundred megabytes."""

_PAD = random.Random(0).randbytes(2 * ITEM_MOST)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the simulated function.

    Attributes:
        number: Which: what it gives depends on it.
        count: Items that it gives.
        sizes: How long they are; see `SIZES`.
        burst: Items that it may give in one step.
        fails: Whether it raises after the last.
        late: Whether its end comes a step after its last item.
        poison: Whether it kills every worker at its first step.
    """

    number: int
    count: int
    sizes: str
    burst: int = 1
    fails: bool = False
    late: bool = False
    poison: bool = False

    def encode(self) -> bytes:
        """As the request carries it."""
        return " ".join(map(str, astuple(self))).encode()

    @classmethod
    def decode(cls, data: bytes) -> Call:
        """What `encode` made."""
        number, count, sizes, burst, *flags = data.decode().split()
        fails, late, poison = (flag == "True" for flag in flags)
        return cls(int(number), int(count), sizes, int(burst), fails, late, poison)

    def item(self, index: int, exec_: int) -> bytes:
        """The item at an index, as an exec gives it."""
        return _item(self.number, index, self.sizes, exec_)

    def has(self, index: int, item: bytes) -> bool:
        """Whether an item is what some exec gives at an index."""
        exec_ = item[:64].partition(b"|")[0].rpartition(b".")[2]
        return item == self.item(index, int(exec_) if exec_.isdigit() else 0)


@lru_cache(maxsize=32)
def _item(number: int, index: int, sizes: str, exec_: int) -> bytes:
    lengths = SIZES[sizes]
    if lengths[0] == 0 and zlib.crc32(f"{number}.{index}".encode()) % len(lengths) == 0:
        return b""
    label = f"{number}.{index}.{exec_}|".encode()
    chance = zlib.crc32(label)
    size = lengths[1 + chance % (len(lengths) - 1)]
    start = (chance >> 8) % ITEM_MOST
    return (label + _PAD[start : start + size])[:size]
