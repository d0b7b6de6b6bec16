"""What is at work in a pool, so that a measurement can tell whether it was disturbed."""

from __future__ import annotations


class Activity:
    """Counts leases that run, loads and closings."""

    def __init__(self) -> None:
        self._epoch = 0
        self._others = 0
        self._loads = 0

    def begin(self, *, load: bool = False) -> None:
        """A load, or anything else, begins."""
        self._epoch += 1
        if load:
            self._loads += 1
        else:
            self._others += 1

    def end(self, *, load: bool = False) -> None:
        """It ended."""
        if load:
            self._loads -= 1
        else:
            self._others -= 1

    def alone(self) -> int | None:
        """While one load and nothing else is at work, a number that is another whenever anything has begun since."""
        return self._epoch if self._loads == 1 and not self._others else None
