"""From `module:attr` to an App."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

import structlog

from workers.app.app import App
from workers.engines.base import ModelLoadError

log = structlog.get_logger(__name__)


def load_app(path: str) -> App:
    """Import an app; the working directory's modules are found.

    What its module raises is logged with its traceback.

    Args:
        path: `module:attr`, such as `app:app` or `shop.models:app`.

    Raises:
        ModelLoadError: There is no such module or attribute, it is not an App, or its module
            cannot be imported; says why, for clients too: of what it raised only the type.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute or "/" in module_name:
        hint = module_name.removesuffix(".py").replace("/", ".") or "app"
        raise ModelLoadError(
            f"{path!r} names no app: want module:attribute, such as {hint}:{attribute or 'app'}"
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # The user's module.
        missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        if missing and f"{module_name}.".startswith(f"{missing}."):
            hint = f"; without .py: {module_name[:-3]}" if module_name.endswith(".py") else ""
            raise ModelLoadError(
                f"{path}: there is no module {missing!r} in {here} or among the installed "
                f"packages{hint}"
            ) from error
        log.error("import_failed", app=path, exc_info=error)
        if missing:
            raise ModelLoadError(
                f"{path}: {module_name} imports {missing!r}, which is not installed"
            ) from error
        raise ModelLoadError(
            f"{path}: {module_name} cannot be imported: {type(error).__name__}; "
            "see the worker's log"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            apps = [name for name, value in vars(found).items() if isinstance(value, App)]
            hint = f"; it has {', '.join(f'{module_name}:{name}' for name in apps)}" if apps else ""
            raise ModelLoadError(f"{path}: {module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ModelLoadError(
            f"{path} is of type {type(found).__name__}: want an App (from millstream import App)"
        )
    return found
