"""What a request spent its time on: every step is a named stage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A step: seconds since the trace began, and seconds it took."""

    name: str
    start: float
    seconds: float


class Trace:
    """The stages of one request, in the order they ended."""

    def __init__(self) -> None:
        self._begin = perf_counter()
        self._stages: list[Stage] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside, also when it fails."""
        start = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - start
            self._stages.append(Stage(name, start - self._begin, seconds))

    def stages(self) -> tuple[dict[str, Any], ...]:
        """Every stage's `name`, `start_ms` and `ms`, by start."""
        ordered = sorted(self._stages, key=lambda stage: stage.start)
        return tuple(
            {"name": s.name, "start_ms": round(s.start * 1e3, 3), "ms": round(s.seconds * 1e3, 3)} for s in ordered
        )


def chrome_trace(stages: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Stages in Chrome's trace event format, which Perfetto and chrome://tracing open; times in microseconds."""
    events = [
        {"name": s["name"], "ph": "X", "ts": s["start_ms"] * 1e3, "dur": s["ms"] * 1e3, "pid": 1, "tid": 1}
        for s in stages
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
