"""What a call says beside its message: by gRPC metadata where the message is the function's own.

`x-request-id`, `traceparent`, `x-priority` (interactive, standard or batch) and `x-label-<key>` are
the gateway's. All of the metadata but credentials and binary values goes to the function's context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway import validate
from gateway.access.guard import TENANT
from shared.errors import InvalidRequest
from shared.subjects import CLASSES

if TYPE_CHECKING:
    from grpclib.server import Stream

STANDARD = CLASSES.index("standard")
LABEL = "x-label-"
PRIVATE = frozenset({"authorization", "proxy-authorization", "cookie", TENANT})
"""Never passed on."""
MOST_ENTRIES = 32
MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Options:
    """How a call is to be run.

    Attributes:
        request_id: The client's name for it; generated where empty.
        traceparent: W3C trace context, or "".
        tenant: Whose it is.
        urgency: The class it queues in.
        labels: For logs and traces, checked.
        metadata: For the function's context.
        seconds: Until the client's deadline, or None.
    """

    request_id: str = ""
    traceparent: str = ""
    tenant: str = ""
    urgency: int = STANDARD
    labels: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    seconds: float | None = None


def metadata_of(stream: Stream[Any, Any], name: str) -> str:
    """The first value of a name in a call's metadata; "" where there is none."""
    value = stream.metadata.get(name, "") if stream.metadata else ""
    return value if isinstance(value, str) else ""


def options_of(stream: Stream[Any, Any]) -> Options:
    """The options of a gRPC call.

    Raises:
        InvalidRequest: A priority that is not known, a label out of bounds, or too much metadata.
    """
    given = stream.metadata
    entries = [] if given is None else [(k, v) for k, v in given.items() if isinstance(v, str)]
    # Reversed, so that the first of each name stays.
    labels = {k.removeprefix(LABEL): v for k, v in reversed(entries) if k.startswith(LABEL)}
    return Options(
        request_id=metadata_of(stream, "x-request-id"),
        traceparent=metadata_of(stream, "traceparent"),
        tenant=metadata_of(stream, TENANT),
        urgency=urgency(metadata_of(stream, "x-priority")),
        labels=validate.check_labels(labels),
        metadata=context_metadata(entries),
        seconds=stream.deadline.time_remaining() if stream.deadline else None,
    )


def urgency(priority: str) -> int:
    """The class of a priority's name; "" is standard.

    Raises:
        InvalidRequest: There is no such priority.
    """
    if not priority:
        return STANDARD
    name = priority.lower()
    if name not in CLASSES[1:]:
        raise InvalidRequest(
            f"x-priority is {priority[:80]!r}: want {', '.join(CLASSES[1:])}", field="x-priority"
        )
    return CLASSES.index(name)


def context_metadata(entries: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The metadata that a function may see.

    Raises:
        InvalidRequest: It is more than a request carries.
    """
    kept = tuple(
        (name, value)
        for name, value in entries
        if name not in PRIVATE and not name.startswith("grpc-") and not name.endswith("-bin")
    )
    if len(kept) > MOST_ENTRIES:
        raise InvalidRequest(
            f"the metadata has {len(kept)} entries: at most {MOST_ENTRIES}", field="metadata"
        )
    size = sum(len(name) + len(value) for name, value in kept)
    if size > MOST_BYTES:
        raise InvalidRequest(
            f"the metadata takes {size} bytes: at most {MOST_BYTES}", field="metadata"
        )
    return kept
