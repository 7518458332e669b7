"""From settings to an engine; an engine's libraries are imported only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from shared.errors import MillstreamError
from workers import bundled
from workers.engines.base import Engine, Job, ModelLoadError, Observation, Sink
from workers.settings import WorkerSettings

_NAMES: Mapping[str, Mapping[str, str]] = {
    "sim": {"max_batch": "max_batch", "context_length": "context_length"},
    "torch": {
        "dtype": "dtype",
        "max_batch": "max_batch",
        "context_length": "context_length",
        "revision": "revision",
    },
    "vllm": {
        "dtype": "dtype",
        "max_batch": "max_num_seqs",
        "context_length": "max_model_len",
        "revision": "revision",
        "quantization": "quantization",
        "trust_remote_code": "trust_remote_code",
    },
}
"""What each engine calls the settings that it knows."""

_INSTEAD: Mapping[str, str] = {
    "quantization": "the vllm engine reads quantized checkpoints",
    "trust_remote_code": "the vllm engine can run a checkpoint's own code",
}


class Unloadable(Engine):
    """Stands for an engine that cannot be made, so that gateways hear why.

    Args:
        error: The reason.
    """

    def __init__(self, error: ModelLoadError) -> None:
        self._error = error

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Say the reason."""
        raise self._error

    def submit(self, job: Job) -> None:
        """Nothing is pulled."""

    def abort(self, job_id: int) -> None:
        """Nothing runs."""

    def observe(self) -> Observation:
        """Nothing."""
        return Observation()

    async def close(self) -> None:
        """Nothing was taken."""


def load_engines(settings: WorkerSettings) -> list[tuple[str, Engine]]:
    """Build what the settings name: an engine for a model, or one for each function of an app.

    Returns:
        Engines by the names they are served under.

    Raises:
        ModelLoadError: See `load_engine`; or the app is none.
    """
    if settings.app is None:
        return [(served_name(settings), load_engine(settings))]
    from workers.app.engines import app_engines

    return app_engines(settings.app)


def load_engine(settings: WorkerSettings) -> Engine:
    """Build the engine that the settings name; it loads its model in `start`.

    Raises:
        ModelLoadError: Its package is not installed, or a setting is not allowed.
    """
    args = _arguments(settings)
    if settings.engine == "sim":
        from workers.engines.sim import SimEngine, SimOptions

        return SimEngine(served_name(settings), SimOptions.parse(args))
    _prepare_hub(settings)
    model = settings.model or str(bundled.PATH)
    name = served_name(settings)
    try:
        if settings.engine == "torch":
            from workers.engines.torch import TorchEngine

            return TorchEngine.from_args(model, name, args)
        from workers.engines.vllm import VllmModel

        return VllmModel(model, name, args)
    except ImportError as error:
        engine = settings.engine
        raise ModelLoadError(
            f"the {engine} engine needs the extra `{engine}` ({error}): "
            f"pip install 'millstream[{engine}]'"
        ) from error


def served_name(settings: WorkerSettings) -> str:
    """What requests call the model, known before it is loaded."""
    given = settings.served_name or (None if settings.engine == "sim" else settings.model)
    return given or ("sim" if settings.engine == "sim" else bundled.NAME)


def _arguments(settings: WorkerSettings) -> dict[str, str]:
    """The engine's arguments; one given by its own name wins over the worker's flag.

    Raises:
        ModelLoadError: A flag that the engine has no use for.
    """
    names = _NAMES[settings.engine]
    args: dict[str, str] = dict(settings.engine_args)
    for name in ("dtype", "max_batch", "context_length", "revision", *_INSTEAD):
        value = getattr(settings, name)
        if value is None or value is False:
            continue
        if name in names:
            args.setdefault(names[name], str(value).lower() if value is True else str(value))
        elif settings.engine != "sim":
            flag = "--" + name.replace("_", "-")
            raise ModelLoadError(f"the {settings.engine} engine has no {flag}; {_INSTEAD[name]}")
    if settings.engine == "vllm" and settings.dtype == "int8":
        raise ModelLoadError(
            "the vllm engine has no dtype int8: give --quantization and a checkpoint made for it"
        )
    return args


def _prepare_hub(settings: WorkerSettings) -> None:
    """Tell the hub's library, which reads the environment when it is imported.

    Raises:
        ModelLoadError: The token's file cannot be read.
    """
    if settings.cache_dir is not None:
        os.environ["HF_HUB_CACHE"] = str(settings.cache_dir)
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"--token-file cannot be read: {error}") from error
        if not token:
            raise ModelLoadError(f"--token-file {settings.token_file} is empty")
        os.environ["HF_TOKEN"] = token
