"""A function of torch tensors."""

from __future__ import annotations

from typing import Annotated

import torch

from millstream import App, TorchTensor

app = App("torches")

Numbers = Annotated[torch.Tensor, TorchTensor("float32", "n")]


@app.model("softplus")
def softplus(x: Numbers) -> Numbers:
    return torch.nn.functional.softplus(x)
