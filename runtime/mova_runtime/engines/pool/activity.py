"""What is at work in a process's pools, so that a measurement can tell whether it was disturbed."""

from __future__ import annotations

import threading


class Activity:
    """Counts leases that run, loads and closings. Pools may share one.

    They call it with their own locks held (see `guard`), so no finaliser comes back here amid a change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._others = 0
        self._loads = 0

    def begin(self, *, load: bool = False) -> None:
        """A load, or anything else, begins."""
        with self._lock:
            self._epoch += 1
            if load:
                self._loads += 1
            else:
                self._others += 1

    def end(self, *, load: bool = False) -> None:
        """It ended."""
        with self._lock:
            if load:
                self._loads -= 1
            else:
                self._others -= 1

    def alone(self) -> int | None:
        """While one load and nothing else is at work, a number that is another whenever anything has begun since."""
        with self._lock:
            return self._epoch if self._loads == 1 and not self._others else None


PROCESS = Activity()
"""For all pools of this process: they share its memory, in which loads are measured."""
