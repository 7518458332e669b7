"""From settings to a vLLM that embeds texts, and what is announced of it: a function of a text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from transformers import PretrainedConfig
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from shared import features, typed
from shared.signature import Field, Record, Scalar, Signature, TensorType
from shared.wire import ModelCard
from workers.engines.base import ModelLoadError
from workers.engines.vllm import ending
from workers.engines.vllm.arguments import parse
from workers.engines.vllm.loading import explaining, fingerprint_of, launch
from workers.engines.vllm.stats import Steps

TEXT = "text"
"""The function's parameter."""

VERSION = "1"


@dataclass(frozen=True, slots=True)
class Embedder:
    """A model that vLLM serves.

    Attributes:
        llm: vLLM.
        architectures: What the checkpoint says it is.
        context: Tokens of a text, at most.
        slots: Texts that run at once, at most.
        vocabulary: Tokens that it knows.
        dtype: The number type it computes in.
        fingerprint: A hash that differs if its vectors may differ.
        ends: Whether its processes can be told to end with ours.
    """

    llm: AsyncLLM
    architectures: str
    context: int
    slots: int
    vocabulary: int
    dtype: str
    fingerprint: str
    ends: bool


def pools(model: str, args: Mapping[str, str]) -> bool:
    """Whether vLLM pools what the model makes of a text, rather than to go on with it.

    By the argument `runner`; else by the checkpoint: its architecture (BertModel), or the pooling
    that sentence-transformers left beside it (`modules.json`).

    Raises:
        ModelLoadError: The message says what to change.
    """
    with explaining(model):
        engine = parse(model, args).engine
        try:
            config = engine.create_model_config()
        except ValueError:
            if not Path(model).exists():  # Where vLLM finds nothing, the hub says why.
                PretrainedConfig.get_config_dict(model, revision=engine.revision)
            raise
        return bool(config.runner_type == "pooling")


def load(model: str, name: str, args: Mapping[str, str], steps: Steps) -> Embedder:
    """Start vLLM; takes half a minute and more, so it is called in a thread.

    Raises:
        ModelLoadError: The message says what to change.
    """
    with explaining(model):
        given = parse(model, args)
        if given.adapters:
            raise ModelLoadError(f"{model} embeds: lora_modules are for models that generate")
        config = given.engine.create_engine_config(UsageContext.ENGINE_CONTEXT)
        llm = launch(given, config, steps)
    model_config = config.model_config
    return Embedder(
        llm,
        ", ".join(model_config.architectures),
        model_config.max_model_len,
        config.scheduler_config.max_num_seqs,
        model_config.get_vocab_size(),
        str(model_config.dtype).removeprefix("torch."),
        _fingerprint(model, model_config, name),
        ends=ending.add(config.parallel_config),
    )


def _fingerprint(model: str, config: Any, name: str) -> str:
    """As every model's, and how a text's tokens become one vector."""
    own = f"{fingerprint_of(model, config, name)} {config.pooler_config!r}"
    return hashlib.sha256(own.encode()).hexdigest()


def function_name(served_name: str, model: str) -> str:
    """The name of the function: the served one; of a path or hub id its last part.

    Raises:
        ModelLoadError: No function may be called so.
    """
    name = PurePath(served_name).name if served_name == model else served_name
    try:
        typed.validate(signature_of(name, 1))
    except ValueError as error:
        usual = re.sub(r"[^A-Za-z0-9_-]+", "-", name).lstrip("0123456789_-")[:64] or "embed"
        raise ModelLoadError(
            f"an embedding model is served as a function, and {error}: give --served-name, "
            f"{usual} say"
        ) from None
    return name


def signature_of(name: str, dimensions: int) -> Signature:
    """The function: a text's vector."""
    return Signature(
        name,
        VERSION,
        Record("Inputs", (Field(TEXT, 1, Scalar("string")),)),
        TensorType("float32", (dimensions,)),
        summary="The embedding of a text.",
    )


def card_of(embedder: Embedder, signature: Signature) -> ModelCard:
    """What the worker announces.

    Two models under one name would give vectors that do not compare: workers agree on what runs,
    not on the signature alone.
    """
    return ModelCard(
        name=signature.served_name,
        engine="vllm",
        context_length=embedder.context,
        vocab_size=embedder.vocabulary,
        dtype=embedder.dtype,
        fingerprint=f"{typed.fingerprint(signature)}-{embedder.fingerprint[:16]}",
        features=(features.PREDICT, features.RESUME),
        max_batch=embedder.slots,
        signature=typed.dump(signature),
    )
