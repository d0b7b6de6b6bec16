"""What happened and when: every step of a request is a named stage, every eviction and cache hit a mark.

It is always on, so it is cheap: a stage is two readings of the clock and one entry in a list.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

KEPT_EVENTS = 100_000
"""Of a runtime, unless it is told otherwise; older ones are forgotten."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    start: of the clock, in seconds; seconds: how long it took, None for a mark; thread: the name of the thread it
    happened in, and `ident` its number: names may be the same; facts: about it, such as `bytes`.
    """

    name: str
    start: float
    seconds: float | None
    thread: str
    ident: int
    facts: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """The latest events of a runtime, of all requests and threads."""

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        """`kept`: events at most."""
        self._begin = perf_counter()
        self._events: deque[Event] = deque(maxlen=kept)

    def add(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event)  # atomic: several threads record at once

    def chrome(self) -> dict[str, Any]:
        """The events in Chrome's format; see `chrome_trace`."""
        return chrome_trace(self._events.copy(), self._begin)


class Trace:
    """The events of one request, which may come from several threads."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        """`recorder` gets them too."""
        self._begin = perf_counter()
        self._recorder = recorder
        self._events: list[Event] = []

    def beside(self) -> Trace:
        """A trace for what is done on the occasion of this one, but not for it."""
        return Trace(self._recorder)

    @contextlib.contextmanager
    def stage(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Time what is inside, also when it fails; more facts can be added to what it yields."""
        start = perf_counter()
        try:
            yield facts
        finally:
            self._add(name, start, perf_counter() - start, facts)

    def mark(self, name: str, **facts: Any) -> None:
        """Note that something happened now."""
        self._add(name, perf_counter(), None, facts)

    def count(self, name: str) -> int:
        """Events of a name so far."""
        return sum(event.name == name for event in tuple(self._events))

    def stages(self) -> tuple[dict[str, Any], ...]:
        """Every stage's `name`, `start_ms` from the request's begin, `ms`, `thread` and its facts, by start."""
        stages = [(event, event.seconds) for event in tuple(self._events) if event.seconds is not None]
        return tuple(
            {
                "name": event.name,
                "start_ms": round((event.start - self._begin) * 1e3, 3),
                "ms": round(seconds * 1e3, 3),
                "thread": event.thread,
                **event.facts,
            }
            for event, seconds in sorted(stages, key=lambda pair: pair[0].start)
        )

    def _add(self, name: str, start: float, seconds: float | None, facts: dict[str, Any]) -> None:
        thread = threading.current_thread()
        event = Event(name, start, seconds, thread.name, thread.ident or 0, facts)
        self._events.append(event)
        if self._recorder:
            self._recorder.add(event)


def loading(stages: Iterable[dict[str, Any]], background: str) -> dict[str, float]:
    """Milliseconds that loading took in all, and of these, how many the request waited for and how many it did not.

    Args:
        stages: of a request.
        background: how names of threads begin that load ahead of requests.
    """
    loads = exposed = hidden = 0.0
    waits: dict[str, float] = {}
    ahead: dict[str, float] = {}
    for stage in stages:
        what, _, rest = stage["name"].partition(" ")
        component = rest.removeprefix("for ")
        if what in ("load", "check"):
            loads += stage["ms"]
            if stage["thread"].startswith(background):
                ahead[component] = ahead.get(component, 0.0) + stage["ms"]
            else:
                exposed += stage["ms"]
        elif what == "wait":  # for an engine that another thread loads; "room" is no component
            waits[component] = waits.get(component, 0.0) + stage["ms"]
    waits.pop("room", None)
    for component, ms in ahead.items():
        hidden += max(ms - waits.get(component, 0.0), 0.0)
    exposed += sum(waits.values())
    return {"ms": round(loads, 3), "exposed_ms": round(exposed, 3), "hidden_ms": round(hidden, 3)}


def chrome_trace(events: Iterable[Event], begin: float) -> dict[str, Any]:
    """Events in Chrome's trace event format, which Perfetto and chrome://tracing open.

    Args:
        events: stages become complete events ("X"), marks instants ("i") of their thread.
        begin: of the clock, in seconds; times are microseconds since then.

    Source: "Trace Event Format", the Chromium project.
    """
    process, threads = os.getpid(), dict[tuple[int, str], int]()
    written: list[dict[str, Any]] = []
    for event in sorted(events, key=lambda event: event.start):
        thread = threads.setdefault((event.ident, event.thread), len(threads) + 1)
        shape = {"ph": "i", "s": "t"} if event.seconds is None else {"ph": "X", "dur": round(event.seconds * 1e6, 3)}
        when = round((event.start - begin) * 1e6, 3)
        written.append({"name": event.name, **shape, "ts": when, "pid": process, "tid": thread, "args": event.facts})
    names = [
        {"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
        for (_, name), thread in threads.items()
    ]
    return {"traceEvents": names + written, "displayTimeUnit": "ms"}
