"""From a name or directory to a model in memory, with errors that say what to change."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError

from workers.engines.base import ModelLoadError
from workers.engines.fingerprint import checkpoint
from workers.engines.hub import offline, refused
from workers.engines.torch.cache import KVCache, cache_bytes, positions_for
from workers.engines.torch.config import Defaults, ModelConfig
from workers.engines.torch.model import Llama
from workers.engines.torch.weights import read_weights, weight_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"
"""The weights of the decoder's linear layers in int8, all else as with auto."""
DEVICES = ("cpu", "cuda", "mps")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run.

    Attributes:
        config: Its shape.
        defaults: Its author's sampling.
        tokenizer: As transformers loads it.
        model: The forward pass with weights.
        cache: The KV cache.
        context: Tokens of prompt and answer together, at most.
        dtype: The name of the number type of its weights: a key of `DTYPES`, or `INT8`.
        torch_dtype: What it computes in.
        device: Where it computes.
        parameters: How many.
        fingerprint: Of config, tokenizer and weights, the served name and the dtype.
    """

    config: ModelConfig
    defaults: Defaults
    tokenizer: Any
    model: Llama
    cache: KVCache
    context: int
    dtype: str
    torch_dtype: torch.dtype
    device: torch.device
    parameters: int
    fingerprint: str


def load(
    name: str,
    *,
    served_name: str,
    dtype: str,
    device: str,
    slots: int,
    context: int | None,
    revision: str | None = None,
) -> Loaded:
    """Load a checkpoint.

    Args:
        name: A directory in the Hugging Face layout, or the id of one on the hub.
        served_name: Goes into the fingerprint.
        dtype: A key of `DTYPES`, `INT8`, or auto: the checkpoint's, on CPU float32.
        device: One of `DEVICES`, cuda:1 and so on, or auto.
        slots: Rows of the KV cache.
        context: Tokens a row holds, at most what the model was made for; None is that.
        revision: Of a hub id: a branch, tag or commit; None is its newest.

    Raises:
        ModelLoadError: The message says what to change.
    """
    folder = locate(name, revision)
    config = ModelConfig.read(folder)
    length = _context(config, context)
    place = _device(device)
    kind, int8 = _dtype(dtype, config, place), dtype == INT8
    files = weight_files(folder)
    tokenizer = _tokenizer(folder)
    needed = _weight_bytes(files, config, kind, int8)
    rows = cache_bytes(config, slots, length, kind)
    _check_memory(place, needed, rows, slots, length)
    try:
        weights, parameters = read_weights(files, config, kind, place, int8=int8)
        cache = KVCache(config, slots, length, kind, place)
        model = Llama(config, weights, positions_for(length))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelLoadError(_out_of_memory(needed, rows, slots, length)) from error
    return Loaded(
        config,
        Defaults.read(folder),
        tokenizer,
        model,
        cache,
        length,
        INT8 if int8 else str(kind).removeprefix("torch."),
        kind,
        place,
        parameters,
        checkpoint(folder, files, served_name, str(kind), *[INT8] * int8),
    )


def locate(name: str, revision: str | None = None) -> Path:
    """The directory a model's name means; fetches it from the hub if it is an id and that is on."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelLoadError(f"{name} is a file: give the directory of the checkpoint")
    if not _HUB_ID.fullmatch(name):
        raise ModelLoadError(f"there is no directory {name}")
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_FILES, local_files_only=offline()
            )
        )
    except (OSError, ValueError) as error:
        raise refused(name, error) from error


def _context(config: ModelConfig, wanted: int | None) -> int:
    if wanted is None:
        return config.context
    if not 1 < wanted <= config.context:
        raise ModelLoadError(
            f"context_length {wanted} is not in 2..{config.context}, what the model was made for"
        )
    return wanted


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise ModelLoadError(
            f"device {name!r} is none of auto, {', '.join(DEVICES)}, cuda:<number>"
        )
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[kind]
    if int(number or 0) >= there:
        raise ModelLoadError(f"device {name} is not there: this torch sees {there} of {kind}")
    return torch.device(name)


def _dtype(name: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    """What to compute in."""
    if name in DTYPES:
        return DTYPES[name]
    if name not in ("auto", INT8):
        raise ModelLoadError(f"dtype {name!r} is none of auto, {', '.join(DTYPES)}, {INT8}")
    if device.type == "cpu":
        return torch.float32
    if config.dtype not in DTYPES:
        raise ModelLoadError(
            f"the checkpoint is in {config.dtype}, so there is no dtype {name} on {device}: "
            f"choose {', '.join(DTYPES)}"
        )
    return DTYPES[config.dtype]


def _weight_bytes(files: list[Path], config: ModelConfig, kind: torch.dtype, int8: bool) -> int:
    """What the weights will take, near enough: embedding and head are never in int8."""
    numbers = sum(file.stat().st_size for file in files) // _itemsize(config)
    if not int8:
        return numbers * kind.itemsize
    kept = min(numbers, config.vocab_size * config.hidden * (1 if config.tied else 2))
    return kept * kind.itemsize + numbers - kept


def _itemsize(config: ModelConfig) -> int:
    return DTYPES.get(config.dtype, torch.float32).itemsize


def _tokenizer(folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        raise ModelLoadError(f"cannot load the tokenizer of {folder}: {error}") from error


def _check_memory(device: torch.device, weights: int, cache: int, slots: int, context: int) -> None:
    """Refuse what cannot fit; on CPU allocation is lazy and would kill the process later."""
    if device.type == "cuda":
        room = torch.cuda.mem_get_info(device)[0]
    elif hasattr(os, "sysconf"):
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    if weights + cache > room:
        raise ModelLoadError(
            f"{_out_of_memory(weights, cache, slots, context)}; {device} has {room / _GIB:.1f} GiB"
        )


def _out_of_memory(weights: int, cache: int, slots: int, context: int) -> str:
    return (
        f"out of memory: weights of {weights / _GIB:.1f} GiB and a KV cache of "
        f"{cache / _GIB:.1f} GiB for max_batch {slots} times context_length {context}: "
        "lower one of these, or choose dtype bfloat16 or int8"
    )
