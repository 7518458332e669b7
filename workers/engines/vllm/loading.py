"""From settings to a running AsyncLLM, with errors that say what to change."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from vllm.lora.request import LoRARequest
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from shared import features
from shared.wire import ModelCard
from workers.engines.base import ModelLoadError
from workers.engines.fingerprint import checkpoint
from workers.engines.hub import refused
from workers.engines.text import Pieces
from workers.engines.vllm import ending, replay
from workers.engines.vllm.arguments import Arguments, parse
from workers.engines.vllm.prompts import Defaults
from workers.engines.vllm.stats import Steps

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_ERROR_LINE = re.compile(r"\b(?:[A-Za-z_]+\.)*[A-Z]\w*(?:Error|Exception): .+")
_LOGGING = "VLLM_LOGGING_CONFIG_PATH"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that vLLM serves.

    Attributes:
        llm: vLLM.
        tokenizer: As transformers loads it.
        pieces: The vocabulary.
        defaults: What holds for every request.
        adapters: LoRA adapters by name.
        dtype: The number type it computes in.
        fingerprint: A hash that differs if the model may answer differently.
        structured: Whether answers can be restricted to a form.
        ends: Whether its processes can be told to end with ours.
    """

    llm: AsyncLLM
    tokenizer: Any
    pieces: Pieces
    defaults: Defaults
    adapters: Mapping[str, LoRARequest]
    dtype: str
    fingerprint: str
    structured: bool
    ends: bool


def load(model: str, served_name: str, args: Mapping[str, str], steps: Steps) -> Loaded:
    """Start vLLM; takes half a minute and more, so it is called in a thread.

    Raises:
        ModelLoadError: The message says what to change.
    """
    with explaining(model):
        given = parse(model, args)
        config = given.engine.create_engine_config(UsageContext.ENGINE_CONTEXT)
        _check_generates(model, config.model_config)
        exact = not config.use_v2_model_runner and config.speculative_config is None
        if exact:
            own = config.model_config.logits_processors or []
            config.model_config.logits_processors = [*own, replay.PATH]
        llm = launch(given, config, steps)
    model_config = config.model_config
    tokenizer = llm.get_tokenizer()
    eos = _eos(model_config, tokenizer)
    return Loaded(
        llm,
        tokenizer,
        Pieces.of(tokenizer, model_config.get_vocab_size(), silent=eos),
        Defaults(
            model_config.get_diff_sampling_param(),
            eos,
            model_config.max_model_len,
            config.scheduler_config.max_num_seqs,
            exact,
            config.scheduler_config.stream_interval,
        ),
        given.adapters,
        str(model_config.dtype).removeprefix("torch."),
        fingerprint_of(model, model_config, served_name),
        structured=not model_config.skip_tokenizer_init,
        ends=ending.add(config.parallel_config),
    )


@contextmanager
def explaining(model: str) -> Iterator[None]:
    """Say what to change where vLLM cannot load a model.

    Raises:
        ModelLoadError: In place of what vLLM raises.
    """
    _check_place(model)
    # A forked copy of a process with threads may hang, and this one has them.
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")
    with _causes() as causes:
        try:
            yield
        except (ValidationError, ValueError, OSError, RuntimeError, ImportError) as error:
            raise _explained(model, error, causes()) from error


def launch(given: Arguments, config: Any, steps: Steps) -> AsyncLLM:
    """Start vLLM's processes, which can be told to end with ours: see `ending`."""
    ending.add(config.parallel_config)
    return AsyncLLM.from_vllm_config(
        config,
        stat_loggers=[steps],
        enable_log_requests=given.engine.enable_log_requests,
        disable_log_stats=given.engine.disable_log_stats,
    )


def card_of(loaded: Loaded, served_name: str) -> ModelCard:
    """What the worker announces."""
    found = [
        features.LOGPROBS, features.CHOICES, features.PENALTIES, features.PREFIX_CACHE,
        features.PRIORITY, features.RESUME, features.SEED,
    ]  # fmt: skip
    if loaded.tokenizer.chat_template:
        found.append(features.CHAT)
    if loaded.adapters:
        found.append(features.LORA)
    if loaded.structured:
        found.append(features.STRUCTURED)
    return ModelCard(
        name=served_name,
        engine="vllm",
        context_length=loaded.defaults.context,
        vocab_size=len(loaded.pieces),
        dtype=loaded.dtype,
        fingerprint=loaded.fingerprint,
        features=tuple(sorted(found)),
        max_batch=loaded.defaults.slots,
    )


def _check_place(model: str) -> None:
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "params.json").is_file():
            raise ModelLoadError(
                f"{folder} has no config.json: give the directory of a checkpoint in the Hugging "
                "Face layout"
            )
    elif folder.is_file() and folder.suffix != ".gguf":
        raise ModelLoadError(f"{model} is a file: give the directory that holds the checkpoint")
    elif not folder.exists() and not _HUB_ID.fullmatch(model):
        raise ModelLoadError(f"there is no directory {model}")


def _check_generates(model: str, config: Any) -> None:
    if config.runner_type != "generate":
        names = ", ".join(config.architectures)
        raise ModelLoadError(f"{model} is {names}, not a causal language model")


def _explained(model: str, error: Exception, causes: list[str]) -> ModelLoadError:
    if isinstance(error, OSError) and not causes and not Path(model).exists():
        return refused(model, error)
    return ModelLoadError(_explain(model, error, causes))


def _explain(model: str, error: Exception, causes: list[str]) -> str:
    """One line of what vLLM says, with what to change where that is known."""
    text = causes[-1] if causes else str(error)
    if isinstance(error, ValidationError) and not causes:
        text = "; ".join(str(each["msg"]) for each in error.errors())
    text = " ".join(text.split())
    lower = text.lower()
    if "not supported" in lower and "architecture" in lower:
        return f"{model}: this vLLM does not run its architecture: {text[:500]}"
    if "memory" in lower or "kv cache" in lower or "'EngineCore': -9" in text:
        return (
            f"{model}: out of memory: {text[:500]}: lower context_length (max_model_len) or "
            "max_batch (max_num_seqs), raise gpu_memory_utilization, or choose dtype bfloat16 or "
            "a quantization"
        )
    return f"{model}: vLLM cannot load it: {text[:500]}"


@contextmanager
def _causes() -> Iterator[Any]:
    """Hear the errors of vLLM's processes while they start: ours only learns that one failed."""
    if _LOGGING in os.environ or os.environ.get("VLLM_CONFIGURE_LOGGING") == "0":
        yield list
        return
    from vllm.logger import DEFAULT_LOGGING_CONFIG

    with tempfile.TemporaryDirectory(prefix="millstream-vllm-") as folder:
        log = Path(folder) / "errors"
        config: dict[str, Any] = copy.deepcopy(DEFAULT_LOGGING_CONFIG)
        config["handlers"]["errors"] = {
            "class": "logging.FileHandler",
            "filename": str(log),
            "level": "ERROR",
        }
        config["loggers"]["vllm"]["handlers"].append("errors")
        path = Path(folder) / "logging.json"
        path.write_text(json.dumps(config))
        os.environ[_LOGGING] = str(path)
        try:
            yield lambda: _ERROR_LINE.findall(log.read_text("utf-8") if log.exists() else "")
        finally:
            os.environ.pop(_LOGGING, None)


def _eos(config: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens at which vLLM ends an answer."""
    found = config.try_get_generation_config().get("eos_token_id")
    ids = found if isinstance(found, list) else [found]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def fingerprint_of(model: str, config: Any, served_name: str) -> str:
    """A hash of config, tokenizer and samples of the weights, or of the hub's commit."""
    words = ("vllm", served_name, str(config.dtype), str(config.quantization))
    folder = Path(model)
    if folder.is_dir():
        weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
        return checkpoint(folder, weights, *words)
    commit = getattr(config.hf_config, "_commit_hash", None) or config.revision
    said = "\0".join(words) + f"{model}\0{commit}"
    return hashlib.sha256(said.encode()).hexdigest()[:32]
