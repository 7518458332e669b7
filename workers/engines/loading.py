"""From settings to an engine; an engine's libraries are imported only when it is asked for."""

from __future__ import annotations

from workers.engines.base import Engine, ModelLoadError
from workers.settings import WorkerSettings


def load_engine(settings: WorkerSettings) -> Engine:
    """Build the engine that the settings name; it loads its model in `start`.

    Raises:
        ModelLoadError: Its package is not installed, or a setting is not allowed.
    """
    if settings.engine == "sim":
        from workers.engines.sim import SimEngine, SimOptions

        args = dict(settings.engine_args)
        if settings.max_batch is not None:
            args.setdefault("max_batch", str(settings.max_batch))
        return SimEngine(settings.served_name or "sim", SimOptions.parse(args))
    if settings.engine == "torch":
        return _torch(settings)
    raise ModelLoadError(f"the engine {settings.engine!r} is not part of this build")


def _torch(settings: WorkerSettings) -> Engine:
    from workers import bundled

    try:
        from workers.engines.torch import TorchEngine
    except ImportError as error:
        raise ModelLoadError(
            f"the torch engine needs the extra `torch` ({error}): pip install 'millstream[torch]'"
        ) from error
    model = settings.model or str(bundled.PATH)
    name = settings.served_name or (bundled.NAME if settings.model is None else settings.model)
    args: dict[str, str] = dict(settings.engine_args)
    if settings.dtype is not None:
        args.setdefault("dtype", settings.dtype)
    if settings.max_batch is not None:
        args.setdefault("max_batch", str(settings.max_batch))
    return TorchEngine.from_args(model, name, args)
