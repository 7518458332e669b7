"""What a simulated engine can be told."""

from __future__ import annotations

from dataclasses import dataclass

from workers.engines.base import ModelLoadError


@dataclass(frozen=True, slots=True)
class SimOptions:
    """The engine's settings.

    Attributes:
        prefill_ms: From a job's start to its first step.
        step_ms: Between two steps; 0 is free-running.
        max_batch: Jobs at once.
        mode: count or chain.
        context_length: Tokens of prompt and answer together.
        hang_at: Stop stepping, heartbeats go on, once a job reaches this token; 0 never.
        hang_ms: Step again after so long, and hang no more; 0 hangs for ever.
        die_at: Die as a whole once a job reaches this token; 0 never.
        crash_on: A prompt that contains this text kills the process at its first step.
    """

    prefill_ms: float = 0.0
    step_ms: float = 0.0
    max_batch: int = 256
    mode: str = "count"
    context_length: int = 32768
    hang_at: int = 0
    hang_ms: float = 0.0
    die_at: int = 0
    crash_on: str = ""

    @classmethod
    def parse(cls, args: dict[str, str]) -> SimOptions:
        """Build them from strings.

        Raises:
            ModelLoadError: An unknown name or a bad value.
        """
        values: dict[str, object] = {}
        kinds = {
            "prefill_ms": float, "step_ms": float, "hang_ms": float, "mode": str, "crash_on": str,
        }  # fmt: skip
        for name, text in args.items():
            if name not in cls.__slots__:
                raise ModelLoadError(
                    f"the sim engine has no setting {name!r}; it has {', '.join(cls.__slots__)}"
                )
            try:
                values[name] = kinds.get(name, int)(text)
            except ValueError:
                raise ModelLoadError(f"sim engine setting {name}={text!r}: want a number") from None
        options = cls(**values)  # type: ignore[arg-type]
        if options.mode not in ("count", "chain"):
            raise ModelLoadError(f"sim engine setting mode={options.mode!r}: want count or chain")
        if options.max_batch < 1 or options.step_ms < 0 or options.prefill_ms < 0:
            raise ModelLoadError("sim engine settings must not be negative, max_batch at least 1")
        return options
