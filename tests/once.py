"""What all processes of a test run share is made by the first that needs it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def once(path: Path) -> Iterator[bool]:
    """Whether a folder is there already; processes and threads that ask for the same one take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path.exists()
