"""The lock of a pool, and what may be done where it is held.

A garbage collection may end a stream that nobody reads any more, in whatever thread it comes by, between any two steps.
Such a stream gives its lease back. In a thread that is just changing a pool that would be amid the change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class _Here(threading.local):
    """Of this thread. depth: guards that it holds, is taking, or waits in."""

    depth = 0


_here = _Here()


class Guard:
    """A condition variable of which a thread knows whether it holds it.

    Its lock is re-entrant, so that a finaliser of somebody else's that reads a pool does not wait for itself.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        _here.depth += 1
        try:
            self._condition.__enter__()
        except BaseException:
            _here.depth -= 1
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._condition.__exit__(kind, error, trace)
        finally:
            _here.depth -= 1

    def wait(self, timeout: float | None = None) -> None:
        """Let go of the lock until notified, or until so many seconds are over."""
        self._condition.wait(timeout)  # counts as holding: a notice before it sleeps would be lost

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Let go of the lock until something holds."""
        self._condition.wait_for(holds)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._condition.notify_all()


def held_here() -> bool:
    """Whether this thread is within any guard: also another pool's, as two taken in either order would deadlock."""
    return _here.depth > 0


def outside(work: Callable[[], None]) -> None:
    """Do what takes a guard: now, or in a thread of its own where this one is within a guard.

    Only finalisers ever are. One that waits for what they give back could wait for ever if it were left to this thread.
    """
    if held_here():
        threading.Thread(target=work, name="mova-abandoned").start()
    else:
        work()
