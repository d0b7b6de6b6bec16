"""Signals while C++ code runs that no Python exception may cross."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes a signal instead of raising its exception; on leaving, the signal is raised as it would have been.

    Only signals with a handler in Python are held: what would end the process still does. Outside the main thread
    nothing arrives and nothing is held.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _HELD:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.pending is not None:
            signal.raise_signal(self.pending)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = number
