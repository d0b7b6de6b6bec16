"""How much memory the process holds at most, between two moments."""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

_STATM = Path("/proc/self/statm")
_SECONDS = 0.01


class PeakMemory:
    """Looks at the process's resident memory from a thread, a hundred times a second.

    The system's own record can't be used for a part of a process's life: it never falls, and to reset it would take it
    from whoever else reads it.
    """

    def __init__(self) -> None:
        self._most = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def take(self) -> int:
        """The most since the last call, in bytes; mapped files count as far as they are in memory."""
        self._look()
        with self._lock:
            most, self._most = self._most, 0
        return most

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS):
            self._look()

    def _look(self) -> None:
        found = resident_bytes()
        with self._lock:
            self._most = max(self._most, found)


def resident_bytes() -> int:
    """What the process holds now; where there is no /proc, the most it ever held."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
