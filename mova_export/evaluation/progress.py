"""How far a run is: one line that is rewritten on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from time import monotonic
from typing import TextIO

EVERY_SECONDS = 30.0
"""Between two lines where there is no terminal."""

_BAR = 24
_CLEAR = "\r\x1b[K"


class Progress:
    """Questions done of all there are. Telling never fails: a stream that nobody reads any more is left alone."""

    def __init__(self, total: int, done: int, stream: TextIO | None, clock: Callable[[], float] = monotonic) -> None:
        """Begin.

        Args:
            total: questions.
            done: of these by earlier runs; they say nothing about how long one takes.
            stream: to tell it to; None where standard error is closed.
            clock: in seconds.
        """
        self._total = total
        self._done = done
        self._stream = stream
        self._clock = clock
        self._begin = self._told = clock()
        self._tried = 0
        self._rewrites = stream is not None and stream.isatty()
        self._draw()

    def step(self) -> None:
        """One more is done, answered or not."""
        self._done += 1
        self._tried += 1
        now = self._clock()
        if self._rewrites:
            self._draw()
        elif now - self._told >= EVERY_SECONDS:
            self._told = now
            self._write(f"{self._state()}\n")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._write(f"{_CLEAR if self._rewrites else ''}{line}\n")
        self._draw()

    def end(self) -> None:
        """Leave the terminal to others."""
        if self._rewrites:
            self._write(_CLEAR)

    def _draw(self) -> None:
        if self._rewrites:
            filled = _BAR * self._done // max(self._total, 1)
            line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._state()}"
            width = shutil.get_terminal_size().columns - 1
            self._write(_CLEAR + line[:width])

    def _state(self) -> str:
        state = f"{self._done} of {self._total} questions"
        if not self._tried:
            return state
        each = (self._clock() - self._begin) / self._tried
        left = each * (self._total - self._done)
        return f"{state}, {each:.1f} s each, {duration(left)} left"

    def _write(self, text: str) -> None:
        if self._stream:
            with contextlib.suppress(OSError, ValueError):  # closed by whoever read it, or by us
                self._stream.write(text)
                self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says them: 12 s, 3 min 5 s, 2 h 40 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
