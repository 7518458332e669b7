"""The vLLM engine: any model that vLLM runs, with its batching, prefix cache, LoRA and grammars.

- `model`: `VllmModel`, which is one of the two engines, by the checkpoint.
- `engine`: `VllmEngine`, which hands jobs to vLLM and what it says of them to the sink.
- `core`: vLLM's core process, a step's outputs at once.
- `embedding`: `EmbeddingEngine`, which serves a model that embeds texts as a function.
- `embedder`: that function, and the `AsyncLLM` behind it.
- `loading`: from settings to an `AsyncLLM`, with errors that say what to change.
- `arguments`: engine arguments as strings, under the names vLLM gives them.
- `prompts`: from a job to what vLLM is asked.
- `answers`: from what vLLM says to outputs, text and stop strings included.
- `replay`: a logits processor that makes a continuation exact; runs in vLLM's process.
- `ending`: ends vLLM's processes with ours.
- `stats`: what vLLM says of itself after each step.
"""

from workers.engines.vllm.engine import VllmEngine
from workers.engines.vllm.model import VllmModel

__all__ = ["VllmEngine", "VllmModel"]
