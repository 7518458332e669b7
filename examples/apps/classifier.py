"""A classifier with a batch axis: `millstream up examples.apps.classifier:app`.

A small network that learns, when it is loaded, to tell on which side of a circle a point lies: a
real torch module whose calls are stacked into one tensor.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import torch

from millstream import App, TorchTensor

app = App()

Points = Annotated[torch.Tensor, TorchTensor("float32", "batch", 2)]


class Side(Enum):
    """Where a point lies."""

    INSIDE = "inside"
    OUTSIDE = "outside"


@app.model("circle", batch=True, max_batch=256, idempotent=True)
class Circle:
    """Tells whether a point lies in the circle around 0 with radius 1."""

    def load(self, device: str) -> None:
        """Train for a second."""
        torch.manual_seed(1)
        self._net = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
        ).to(device)
        optimizer = torch.optim.Adam(self._net.parameters(), lr=0.02)
        for _ in range(400):
            points = torch.randn(256, 2, device=device)
            outside = (points.norm(dim=1) > 1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                self._net(points).squeeze(1), outside
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._device = device

    def __call__(self, point: Points) -> list[Side]:
        """Classify points, a row each."""
        with torch.inference_mode():
            outside = self._net(point.to(self._device)).squeeze(1) > 0
        return [Side.OUTSIDE if one else Side.INSIDE for one in outside.tolist()]
