"""What is no directory is taken for a model of the hub; here is why the hub does not give it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from workers.engines.base import ModelLoadError


def offline() -> bool:
    """Whether the network is forbidden."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def refused(model: str, error: Exception) -> ModelLoadError:
    """The error that tells what to change.

    Args:
        model: What was given for the model.
        error: What came instead of it; the hub's own error may be among its causes.
    """
    return ModelLoadError(f"there is no directory {model}; taken for a hub id, {_reason(error)}")


def _reason(error: Exception) -> str:
    if offline():
        return "HF_HUB_OFFLINE is set and the cache does not hold it: unset it, or give a directory"
    said = next((each for each in _causes(error) if isinstance(each, HfHubHTTPError)), None)
    token = "give --token-file of an account that may read it"
    if isinstance(said, GatedRepoError):
        return f"it is gated: accept its terms on the hub and {token} ({_words(said)})"
    if isinstance(said, RepositoryNotFoundError):
        return f"the hub has no such model, or hides it: check the id, or {token}"
    if isinstance(said, RevisionNotFoundError):
        return "it has no such revision: check --revision"
    return f"the hub does not give it: check the network and HF_ENDPOINT ({_words(error)})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(error: Exception) -> str:
    """What the hub says, in a line."""
    text = getattr(error, "server_message", None) or str(error)
    return " ".join(text.split())[:300]
