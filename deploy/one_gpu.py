"""Start a command on one GPU that no other container of this machine uses.

    python one_gpu.py python -m workers

Compose gives every replica of a service the same devices: `count: 1` is GPU 0 for each of them. So
each container gets all GPUs, and this picks the first whose lock is free, in a folder that the
containers share. The lock is the process's own: it goes with it, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = "MILLSTREAM_GPU_LOCKS"


def gpus() -> list[str]:
    """The GPUs' numbers, in the order of the PCI bus."""
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def claim(folder: Path, numbers: Sequence[str]) -> str | None:
    """Lock the first free GPU until this process ends; None where all are taken."""
    for number in numbers:
        lock = os.open(folder / f"gpu-{number}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)
        return number
    return None


def main(command: Sequence[str]) -> None:
    """Claim a GPU and become the command."""
    if not command:
        raise SystemExit("usage: one_gpu.py COMMAND ...")
    folder = Path(os.environ.get(FOLDER, "/run/gpus"))
    numbers = gpus()
    number = claim(folder, numbers)
    if number is None:
        raise SystemExit(f"{len(numbers)} GPUs, each with a worker: scale down")
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = number
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
