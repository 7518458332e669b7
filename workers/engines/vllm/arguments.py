"""Engine arguments as strings, under the names vLLM gives them, and the one of our own."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

from workers.engines.base import ModelLoadError

_QUEUE = "requests wait in NATS, and the gateway's --max-queue limits them"
OWN = {
    "model": "give the flag --model instead",
    "served_model_name": "give the flag --served-name instead",
    "max_num_queued_reqs": _QUEUE,
    "max_num_queued_tokens": _QUEUE,
    "disable_log_stats": "the worker has metrics, see --metrics-port",
    "otlp_traces_endpoint": "the worker traces its requests, see OTEL_EXPORTER_OTLP_ENDPOINT",
}
"""Arguments of vLLM whose part is played elsewhere, and where."""

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM can be built for."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the engine was given.

    Attributes:
        engine: vLLM's own.
        adapters: LoRA adapters by name.
    """

    engine: AsyncEngineArgs
    adapters: Mapping[str, LoRARequest]


def parse(model: str, args: Mapping[str, str]) -> Arguments:
    """Read the arguments.

    Args:
        model: A directory, or the id of a model on the hub.
        args: Fields of vLLM's `AsyncEngineArgs` as strings (a list with commas, a mapping as
            JSON), and `lora_modules`: NAME=DIRECTORY, with commas between several.

    Raises:
        ModelLoadError: An unknown name, or a value that is not allowed.
    """
    given = dict(args)
    adapters = _adapters(given.pop("lora_modules", ""))
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser(add_help=False))
    actions = {action.dest: action for action in parser._actions if action.dest in known}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name in OWN:
            raise ModelLoadError(f"vllm engine argument {name}: {OWN[name]}")
        action = actions.get(name)
        if action is None:
            raise ModelLoadError(_unknown(name, sorted(actions)))
        values[name] = _value(name, text, action)
    if adapters:
        values.setdefault("enable_lora", True)
        values.setdefault("max_loras", len(adapters))
        values.setdefault("max_lora_rank", _rank(adapters))
    # Urgency has its meaning inside vLLM too; its statistics are the worker's metrics.
    values.setdefault("scheduling_policy", "priority")
    values["disable_log_stats"] = True
    try:
        return Arguments(AsyncEngineArgs(model=model, **values), adapters)
    except (ValueError, TypeError) as error:
        raise ModelLoadError(f"vllm engine arguments: {error}") from error


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, [*known, "lora_modules"], 3)
    return (
        f"the vllm engine has no argument {name!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
        + "; it has lora_modules and the fields of vLLM's AsyncEngineArgs, which `vllm serve "
        "--help` lists"
    )


def _value(name: str, text: str, action: argparse.Action) -> Any:
    if action.nargs == 0:
        return _flag(name, text)
    try:
        if action.nargs in ("+", "*"):
            return [_one(part.strip(), action) for part in text.split(",")]
        return _one(text, action)
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ModelLoadError(f"vllm engine argument {name}={text!r}: {error}") from error


def _one(text: str, action: argparse.Action) -> Any:
    convert = action.type
    value = convert(text) if callable(convert) else text
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"want one of {', '.join(map(str, action.choices))}")
    return value


def _flag(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ModelLoadError(f"vllm engine argument {name}={text!r}: want true or false")


def _adapters(text: str) -> dict[str, LoRARequest]:
    adapters: dict[str, LoRARequest] = {}
    for number, pair in enumerate(filter(None, text.split(",")), 1):
        name, equals, folder = (part.strip() for part in pair.partition("="))
        if not (name and equals and folder):
            raise ModelLoadError(f"vllm engine argument lora_modules={text!r}: want NAME=DIRECTORY")
        if not (Path(folder) / "adapter_config.json").is_file():
            raise ModelLoadError(
                f"LoRA adapter {name!r}: {folder} has no adapter_config.json; give the directory "
                "that PEFT wrote"
            )
        adapters[name] = LoRARequest(name, number, folder)
    return adapters


def _rank(adapters: Mapping[str, LoRARequest]) -> int:
    """The smallest rank vLLM can be built for that holds every adapter."""
    most = 1
    for name, adapter in adapters.items():
        path = Path(adapter.lora_path) / "adapter_config.json"
        try:
            most = max(most, int(json.loads(path.read_text("utf-8"))["r"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"LoRA adapter {name!r}: {path}: {error!r}") from error
    fitting = [rank for rank in _RANKS if rank >= most]
    if not fitting:
        raise ModelLoadError(f"an adapter has rank {most}; vLLM takes up to {_RANKS[-1]}")
    return fitting[0]
