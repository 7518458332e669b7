"""From an app to its engines, one for each function."""

from __future__ import annotations

from workers.app.batched import BatchEngine
from workers.app.engine import AppEngine
from workers.app.loading import load_app
from workers.app.running import RunningApp
from workers.app.signatures import ModelSpec
from workers.engines.base import Engine, ModelLoadError


def app_engines(path: str, *, device: str = "") -> list[tuple[str, Engine]]:
    """The engines of an app by the names that they are served under.

    Args:
        path: `module:attr`.
        device: What `load` hooks get; found out where it is not given.

    Raises:
        ModelLoadError: There is no such app, or it has no functions.
    """
    app = load_app(path)
    if not app.models:
        raise ModelLoadError(f"{path} serves nothing: decorate a function with @app.model(...)")
    running = RunningApp(app, device=device)
    return [(model.served_name, engine(model, running)) for model in app.models.values()]


def engine(model: ModelSpec, running: RunningApp) -> Engine:
    """The engine of one function."""
    return AppEngine(model, running) if model.batch is None else BatchEngine(model, running)
