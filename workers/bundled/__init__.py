"""The bundled model: a checkpoint small enough for the repository, made by `training.train`."""

from pathlib import Path

NAME = "tiny-stories"
PATH = Path(__file__).parent / "model"
